from __future__ import annotations

import numpy as np
import pytest

from model_core.errors import StudyError
from model_core.imaging.skull import is_stripped
from model_core.imaging.volume import Volume
from model_core.preparation.needs import needs
from tests.model_core.preparation.builders import head, heads


def test_one_grid_and_no_skull_lack_nothing() -> None:
    lacking = needs(heads(skull=False))
    assert not lacking.anything
    assert lacking.reasons == ("one grid and no skull: prepared already",)
    assert lacking.stripped == ("t1", "t1ce", "t2", "flair")


def test_the_same_grid_in_another_axis_order_is_the_same_grid() -> None:
    volumes = heads(skull=False)
    volumes["t2"] = volumes["t2"].reoriented("SAR")
    assert not needs(volumes).anything


def test_a_skull_has_to_come_off_and_one_grid_is_no_proof() -> None:
    lacking = needs(heads())
    assert (lacking.register, lacking.strip, lacking.resample) == (True, True, False)
    assert lacking.reasons == ("with skull: t1, t1ce, t2, flair",)


def test_another_grid_is_named() -> None:
    volumes = heads(skull=False)
    flair = volumes["flair"]
    volumes["flair"] = Volume(flair.array[:, :, :-1], flair.affine)
    lacking = needs(volumes)
    assert (lacking.register, lacking.strip, lacking.resample) == (True, False, True)
    assert lacking.reasons == ("on another grid than t1ce: flair",)


def test_a_missing_contrast_is_refused() -> None:
    volumes = heads(skull=False)
    del volumes["t2"]
    with pytest.raises(StudyError, match="t2: expected all of"):
        needs(volumes)


def test_a_head_in_zeroed_air_is_no_stripped_brain() -> None:
    """Some scanners write 0 around the head: as many zeros as in a stripped image."""
    volume = head("t1")
    zeroed = np.where(volume.array > 40, volume.array, 0)
    assert (zeroed == 0).mean() > 0.5
    assert not is_stripped(Volume(zeroed, volume.affine))
    assert is_stripped(head("t1", skull=False))


def test_what_is_lacking_is_plain_json() -> None:
    assert needs(heads()).to_dict() == {
        "register": True,
        "strip": True,
        "resample": False,
        "stripped": [],
        "reasons": ["with skull: t1, t1ce, t2, flair"],
    }
