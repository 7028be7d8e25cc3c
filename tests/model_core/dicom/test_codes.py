"""The code table against DICOM's own context groups, and what codes and colours must keep apart."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from pydicom.sr.codedict import codes as dicom

from model_core.dicom import codes
from model_core.dicom.codes import SEGMENTS, STRUCTURES, Concept
from model_core.labels import LABEL_COLOURS
from model_core.types import REGION_LABELS, Label

PUBLISHED: list[tuple[Concept, Any]] = [
    (STRUCTURES["NCR"].kind, dicom.cid7168.Necrosis),
    (STRUCTURES["ED"].kind, dicom.cid7168.Edema),
    (STRUCTURES["ET"].kind, dicom.cid7168.EnhancingLesion),
    (STRUCTURES["TC"].kind, dicom.cid7194.Neoplasm),
    (STRUCTURES["WT"].kind, dicom.cid7194.LesionOfBrain),
    (codes.ABNORMAL_STRUCTURE, dicom.cid7150.MorphologicallyAbnormalStructure),
    (codes.BRAIN, dicom.SCT.Brain),
    (codes.ARTIFICIAL_INTELLIGENCE, dicom.cid7162.ArtificialIntelligence),
    (codes.BRAIN_MRI, dicom.cid646.BrainMRI),
    (codes.VOLUME, dicom.cid7472.Volume),
    (codes.DIAMETER, dicom.cid7470.Diameter),
    (codes.MAXIMUM, dicom.cid7464.Maximum),
    (codes.MAJOR_AXIS, dicom.cid7470.MajorAxis),
    (codes.PERPENDICULAR_AXIS, dicom.cid7470.PerpendicularAxis),
    (codes.MILLIMETRE, dicom.UCUM.Millimeter),
    (codes.SQUARE_MILLIMETRE, dicom.UCUM.SquareMillimeter),
]


@pytest.mark.parametrize(("own", "published"), PUBLISHED, ids=lambda c: getattr(c, "meaning", ""))
def test_every_code_stands_in_the_context_group_that_the_table_names(
    own: Concept, published: Any
) -> None:
    assert (own.value, own.scheme) == (published.value, published.scheme_designator)
    if own.scheme != "UCUM":  # there the dictionary repeats the code for want of a word
        assert own.meaning.lower() == published.meaning.lower()


def test_millilitres_are_the_unit_of_ucum() -> None:
    assert Concept("mL", "UCUM", "milliliter") == codes.MILLILITRE


def test_the_five_structures_have_five_codes() -> None:
    kinds = {(s.kind.scheme, s.kind.value) for s in STRUCTURES.values()}
    assert len(kinds) == len(STRUCTURES) == 5


def test_segments_and_labels_have_the_same_numbers() -> None:
    assert [STRUCTURES[name].labels for name in SEGMENTS] == [(1,), (2,), (3,)]


def test_regions_are_made_of_the_labels_of_the_project() -> None:
    for region, labels in REGION_LABELS.items():
        assert STRUCTURES[region].labels == labels


def test_texts_fit_a_short_text_of_dicom() -> None:
    for structure in STRUCTURES.values():
        assert 0 < len(structure.text) <= 64
        assert structure.text.isascii()


@pytest.mark.parametrize("name", SEGMENTS)
def test_the_colour_of_a_segment_is_the_colour_of_its_label(name: codes.StructureName) -> None:
    colour = STRUCTURES[name].colour()
    assert colour is not None
    rgb = LABEL_COLOURS[Label[name]]
    assert np.abs(np.subtract(colour.to_rgb(), rgb)).max() <= 1


def test_colours_differ_in_lightness_so_that_they_can_be_told_apart_without_hue() -> None:
    lightness = [colour.l_star for s in SEGMENTS if (colour := STRUCTURES[s].colour())]
    assert len(lightness) == 3
    assert min(abs(a - b) for a, b in combinations(lightness, 2)) > 10


def test_a_region_has_no_colour_as_it_is_no_segment() -> None:
    assert STRUCTURES["WT"].colour() is None
    assert STRUCTURES["TC"].colour() is None
