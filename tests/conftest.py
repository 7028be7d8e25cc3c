"""What every test may use: real cases where they are at hand, and a quiet machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    # before NumPy or torch is imported: tiny tensors gain nothing from threads
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# no test meets, or leaves, the jobs and results of the person who runs it
_state = tempfile.TemporaryDirectory(prefix="segmamba-state-")
os.environ["XDG_STATE_HOME"] = _state.name

REAL_CASES_VARIABLE = "SEGMAMBA_TEST_DATA"


@pytest.fixture(scope="session")
def real_cases() -> Path:
    """The folder of real BraTS 2021 cases; tests that need it are skipped where it is absent."""
    named = os.environ.get(REAL_CASES_VARIABLE)
    root = Path(__file__).parents[1]
    folder = Path(named) if named else root.parent / "shared" / "data" / "brats2021"
    if not folder.is_dir():
        pytest.skip(
            "no real BraTS 2021 cases here: set SEGMAMBA_TEST_DATA to the folder that holds "
            "<case>/<case>_t1.nii.gz and the like"
        )
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none, and say so."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting and not _cuda_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _cuda_available() -> bool:
    import torch

    return bool(torch.cuda.is_available())
