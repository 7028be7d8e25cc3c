"""Generated studies and what this checkout makes of them, to hold a container's answers against."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from model_core.types import CONTRASTS

SEGMAMBA = [sys.executable, "-c", "from model_core.cli.main import main; main()"]


def phantom(folder: Path, *, size: str = "small", seed: int = 0) -> Path:
    """A study of four contrasts and its truth, in BraTS naming."""
    words = ["phantom", folder, "--size", size, "--seed", str(seed)]
    subprocess.run([*SEGMAMBA, *words], check=True, capture_output=True)
    return folder


def form(study: Path) -> list[tuple[str, tuple[str, bytes]]]:
    """The upload of a study."""
    files = {contrast: next(study.glob(f"*_{contrast}.nii.gz")) for contrast in CONTRASTS}
    return [(contrast, (file.name, file.read_bytes())) for contrast, file in files.items()]


def segmented_here(study: Path, target: Path) -> npt.NDArray[np.uint8]:
    """The label map of the command line, without any container."""
    words = [f"--{c}={next(study.glob(f'*_{c}.nii.gz'))}" for c in CONTRASTS]
    subprocess.run([*SEGMAMBA, "segment", *words, "-o", target], check=True, capture_output=True)
    return labels(target.read_bytes())


def labels(content: bytes) -> npt.NDArray[np.uint8]:
    """The voxels of a .nii.gz."""
    image = nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(content)))
    return np.asarray(image.dataobj).astype(np.uint8)


def differing(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """The share of the voxels of a lesion that differ."""
    lesion = (a > 0) | (b > 0)
    return float(((a != b) & lesion).sum() / max(lesion.sum(), 1))


def job_of(answer: Mapping[str, str]) -> str:
    """The address of a job that was taken."""
    return answer["location"]
