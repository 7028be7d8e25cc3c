"""A label map's numbering is what its file declares: header, contrasts beside it, name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.imaging.declared import declared_scheme
from model_core.imaging.nifti import encode_label_map, write_nifti
from model_core.imaging.volume import Volume
from model_core.types import LABEL_SCHEMES, LabelScheme

LABELS = np.arange(64, dtype=np.uint8).reshape(4, 4, 4) % 4
LIKE = Volume(np.zeros((4, 4, 4), np.float32), np.eye(4))


@pytest.mark.parametrize(
    ("name", "beside", "declared"),
    [
        ("CASE_seg.nii.gz", (), "brats2021"),
        ("CASE-seg.nii", (), "brats2023"),
        ("BraTS-GLI-00005-100-SEG.nii.gz", (), "brats2023"),
        ("CASE.nii.gz", (), None),
        ("segmentation.nii.gz", (), None),
        ("seg.nii.gz", (), None),
        ("seg.nii.gz", ("t1.nii.gz", "flair.nii.gz"), "brats2021"),
        ("seg.nii.gz", ("t1c.nii.gz",), "brats2023"),
        ("CASE_seg.nii.gz", ("CASE_t1c.nii.gz",), "brats2023"),
        ("CASE_seg.nii.gz", ("OTHER_t1c.nii.gz",), "brats2021"),
        ("CASE_seg.nii.gz", ("CASE_t1c.nii.gz", "CASE_t1ce.nii.gz"), None),
    ],
)
def test_the_names_declare_it(
    tmp_path: Path, name: str, beside: tuple[str, ...], declared: str | None
) -> None:
    write_nifti(tmp_path / name, Volume(LABELS, np.eye(4)))
    for file in beside:
        (tmp_path / file).touch()
    assert declared_scheme(tmp_path / name) == declared


@pytest.mark.parametrize("scheme", LABEL_SCHEMES)
def test_a_map_of_our_own_says_it_against_its_name(tmp_path: Path, scheme: LabelScheme) -> None:
    data = encode_label_map(LABELS, like=LIKE, scheme=scheme)
    assert declared_scheme(data) == scheme
    for name in ("CASE_seg.nii.gz", "CASE-seg.nii.gz"):
        (tmp_path / name).write_bytes(data)
        assert declared_scheme(tmp_path / name) == scheme


def test_a_file_that_is_not_there_has_but_its_name(tmp_path: Path) -> None:
    assert declared_scheme(tmp_path / "CASE-seg.nii.gz") == "brats2023"
    assert declared_scheme(tmp_path / "CASE.nii.gz") is None


@given(st.binary(max_size=800), st.integers(0, 500))
def test_no_bytes_make_it_fail(noise: bytes, cut: int) -> None:
    data = encode_label_map(LABELS, like=LIKE, scheme="brats2021")
    for damaged in (noise, data[:cut], data[:cut] + noise, b"\x5c\x01\x00\x00" + noise):
        assert declared_scheme(damaged) in (None, *LABEL_SCHEMES)
