"""A digital phantom: four co-registered contrasts of a head that nobody owns, with its truth.

Geometry of the BraTS data: 240 x 240 x 155 voxels of 1 mm, array axes to the patient's left,
posterior and superior (LPS), int16, zero outside the skull-stripped brain. Everything follows from
one seed; no data file is read and no global state is touched. The left and the right half differ,
so a mirrored result cannot pass for a correct one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from model_core.errors import OptionError
from model_core.imaging.nifti import write_label_map, write_nifti
from model_core.imaging.volume import Volume
from model_core.labels import volumes_ml
from model_core.phantom.anatomy import build_anatomy
from model_core.phantom.contrast import render_contrasts
from model_core.phantom.frame import FULL_SHAPE, HeadFrame, head_frame
from model_core.phantom.lesion import grow_lesion, plan_lesion, push_aside
from model_core.types import CONTRASTS, Contrast, LabelScheme, Shape3

SMALLEST_AXIS: Final = 16
"""Below this many voxels along an axis no lesion part is left to speak of."""
LARGEST_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
class Phantom:
    """One generated study.

    Attributes:
        images: the four contrasts, int16, on one grid.
        labels: ground truth in the internal numbering (`model_core.types.Label`), uint8.
        truth_ml: millilitres of NCR, ED, ET and of the regions WT and TC, counted from `labels`.
        seed: what it was made from.
    """

    images: Mapping[Contrast, Volume]
    labels: Volume
    truth_ml: Mapping[str, float]
    seed: int

    @property
    def name(self) -> str:
        """Case name in the manner of BraTS, e.g. ``Phantom_0007``."""
        return f"Phantom_{self.seed:04d}"


def make_phantom(seed: int = 0, *, shape: Shape3 = FULL_SHAPE) -> Phantom:
    """Generate a phantom.

    Args:
        seed: 0 … 2³² - 1; the same seed gives the same phantom.
        shape: voxels right-left, anterior-posterior, inferior-superior. Voxels are always 1 mm:
            a smaller shape is the same head, smaller (meant for tests).

    Raises:
        OptionError: the seed or the shape is out of range.
    """
    _check(seed, shape)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]
    frame = head_frame(shape)
    plan = plan_lesion(streams[0])
    anatomy = build_anatomy(frame, streams[1], push_aside(frame, plan))
    lesion = grow_lesion(frame, streams[2], plan, anatomy)
    contrasts = render_contrasts(frame, streams[3], anatomy, lesion)
    affine = brats_affine(shape)
    labels = Volume(_in_volume(frame, lesion.labels), affine)
    return Phantom(
        images={c: Volume(_in_volume(frame, contrasts[c]), affine) for c in CONTRASTS},
        labels=labels,
        truth_ml=volumes_ml(labels.array, labels.grid.voxel_ml),
        seed=seed,
    )


def write_phantom(
    out_dir: Path,
    *,
    seed: int = 0,
    shape: Shape3 = FULL_SHAPE,
    scheme: LabelScheme = "brats2021",
) -> tuple[Phantom, dict[str, Path]]:
    """Generate a phantom and write it in BraTS 2021 naming.

    Args:
        out_dir: folder for the five files; created if missing, equal names are replaced.
        seed: see `make_phantom`.
        shape: see `make_phantom`.
        scheme: numbering of the written label map.

    Returns:
        The phantom, and the path of each file: the four contrasts and ``"seg"``.
    """
    phantom = make_phantom(seed, shape=shape)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for contrast, volume in phantom.images.items():
        paths[contrast] = out_dir / f"{phantom.name}_{contrast}.nii.gz"
        write_nifti(paths[contrast], volume)
    paths["seg"] = out_dir / f"{phantom.name}_seg.nii.gz"
    write_label_map(paths["seg"], phantom.labels.array, like=phantom.images["t1"], scheme=scheme)
    return phantom, paths


def brats_affine(shape: Shape3) -> npt.NDArray[np.float64]:
    """The affine of BraTS files (voxel to RAS+ mm) for a volume of this shape."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = shape[1] - 1.0
    return affine


def _in_volume(frame: HeadFrame, box: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Put an array over the brain box back into the whole volume, zeros around it."""
    volume = np.zeros(frame.shape, box.dtype)
    volume[frame.box] = box
    return volume


def _check(seed: int, shape: Shape3) -> None:
    if not 0 <= seed <= LARGEST_SEED:
        raise OptionError(
            "seed",
            expected=f"an integer from 0 to {LARGEST_SEED}",
            got=str(seed),
            way_out="Choose another seed.",
        )
    if len(shape) != 3 or min(shape) < SMALLEST_AXIS:
        raise OptionError(
            "shape",
            expected=f"three axes of at least {SMALLEST_AXIS} voxels",
            got=str(shape),
            way_out="Ask for a larger phantom; 240,240,155 is full size.",
        )
