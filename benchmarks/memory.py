"""``python -m benchmarks.memory``: the most memory that one window and one case need."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import case as cases
from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.machine import memory_bytes
from benchmarks.networks import LENT, OURS, precisions, row_name
from benchmarks.results import Results, Row
from benchmarks.window import QUICK, SUBJECTS, Subject
from benchmarks.worker import JobError, run_job

DESCRIPTION: Final = """\
Measures peak memory (the process's largest resident set, Python and PyTorch included) of one window
through each network, and of one case from files to label map with the default model: this project
in float32 and bfloat16 against the authors' way. Each row is one run in a fresh process.
"""
NOTES: Final = (
    "Memory is the process's largest resident set in 10⁶ bytes, with Python, PyTorch and the "
    "weights. This project's rows with the allocator settings of its programs, which keep freed "
    "memory for the next tensor; the others as they come. Times are of one cold run, whatever "
    "else ran then: they count for nothing.",
)


def measure_window(subject: Subject, results: Results, chosen: Options) -> None:
    """One row per way and precision."""
    group = f"one window: {subject.group(chosen.threads)}"
    ways = [(OURS, precision) for precision in precisions()] + [(LENT, "float32")]
    for way, precision in ways:
        name = row_name(way, precision)
        if not chosen.wants(results, group, name):
            continue
        arguments: dict[str, Any] = {"name": subject.name, "way": way, "precision": precision}
        arguments["sides"] = list(subject.sides)
        answer = _answer("benchmarks.jobs:window", arguments, chosen)
        _keep(results, group, name, precision, answer, chosen)


def measure_case(
    model: cases.Model, study: cases.StudyPaths, folder: Path, results: Results, chosen: Options
) -> None:
    """One row per way and precision."""
    group = f"one case: {model.title}, {chosen.threads} threads"
    ways = [(row_name(OURS, p), "project", True, p) for p in precisions()]
    ways += [(name, way, lent, "float32") for name, way, lent in cases.WAYS if not lent]
    for name, way, lent, precision in ways:
        if not chosen.wants(results, group, name):
            continue
        arguments = {
            "bundle": model.bundle,
            "way": way,
            "lent": lent,
            "precision": precision,
            "images": dict(study.images),
            "output": str(folder / "labels.nii.gz"),
        }
        answer = _answer("benchmarks.jobs:case", arguments, chosen)
        _keep(results, group, name, precision, answer, chosen)


def _answer(job: str, arguments: Mapping[str, Any], chosen: Options) -> dict[str, Any]:
    try:
        return run_job(job, arguments, limit_seconds=chosen.limit_seconds, threads=chosen.threads)
    except JobError as error:
        say(f"  failed: {error}")
        return {"failed": str(error).partition(":")[0][:40]}


def _keep(
    results: Results,
    group: str,
    name: str,
    precision: str,
    answer: Mapping[str, Any],
    chosen: Options,
) -> None:
    peak = answer.get("peak_rss_mb")
    remark = f"failed: {answer['failed']}" if "failed" in answer else ""
    row = Row(
        group=group,
        way=name,
        seconds=tuple(answer.get("seconds", ())),
        reference=name == OURS,
        threads=chosen.threads,
        precision=precision,
        bound="exact" if peak else "failed",
        peak_rss_mb=peak,
        remark=remark or ("" if peak else "cut off at the limit, so not known"),
        extra={"of_this_machine": f"{peak * 1e6 / memory_bytes():.0%}"} if peak else {},
    )
    results.add(row)
    say(f"  {group}  {name:40s} {peak or float('nan'):9.0f} MB {row.remark}")


def main() -> None:
    """Measure every row that was asked for, then write the page."""
    made = parser("memory", DESCRIPTION, rounds=1)
    made.add_argument("--data", type=Path, metavar="FOLDER",
        help="BraTS cases; without it a generated phantom is segmented")  # fmt: skip
    made.add_argument("--case", type=int, default=0, metavar="N",
        help="which of them, counted from 0 in the order of their names (default 0)")  # fmt: skip
    values = made.parse_args()
    chosen = options(values)
    results = open_results("memory", chosen, NOTES)
    for subject in QUICK if chosen.quick else SUBJECTS:
        measure_window(subject, results, chosen)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        study = cases.study_paths(values.data, values.case, folder / "study", chosen.quick)
        model = cases.models(folder, chosen.quick)[0]
        measure_case(model, study, folder, results, chosen)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
