"""Every voxel of a SEG lies where the label map put it: geometries × kinds × orders × readers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.dicom.seg import SEG_KINDS, SegKind, encode_seg
from model_core.imaging.volume import Volume
from tests.dicom_series import GEOMETRIES, LPS_TO_RAS
from tests.model_core.dicom.label_maps import (
    ALGORITHM,
    OUTPUT,
    Case,
    case_of,
    dcmqi,
    decoded_by_hand,
    on_grid,
    read,
    voxels_of,
)

MATRIX = pytest.mark.parametrize(
    ("geometry", "oblique", "kind"),
    list(product(GEOMETRIES, (False, True), SEG_KINDS)),
    ids=lambda value: {True: "oblique", False: "straight"}.get(value, value),
)
SLOW = pytest.mark.slow
ORDERS = ["".join(o) for pairs in permutations(("RL", "AP", "SI")) for o in product(*pairs)]
FEW = ("LPS", "SPL", "IAR", "ARI")
MANY = [order for order in ORDERS if order not in FEW]


Maker = Callable[[str, bool, SegKind], tuple[Case, bytes]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """A series, its label map and the SEG of it, handed over in canonical RAS; each made once."""

    @cache
    def make(geometry: str, oblique: bool, kind: SegKind) -> tuple[Case, bytes]:
        case = case_of(tmp_path_factory.mktemp("matrix"), geometry, oblique=oblique)
        return case, encoded(case, kind)

    return make


def encoded(case: Case, kind: SegKind, axcodes: str = "RAS") -> bytes:
    """Hand the label map over in another axis order than it was acquired in."""
    turned = Volume(case.labels, case.affine).reoriented(axcodes)
    return encode_seg(
        turned.array, turned.affine, case.sources, algorithm=ALGORITHM, output=OUTPUT, kind=kind
    )


def assert_same(case: Case, voxels: tuple[NDArray[np.float64], NDArray[np.uint8]]) -> None:
    found = on_grid(*voxels, affine=case.affine, shape=case.labels.shape)
    np.testing.assert_array_equal(found, case.labels)


@MATRIX
def test_by_hand_every_voxel_is_found_at_its_place(
    made: Maker, geometry: str, oblique: bool, kind: SegKind
) -> None:
    case, data = made(geometry, oblique, kind)
    assert_same(case, decoded_by_hand(read(data)))


@MATRIX
def test_highdicom_finds_every_voxel_at_its_place(
    made: Maker, geometry: str, oblique: bool, kind: SegKind
) -> None:
    from highdicom.seg import Segmentation

    case, data = made(geometry, oblique, kind)
    seg = Segmentation.from_dataset(read(data))
    volume = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    points, values = voxels_of(volume.array.astype(np.uint8), volume.affine)
    assert_same(case, (points @ LPS_TO_RAS, values))


@MATRIX
def test_the_frames_are_those_that_highdicom_aligns_by_the_affines_alone(
    made: Maker, geometry: str, oblique: bool, kind: SegKind
) -> None:
    """Volume in RAS, then match_geometry with the source volume: another way to the same frames."""
    from highdicom import Volume as HdVolume
    from highdicom import get_volume_from_series
    from highdicom.seg import Segmentation

    case, data = made(geometry, oblique, kind)
    ras = Volume(case.labels, case.affine).reoriented("RAS")
    aligned = HdVolume(
        np.ascontiguousarray(ras.array),
        ras.affine,
        coordinate_system="PATIENT",
        from_reference_convention="RAS",
    ).match_geometry(get_volume_from_series(case.headers()))
    seg = Segmentation.from_dataset(read(data))
    ours = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    np.testing.assert_array_equal(ours.match_geometry(aligned).array, aligned.array)


@pytest.mark.parametrize("axcodes", [*FEW, *(pytest.param(o, marks=SLOW) for o in MANY)])
def test_the_order_in_which_the_label_map_comes_makes_no_difference(
    axcodes: str, tmp_path: Path
) -> None:
    case = case_of(tmp_path, "sagittal", oblique=True)
    assert encoded(case, "BINARY", axcodes) == encoded(case, "BINARY")


@pytest.mark.parametrize("kind", SEG_KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_an_enhanced_source_has_every_voxel_at_its_place(
    geometry: str, kind: SegKind, tmp_path: Path
) -> None:
    case = case_of(tmp_path, geometry, oblique=True, enhanced=True)
    assert_same(case, decoded_by_hand(read(encoded(case, kind))))


# ---------------------------------------------------------------- dcmqi, an independent reader


@pytest.mark.slow
@MATRIX
def test_dcmqi_finds_every_voxel_at_its_place(
    made: Maker, geometry: str, oblique: bool, kind: SegKind, tmp_path: Path
) -> None:
    case, data = made(geometry, oblique, kind)
    (tmp_path / "in.dcm").write_bytes(data)
    command = [
        dcmqi("segimage2itkimage"), "--inputDICOM", str(tmp_path / "in.dcm"),
        "--outputDirectory", str(tmp_path), "--outputType", "nii",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    images = _dcmqi_images(tmp_path)
    assert len(images) == (3 if kind == "BINARY" else 1)
    found = [voxels_of(labels, affine) for labels, affine in images]
    assert_same(
        case, (np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]))
    )


def _dcmqi_images(folder: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Each image and its affine (RAS+ mm); dcmqi numbers the segments itself."""
    meta = json.loads(next(folder.glob("*meta.json")).read_text())
    described = [item["labelID"] for group in meta["segmentAttributes"] for item in group]
    assert described == [1, 2, 3]
    images = [nib.load(path) for path in sorted(folder.glob("*.nii.gz"))]
    return [(np.asarray(image.dataobj).astype(np.uint8), image.affine) for image in images]
