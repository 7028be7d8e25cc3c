"""A coverage-guided fuzzer for the DICOM reader.

::

    pip install segmamba-service[fuzz]
    PYTHONPATH=. python tests/hostile/fuzz_dicom.py -max_total_time=600 FOLDER_OF_SEEDS

Every input is one file beside two good slices of its series. It stops at the first input that is
neither refused nor a valid volume, and leaves it as a file.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["model_core.dicom", "pydicom"]):
    from tests.hostile.one_dicom import read_files

from tests.hostile.dicom_seeds import good_slices

REST = good_slices()[:2]


def try_one(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read_files([*REST, data], Path(folder))


if __name__ == "__main__":
    warnings.simplefilter("error")
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
