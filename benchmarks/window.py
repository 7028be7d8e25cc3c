"""``python -m benchmarks.window``: one window through each network, in each way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.networks import (
    LENT,
    OURS,
    SCALED_TOKENS,
    SEQUENTIAL,
    forward_in,
    in_way,
    precisions,
    relative_error,
    row_name,
    seeded,
    window_input,
)
from benchmarks.results import Results, Row
from benchmarks.timing import alternate
from benchmarks.work import network_work
from benchmarks.worker import JobError, run_job
from model_core.allocator import keep_freed_memory

DESCRIPTION: Final = """\
Times one 1×4×128³ window through SegMamba (67 M parameters), SegMamba small16 (7.6 M) and
LightM-UNet (5.0 M): this project in float32 and, where the processor has it, bfloat16, against the
authors' way in plain PyTorch with the same weights: contiguous float32, MONAI's blocks, with this
project's blocked PyTorch scan lent to it, and with the sequential scan that mamba-ssm falls
back to.
"""
NOTES: Final = (
    "Work: two operations per multiply-add of convolutions and matrix products; norms, activations "
    "and scans are not counted. The peak is the best convolution measured in that precision.",
    "Rows without a remark ran in one process, in turn (A B A B); the allocator settings of this "
    "project's programs (docs/how-to/troubleshoot.md) held for all of them, which favours the "
    "authors' way.",
    f"The sequential scan walks {SCALED_TOKENS} tokens of each sequence; the time of its loop is "
    "scaled to the others.",
)
Case = tuple[str, str]
"""Way and precision."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One network and window. ``alone``: the authors' way runs once, in a process to be killed."""

    name: str
    sides: tuple[int, int, int]
    alone: bool = False

    def group(self, threads: int) -> str:
        """The title of its rows."""
        return f"{self.name}, window {'×'.join(map(str, self.sides))}, {threads} threads"


SUBJECTS: Final = (
    Subject(name="SegMamba small16", sides=(128, 128, 128)),
    Subject(name="SegMamba 67 M", sides=(128, 128, 128)),
    Subject(name="LightM-UNet", sides=(128, 128, 128), alone=True),
)
QUICK: Final = (
    Subject(name="tiny SegMamba", sides=(32, 32, 32)),
    Subject(name="tiny LightM-UNet", sides=(16, 16, 16), alone=True),
)


def measure(subject: Subject, results: Results, chosen: Options) -> None:
    """All rows of one network."""
    group = subject.group(chosen.threads)
    cases: list[Case] = [(OURS, precision) for precision in precisions()]
    if not subject.alone:
        cases.append((LENT, "float32"))
    wanted = [case for case in cases if chosen.wants(results, group, row_name(*case))]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        truth = _paired(subject, wanted, results, chosen)
        for way in (LENT, SEQUENTIAL) if subject.alone else (SEQUENTIAL,):
            if chosen.wants(results, group, row_name(way, "float32")):
                row = alone(subject, way, chosen, Path(folder) / "logits.npy", truth)
                results.add(row)
                _tell(row)


def _paired(
    subject: Subject, cases: list[Case], results: Results, chosen: Options
) -> Callable[[], Tensor]:
    """Time the cases in turn; gives what computes the reference's logits when they are needed."""
    network, x = None, None

    def truth() -> Tensor:
        nonlocal network, x
        network = network or seeded(subject.name)
        x = window_input(subject.name, subject.sides) if x is None else x
        return forward_in(network, "float32")(x)

    if not cases:
        return truth
    say(f"{subject.group(chosen.threads)} …")
    wanted = truth()
    assert network is not None
    assert x is not None
    image = x
    forwards = {case: forward_in(in_way(network, case[0])[0], case[1]) for case in cases}
    errors = {case: relative_error(forward(image), wanted) for case, forward in forwards.items()}
    work = {row_name(*case): partial(forward, image) for case, forward in forwards.items()}
    # The run that gave the errors was a warm-up.
    timed = alternate(work, replace(chosen.plan, warmup=max(0, chosen.plan.warmup - 1)))
    for case in cases:
        row = _row(subject, case, tuple(timed[row_name(*case)]), errors[case], chosen)
        results.add(row)
        _tell(row)
    return lambda: wanted


def alone(
    subject: Subject, way: str, chosen: Options, output: Path, truth: Callable[[], Tensor]
) -> Row:
    """One run in a process of its own, killed at the limit."""
    case = (way, "float32")
    arguments = {
        "name": subject.name,
        "way": way,
        "precision": "float32",
        "sides": list(subject.sides),
        "output": str(output),
    }
    try:
        answer = run_job(
            "benchmarks.jobs:window", arguments,
            limit_seconds=chosen.limit_seconds, threads=chosen.threads,
        )  # fmt: skip
    except JobError as failure:
        return _row(subject, case, (), None, chosen, bound="failed", remark=f"failed: {failure}")
    if "cut_off" in answer:
        remark = "cut off at the limit; one run, no warm-up"
        seconds = (float(answer["cut_off"]),)
        return _row(subject, case, seconds, None, chosen, bound="lower", remark=remark)
    scaled = bool(answer["scaled"])
    error = None if scaled else relative_error(torch.from_numpy(np.load(output)), truth())
    return _row(
        subject, case, tuple(answer["seconds"]), error, chosen,
        bound="scaled" if scaled else "exact",
        remark=(f"loops scaled from {SCALED_TOKENS} tokens; " if scaled else "")
        + "one run in its own process, no warm-up",
        peak_rss_mb=answer["peak_rss_mb"],
    )  # fmt: skip


def _row(
    subject: Subject,
    case: Case,
    seconds: tuple[float, ...],
    error: float | None,
    chosen: Options,
    **more: Any,
) -> Row:
    way, precision = case
    work = network_work(subject.name, subject.sides)
    return Row(
        group=subject.group(chosen.threads),
        way=row_name(way, precision),
        seconds=seconds,
        reference=case == (OURS, "float32"),
        threads=chosen.threads,
        precision=precision,
        gflop=work.gflop,
        peak=f"conv3d_{precision}",
        error=None if case == (OURS, "float32") else error,
        **more,
    )


def _tell(row: Row) -> None:
    error = "" if row.error is None else f"  error {row.error:.1e}"
    say(f"  {row.group}  {row.way:42s} {row.typical or float('nan'):9.3f} s{error} {row.remark}")


def main() -> None:
    """Measure every row that was asked for, then write the page."""
    made = parser("window", DESCRIPTION, rounds=3)
    chosen = options(made.parse_args())
    keep_freed_memory()
    results = open_results("window", chosen, NOTES)
    for subject in QUICK if chosen.quick else SUBJECTS:
        measure(subject, results, chosen)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
