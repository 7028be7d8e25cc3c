"""A coverage-guided fuzzer for the NIfTI reader.

::

    pip install segmamba-service[fuzz]
    PYTHONPATH=. python tests/hostile/fuzz_nifti.py -max_total_time=600 FOLDER_OF_SEEDS

It stops at the first input that is neither refused nor a valid volume, and leaves it as a file.
"""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["model_core.imaging"]):
    from tests.hostile.one_input import read_one


def try_one(data: bytes) -> None:
    read_one(data)


if __name__ == "__main__":
    warnings.simplefilter("error")
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
