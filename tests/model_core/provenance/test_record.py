"""The account of a run holds what was really read, run and written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from model_core.checkpoints import load_bundle
from model_core.imaging.nifti import read_label_map, read_nifti
from model_core.imaging.study import find_studies
from model_core.imaging.volume import Volume
from model_core.provenance.digests import card_sha256, decoded_sha256, sha256_of, voxels_sha256
from model_core.provenance.environment import commit_at
from tests.model_core.provenance.runs import FirstRun


def test_inputs_are_the_files_and_what_was_decoded_of_them(run: FirstRun) -> None:
    (files,) = find_studies(run.study)
    assert set(run.manifest.inputs) == set(files.paths)
    for contrast, path in files.paths.items():
        (record,) = run.manifest.inputs[contrast].files
        assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert record.bytes == path.stat().st_size
        decoded = decoded_sha256(read_nifti(path, argument=contrast))
        assert run.manifest.inputs[contrast].decoded_sha256 == decoded


def test_the_result_is_the_file_that_was_written_and_its_voxels(run: FirstRun) -> None:
    result = run.manifest.result
    assert result.file.sha256 == sha256_of(run.label_map)
    labels, _ = read_label_map(run.label_map, argument="labels")
    assert result.voxels_sha256 == voxels_sha256(labels)
    assert result.label_scheme == "brats2023"


def test_model_engine_options_and_times_are_those_of_the_run(run: FirstRun) -> None:
    manifest, card = run.manifest, load_bundle(run.models / "tiny").card
    assert manifest.model.weights_sha256 == sha256_of(run.models / "tiny" / "weights.safetensors")
    assert manifest.model.card_sha256 == card_sha256(card)
    assert (manifest.model.name, manifest.model.version) == ("tiny", "0.0.1")
    assert manifest.options.model_dump(exclude_none=True) == {
        "tta": "fast", "label_scheme": "brats2023",
    }  # fmt: skip
    engine = manifest.engine
    assert (engine.device, engine.backend, engine.precision) == ("cpu", "torch", "float32")
    assert (engine.threads, engine.tta["passes"], engine.window) == (1, 4, (32, 32, 32))
    assert manifest.started == "2026-03-04T05:06:07Z"
    assert list(manifest.stage_seconds) == ["read", "prepare", "infer", "restore", "postprocess"]
    assert manifest.packages["numpy"] == np.__version__
    assert manifest.statistics is not None
    assert manifest.statistics["structures"]["WT"]["volume_ml"] == pytest.approx(
        manifest.result.volumes_ml["WT"], abs=1e-6
    )


def test_the_checksum_of_a_card_is_that_of_its_content_as_stored(run: FirstRun) -> None:
    stored = json.loads((run.models / "tiny" / "card.json").read_text())
    text = json.dumps(stored, sort_keys=True)
    assert run.manifest.model.card_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_series_is_its_files_whatever_their_order(run: FirstRun) -> None:
    from model_core.provenance.record import _inputs

    (files,) = find_studies(run.study)
    volumes = {name: read_nifti(path, argument=name) for name, path in files.paths.items()}
    parts = [b"one", b"two", b"three"]
    for order in (parts, parts[::-1]):
        sources = {**files.paths, "t2": order}
        found = _inputs(volumes, sources)["t2"].files
        assert [file.sha256 for file in found] == sorted(
            hashlib.sha256(part).hexdigest() for part in parts
        )


def test_the_decoded_checksum_sees_a_voxel_and_a_place_and_no_memory_layout() -> None:
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    plain = decoded_sha256(Volume(array, np.eye(4)))
    assert decoded_sha256(Volume(np.asfortranarray(array), np.eye(4))) == plain
    assert decoded_sha256(Volume(array.astype(">f4"), np.eye(4))) == plain
    minus_zero = np.eye(4)
    minus_zero[0, 3] = -0.0
    minus_zero[1, 3] = 1e-9
    assert decoded_sha256(Volume(array, minus_zero)) == plain
    moved = np.eye(4)
    moved[0, 3] = 1e-3
    other = array.copy()
    other[1, 2, 3] = np.nextafter(other[1, 2, 3], np.float32(9))
    seen = {plain, decoded_sha256(Volume(array, moved)), decoded_sha256(Volume(other, np.eye(4)))}
    seen.add(decoded_sha256(Volume(array.astype(np.float64), np.eye(4))))
    assert len(seen) == 4


def test_the_commit_is_read_from_a_branch_a_packed_branch_or_the_head(tmp_path: Path) -> None:
    assert commit_at(tmp_path / "none") is None
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "packed-refs").write_text("# pack\nabc123 refs/heads/main\n")
    assert commit_at(tmp_path) == "abc123"
    (tmp_path / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "refs" / "heads" / "main").write_text("def456\n")
    assert commit_at(tmp_path) == "def456"
    (tmp_path / "HEAD").write_text("fedcba\n")
    assert commit_at(tmp_path) == "fedcba"
