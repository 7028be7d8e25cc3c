from pathlib import Path

import numpy as np
import pytest

from model_core.errors import ImageError
from tests.training.synthesis.conftest import head_labels
from training.synthesis.anatomy import FREESURFER, MARGIN, Tissue, read_head, to_tissues


def test_labels_become_tissues_and_the_skull_disappears():
    labels = head_labels()

    tissues = to_tissues(labels, FREESURFER)

    assert (tissues[labels == 2] == Tissue.WHITE).all()
    assert (tissues[labels == 3] == Tissue.CORTEX).all()
    assert (tissues[labels == 4] == Tissue.CSF).all()
    assert not tissues[0].any()


def test_a_narrow_gap_in_the_brain_is_filled_with_csf():
    labels = head_labels()
    labels[:, 32:35] = 0

    tissues = to_tissues(labels, FREESURFER)

    assert (tissues[28, 32:35, 26] == Tissue.CSF).all()


def test_left_and_right_mean_the_same():
    labels = head_labels()
    other = labels.copy()
    for left, right in ((2, 41), (3, 42), (4, 43)):
        other[labels == left] = right

    assert np.array_equal(to_tissues(labels, FREESURFER), to_tissues(other, FREESURFER))


def test_a_map_without_brain_is_refused():
    with pytest.raises(ImageError, match="FreeSurfer"):
        to_tissues(np.full((8, 8, 8), 516, np.int16), FREESURFER)


def test_a_head_is_read_with_room_around_the_brain(material_folder: Path):
    tissues = read_head(material_folder / "labels" / "head.nii.gz")

    used = np.argwhere(tissues)
    assert (used.min(axis=0) == MARGIN).all()
    assert (used.max(axis=0) == np.array(tissues.shape) - MARGIN - 1).all()
