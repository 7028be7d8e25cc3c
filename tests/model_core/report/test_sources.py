"""A result is found as a folder, as an archive, by its run.json and file by file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from model_core.errors import InputError
from model_core.imaging.nifti import write_label_map, write_nifti
from model_core.imaging.volume import Volume
from model_core.labels import volumes_ml
from model_core.report.sources import Named, find
from tests.model_core.report.studies import t1ce, tumour


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = t1ce()
    folder = tmp_path / "JANE_DOE"
    folder.mkdir()
    labels = tumour(image.grid, 20.0)
    write_label_map(folder / "segmentation.nii.gz", labels.array, like=image, scheme="brats2021")
    write_nifti(folder / "t1ce.nii.gz", image)
    volumes = volumes_ml(labels.array, labels.grid.voxel_ml)
    report = {"model": "tiny", "model_version": "3", "volumes_ml": volumes}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_a_folder_and_its_archive_hold_the_same(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "results.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.iterdir():
            packed.write(path, path.name)
    for place in (folder, archive):
        found = find(place, Named())
        np.testing.assert_array_equal(found.labels.array, tumour(t1ce().grid, 20.0).array)
        np.testing.assert_allclose(found.images["t1ce"].array, t1ce().array)
        assert found.account.report["model"] == "tiny"
        assert found.account.run == {}
        assert found.account.notes == ()


def test_a_named_file_takes_the_place_of_the_folders(folder: Path, tmp_path: Path) -> None:
    image = t1ce()
    other = tmp_path / "other.nii.gz"
    labels = tumour(image.grid, 10.0)
    write_label_map(other, labels.array, like=image, scheme="brats2023")
    found = find(folder, Named(labels=other))
    np.testing.assert_array_equal(found.labels.array, labels.array)
    assert set(find(None, Named(labels=other)).images) == set()


@pytest.mark.parametrize("kind", ["named", "changed", "without volumes"])
def test_a_report_that_may_be_of_another_map_is_left_out(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    image = t1ce()
    other = folder / "segmentation.nii.gz" if kind == "changed" else tmp_path / "other.nii.gz"
    labels = tumour(image.grid, 10.0)
    write_label_map(other, labels.array, like=image, scheme="brats2023")
    if kind == "without volumes":
        (folder / "report.json").write_text('{"model": "tiny"}')
    found = find(folder, Named(labels=other if kind == "named" else None))
    assert found.account.report == {}
    assert found.account.warnings() == ["report.json: left out, as it may be of another label map."]


def test_an_image_in_another_order_is_turned_and_on_another_grid_is_told(folder: Path) -> None:
    image = t1ce()
    write_nifti(folder / "flair.nii.gz", image.reoriented("RAS"))
    affine = image.affine.copy()
    affine[0, 3] += 1.5
    write_nifti(folder / "t2.nii.gz", Volume(image.array, affine))
    found = find(folder, Named())
    np.testing.assert_array_equal(found.images["flair"].array, found.images["t1ce"].array)
    (note,) = found.account.notes
    assert note.startswith("t2: laid on the grid")
    assert found.images["t2"].grid.matches(found.labels.grid)


@pytest.mark.parametrize("kind", ["empty", "text"])
def test_what_is_no_result_is_refused_without_its_name(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "JANE_DOE"
    if kind == "empty":
        place.mkdir()
    else:
        place.write_text("nothing")
    with pytest.raises(InputError, match=r"^--before: expected a folder") as caught:
        find(place, Named(), argument="--before")
    assert "JANE" not in str(caught.value)


def test_a_report_json_that_is_none_is_refused(folder: Path) -> None:
    (folder / "report.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"report\.json: expected the report of a run"):
        find(folder, Named())
