"""``python -m benchmarks.case``: one case from its files to a label map file."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.networks import OURS, precisions, row_name, seeded
from benchmarks.results import Results, Row
from benchmarks.work import network_work
from benchmarks.worker import JobError, run_job
from model_core.checkpoints import DEFAULT_MODEL, CardDraft, load_bundle, save_bundle
from model_core.imaging.nifti import read_label_map
from model_core.imaging.study import find_studies
from model_core.labels import LabelArray
from model_core.metrics import region_dice
from model_core.networks import network_config, network_name
from model_core.phantom import write_phantom

DESCRIPTION: Final = """\
Times one case end to end, from four files to a label map file: this project's Segmenter (float32
and bfloat16), nnU-Net's predictor and MONAI's SlidingWindowInferer, with SegMamba of the published
size (random weights) and with the bundled default model. The peers run the same weights twice: in
the authors' way (plain PyTorch, this project's blocked PyTorch scan lent to it), and with this
project's network and native kernels given to them. All use 128³ windows, half overlapping, Gaussian
weights, no mirroring, no post-processing. The label maps are compared with each other and, for the
default model, with the truth.
"""
NOTES: Final = (
    "Every row ran in a process of its own: files to label map file, with the network already "
    "loaded. This project's rows with the allocator settings of its programs, the peers' as they "
    "come. Each reads, normalises, crops and writes by its own means.",
    "*windows* are forward passes. *agreement* is the mean Dice of WT, TC and ET between the row's "
    "label map and the reference row's; *truth* is the mean Dice against the case's truth.",
    "*one whole window* covers the brain at once where memory allows, instead of half overlapping "
    "windows: less work, and another result, as its agreement shows.",
    "Work and peak as for a window, times the windows; so reading and writing lower the share.",
)
WHOLE: Final = f"{OURS}, one whole window"
WAYS: Final = (
    # name, way, lent
    ("nnU-Net predictor, authors' network", "nnunet", False),
    ("nnU-Net predictor, this project's network", "nnunet", True),
    ("MONAI inferer, authors' network", "monai", False),
    ("MONAI inferer, this project's network", "monai", True),
)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that segments the case.

    Attributes:
        title: in the group's name.
        network: its short name in `benchmarks.networks`, for its work.
        bundle: folder or name.
        trained: whether a Dice against the truth means anything.
    """

    title: str
    network: str
    bundle: str
    trained: bool

    def group(self, threads: int) -> str:
        """The title of its rows."""
        return f"{self.title}, one case, {threads} threads"


@dataclass(frozen=True)
class StudyPaths:
    """Where the case lies; neither paths nor names ever reach the results."""

    images: Mapping[str, str]
    truth: Path


def models(folder: Path, quick: bool, *, listing: bool = False) -> tuple[Model, ...]:
    """The models to measure; those without weights of their own are written to the folder."""
    if quick:
        tiny = write_bundle(folder / "tiny", "tiny SegMamba", window=32)
        return (Model(title="tiny SegMamba", network="tiny SegMamba", bundle=tiny, trained=False),)
    big = "" if listing else write_bundle(folder / "big", "SegMamba 67 M", window=128)
    return (
        Model(
            title="default model (SegMamba small16)",
            network="SegMamba small16",
            bundle=DEFAULT_MODEL,
            trained=True,
        ),
        Model(title="SegMamba 67 M", network="SegMamba 67 M", bundle=big, trained=False),
    )


def write_bundle(folder: Path, name: str, *, window: int) -> str:
    """A bundle of a network with random weights, described like the default model."""
    network = seeded(name)
    card = load_bundle(DEFAULT_MODEL).card.model_dump(mode="json", exclude={"weights"})
    labels = {"heads": "labels", "outputs": ["background", "NCR", "ED", "ET"]}
    card |= {
        "name": "benchmark",
        "family": network_name(network),
        "network": network_config(network),
        "window": [window] * 3,
        **labels,
    }
    save_bundle(folder, network, CardDraft.model_validate(card))
    return str(folder)


def study_paths(data: Path | None, index: int, folder: Path, quick: bool) -> StudyPaths:
    """The case to segment: one of a folder's, or a generated phantom.

    Raises:
        SystemExit: the folder has no such case with a truth.
    """
    if data is None:
        more: dict[str, Any] = {"shape": (48, 48, 40)} if quick else {}
        _, paths = write_phantom(folder, seed=0, **more)
        return StudyPaths({c: str(p) for c, p in paths.items() if c != "seg"}, paths["seg"])
    studies = [study for study in find_studies(data) if study.truth is not None]
    if not 0 <= index < len(studies):
        raise SystemExit(f"--case: expected 0 to {len(studies) - 1}, got {index}")
    found = studies[index]
    assert found.truth is not None
    return StudyPaths({c: str(p.absolute()) for c, p in found.paths.items()}, found.truth)


def measure(
    model: Model, study: StudyPaths, folder: Path, results: Results, chosen: Options
) -> None:
    """All rows of one model, the project's first: their label maps judge the others."""
    group = model.group(chosen.threads)
    jobs = [(row_name(OURS, p), "project", True, p) for p in precisions()]
    jobs += [(row_name(WHOLE, precisions()[-1]), "project", True, precisions()[-1])]
    jobs += [(name, way, lent, "float32") for name, way, lent in WAYS]
    reference: LabelArray | None = None
    for number, (name, way, lent, precision) in enumerate(jobs):
        if not chosen.wants(results, group, name):
            continue
        label_map = folder / f"{model.network.replace(' ', '-')}-{number}.nii.gz"
        arguments = {
            "bundle": model.bundle,
            "way": way,
            "lent": lent,
            "precision": precision,
            "images": dict(study.images),
            "output": str(label_map),
            "whole": name.startswith(WHOLE),
            "rounds": chosen.plan.rounds,
        }
        answer = _answer(arguments, chosen)
        labels = _labels(label_map)
        reference = labels if number == 0 else reference
        extra = {"windows": answer.get("windows")} | _judged(model, labels, reference, study.truth)
        row = _row(model, name, precision, answer, extra, chosen)
        results.add(row)
        say(f"  {group}  {name:42s} {row.typical or float('nan'):8.2f} s  {extra} {row.remark}")


def _answer(arguments: Mapping[str, Any], chosen: Options) -> dict[str, Any]:
    try:
        return run_job(
            "benchmarks.jobs:case", arguments,
            limit_seconds=chosen.limit_seconds, threads=chosen.threads,
        )  # fmt: skip
    except JobError as error:
        say(f"  failed: {error}")
        # Its message may name the case's files: the kind of error is all that is kept.
        return {"failed": str(error).partition(":")[0][:40]}


def _labels(label_map: Path) -> LabelArray | None:
    return read_label_map(label_map, argument="label map")[0] if label_map.is_file() else None


def _judged(
    model: Model, labels: LabelArray | None, reference: LabelArray | None, truth: Path
) -> dict[str, float]:
    if labels is None or reference is None:
        return {}
    judged = {"agreement": float(np.mean(list(region_dice(labels, reference).values())))}
    if model.trained:
        expected, _ = read_label_map(truth, argument="truth")
        judged["truth"] = float(np.mean(list(region_dice(labels, expected).values())))
    return judged


def _row(
    model: Model,
    name: str,
    precision: str,
    answer: Mapping[str, Any],
    extra: Mapping[str, Any],
    chosen: Options,
) -> Row:
    bound, seconds, remark = "exact", tuple(answer.get("seconds", ())), ""
    if "cut_off" in answer:
        bound, seconds = "lower", (float(answer["cut_off"]),)
        remark = "cut off at the limit"
    if "failed" in answer:
        bound, remark = "failed", f"failed: {answer['failed']}"
    window = load_bundle(model.bundle).card.window
    work = network_work(model.network, window)
    # A whole window has another size, and so another amount of work, than the card's.
    windows = None if name.startswith(WHOLE) else answer.get("windows")
    return Row(
        group=model.group(chosen.threads),
        way=name,
        seconds=seconds,
        reference=name == row_name(OURS, "float32"),
        threads=chosen.threads,
        precision=precision,
        bound=bound,  # type: ignore[arg-type]
        gflop=work.gflop * windows if windows else None,
        peak=f"conv3d_{precision}",
        peak_rss_mb=answer.get("peak_rss_mb"),
        remark=remark,
        extra={key: value for key, value in extra.items() if value is not None},
    )


def main() -> None:
    """Measure every row that was asked for, then write the page."""
    made = parser("case", DESCRIPTION, rounds=1)
    made.set_defaults(limit_seconds=900.0)
    made.add_argument("--data", type=Path, metavar="FOLDER",
        help="BraTS cases; without it a generated phantom is segmented")  # fmt: skip
    made.add_argument("--case", type=int, default=0, metavar="N",
        help="which of them, counted from 0 in the order of their names (default 0)")  # fmt: skip
    values: argparse.Namespace = made.parse_args()
    chosen = options(values)
    what = "one BraTS case" if values.data else "a generated phantom"
    results = open_results("case", chosen, (f"The case is {what}.", *NOTES))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        study = study_paths(values.data, values.case, folder / "study", chosen.quick)
        for model in models(folder, chosen.quick, listing=chosen.listing):
            measure(model, study, folder, results, chosen)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
