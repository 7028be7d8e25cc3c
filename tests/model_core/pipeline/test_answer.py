"""Flags of an answer are about the label map that is handed out, as well as about what was seen."""

from __future__ import annotations

import numpy as np

from model_core.imaging.volume import Volume
from model_core.inference.segmentation import Segmentation, SegmentOptions
from model_core.labels import LabelArray, volumes_ml
from model_core.pipeline.answer import Answer, answer
from model_core.preparation.needs import Needs
from model_core.preparation.options import PrepareOptions
from model_core.preparation.prepared import PreparedStudy, as_it_is
from tests.model_core.findings.studies import AFFINE, SHAPE, study, tumour

LOW_SLICES = 5


class Finds:
    """A segmenter that finds what it is told to."""

    def __init__(self, labels: LabelArray) -> None:
        self.labels = labels

    def segment(self, study: object, options: object = None, **_: object) -> Segmentation:
        """Find it."""
        return Segmentation(
            labels=self.labels, native=study.native, label_scheme="brats2021",  # type: ignore[attr-defined]
            volumes_ml=volumes_ml(self.labels, study.native.grid.voxel_ml),  # type: ignore[attr-defined]
            stage_seconds={}, window_seconds=(1.0,), model="m", model_version="1",
            weights_sha256="", backend="torch", device="cpu", tta={}, warnings=(),
            postprocess_report=(),
        )  # fmt: skip


def onto_low_slab() -> PreparedStudy:
    """The head prepared from scans whose FLAIR shows its lowest slices only, 6 mm thick."""
    slab = Volume(
        np.ones((*SHAPE[:2], LOW_SLICES), np.float32), AFFINE @ np.diag([1.0, 1.0, 2.0, 1.0])
    )
    needs = Needs(register=True, strip=True, resample=True, stripped=(), reasons=())
    return PreparedStudy(
        study=study(), native=slab, onto_fixed=np.eye(4),
        options=PrepareOptions(onto="flair"), needs=needs,
    )  # fmt: skip


def codes(found: Answer) -> list[str]:
    """Of the flags about labels, not about how images look."""
    every = [str(flag["code"]) for flag in found.report()["quality"]]
    return [code for code in every if code != "appearance"]


def test_a_tumour_that_the_wanted_scan_does_not_show_is_told() -> None:
    found = answer(Finds(tumour()), onto_low_slab(), SegmentOptions())
    assert found.seen.any()
    assert not found.segmentation.labels.any()
    assert codes(found).count("nothing-found") == 1
    assert "lost-on-the-way-back" in codes(found)


def test_a_label_map_on_the_grid_of_the_study_is_looked_at_once() -> None:
    found = answer(Finds(tumour()), as_it_is(study()), SegmentOptions())
    assert codes(found) == []
    empty = answer(Finds(np.zeros_like(tumour())), as_it_is(study()), SegmentOptions())
    assert codes(empty) == ["nothing-found"]
