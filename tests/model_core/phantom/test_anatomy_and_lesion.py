"""Where things may lie: cortex outside white matter, oedema in tissue, necrosis inside the rim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from model_core.phantom.anatomy import Anatomy, Tissue, build_anatomy
from model_core.phantom.frame import HeadFrame, head_frame
from model_core.phantom.lesion import Lesion, LesionPlan, grow_lesion, plan_lesion, push_aside
from model_core.types import Label

Head = tuple[HeadFrame, LesionPlan, Anatomy, Lesion]


@pytest.fixture(scope="module")
def head() -> Head:
    frame = head_frame((96, 96, 62))
    a, b, c = (np.random.default_rng(seed) for seed in (1, 2, 3))
    plan = plan_lesion(a)
    anatomy = build_anatomy(frame, b, push_aside(frame, plan))
    return frame, plan, anatomy, grow_lesion(frame, c, plan, anatomy)


def test_every_tissue_is_there_in_a_plausible_share(head: Head) -> None:
    tissue = head[2].tissue
    brain = (tissue != Tissue.OUTSIDE).sum()
    share = {kind: (tissue == kind).sum() / brain for kind in Tissue if kind}

    assert 0.2 < share[Tissue.WHITE] < 0.5
    assert 0.25 < share[Tissue.GREY] < 0.55
    assert 0.005 < share[Tissue.VENTRICLE] < 0.05
    assert min(share.values()) > 0


def test_the_head_is_one_piece(head: Head) -> None:
    assert ndimage.label(head[2].tissue != Tissue.OUTSIDE)[1] == 1


def test_white_matter_lies_deeper_than_cortex(head: Head) -> None:
    anatomy = head[2]
    white, grey = (
        anatomy.depth[anatomy.cerebrum & (anatomy.tissue == kind)]
        for kind in (Tissue.WHITE, Tissue.GREY)
    )

    assert np.median(white) > np.median(grey) + 4.0


def test_the_cortex_is_folded(head: Head) -> None:
    """Sulci carry cortex far below the surface; a smooth shell would have none there."""
    anatomy = head[2]
    grey = anatomy.cerebrum & (anatomy.tissue == Tissue.GREY)

    assert (anatomy.depth[grey] > 8.0).mean() > 0.15


def test_oedema_lies_in_solid_tissue_of_one_hemisphere(head: Head) -> None:
    frame, plan, anatomy, lesion = head
    oedema = lesion.labels == Label.ED

    assert anatomy.cerebrum[oedema].all()
    assert not np.isin(anatomy.tissue[oedema], (Tissue.CSF, Tissue.VENTRICLE)).any()
    assert (np.broadcast_to(frame.x * plan.side, oedema.shape)[oedema] > 0).all()


def test_oedema_prefers_white_matter_to_cortex(head: Head) -> None:
    _, _, anatomy, lesion = head
    near = (lesion.core_distance > 4.0) & (lesion.core_distance < 14.0) & anatomy.cerebrum
    white, grey = (
        (lesion.labels[near & (anatomy.tissue == kind)] == Label.ED).mean()
        for kind in (Tissue.WHITE, Tissue.GREY)
    )

    assert white > 2 * grey


def test_necrosis_is_wrapped_in_enhancing_tumour(head: Head) -> None:
    labels = head[3].labels
    around = ndimage.binary_dilation(labels == Label.NCR) & (labels != Label.NCR)

    assert set(np.unique(labels[around])) == {Label.ET}


def test_mass_effect_moves_tissue_away_from_the_lesion_only(head: Head) -> None:
    frame, plan, _, _ = head
    before = push_aside(frame, plan)
    moved = [
        np.broadcast_to(b - a, frame.box_shape)
        for a, b in zip((frame.x, frame.y, frame.z), before, strict=True)
    ]
    towards = sum(
        m * (c - np.broadcast_to(a, frame.box_shape))
        for m, a, c in zip(moved, (frame.x, frame.y, frame.z), plan.centre, strict=True)
    )
    size = np.sqrt(sum(m * m for m in moved))

    assert (towards >= -1e-3).all()  # what is seen at a voxel came from nearer the centre
    assert 3.0 < size.max() < 10.0
    far = np.abs(np.broadcast_to(frame.x, size.shape) - plan.centre[0]) > 80.0
    assert size[far].max() < 0.5
