"""A small run of a small model on a phantom, and its account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from model_core.cli.engine import Engine, make_segmenter
from model_core.findings import measure
from model_core.findings.quality import check
from model_core.imaging.study import find_studies, load_study
from model_core.inference.segmenter import SegmentOptions
from model_core.phantom import write_phantom
from model_core.preparation.options import PrepareOptions
from model_core.provenance import RunFacts, RunManifest, manifest_of
from model_core.provenance.digests import card_sha256
from tests.model_core.provenance.tiny import write_bundle

SHAPE = (32, 36, 30)
STARTED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@dataclass(frozen=True)
class FirstRun:
    """A run and where its files lie."""

    manifest: RunManifest
    folder: Path
    study: Path
    label_map: Path
    models: Path

    @property
    def run_json(self) -> Path:
        return self.folder / "run.json"


def first_run(folder: Path, options: SegmentOptions | None = None) -> FirstRun:
    """Segment a phantom with random weights in `folder`; write its label map and run.json."""
    options = options or SegmentOptions(tta="fast", label_scheme="brats2023")
    models, study_folder = folder / "models", folder / "study" / "Secret_Name"
    bundle = write_bundle(models)
    write_phantom(study_folder, seed=0, shape=SHAPE)
    (files,) = find_studies(study_folder)
    threads = torch.get_num_threads()
    segmenter = make_segmenter(
        Engine(model=str(bundle), device="cpu", backend="torch", precision="float32", threads=1)
    )
    study = load_study(files.paths)
    result = segmenter.segment(study, options)
    encoded = result.encode()
    label_map = folder / "out" / "seg.nii.gz"
    label_map.parent.mkdir()
    label_map.write_bytes(encoded)
    facts = RunFacts(
        started=STARTED, options=options, prepare=PrepareOptions(mode="none", onto="t1"),
        card_sha256=card_sha256(segmenter.card), threads=torch.get_num_threads(),
        seconds={"read": 0.5},
    )  # fmt: skip
    manifest = manifest_of(
        study.volumes,
        result,
        sources=files.paths,
        run=facts,
        encoded=encoded,
        statistics=measure(result.labels, study.native.grid),
        flags=check(study, result.labels, encoded=encoded),
    )
    torch.set_num_threads(threads)
    run = FirstRun(manifest, folder, study_folder, label_map, models)
    run.run_json.write_text(manifest.to_json())
    return run
