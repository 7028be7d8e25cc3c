"""``python -m benchmarks.scan``: the selective scan beside its peers, over the sequence length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from benchmarks import scans
from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.machine import native_build
from benchmarks.networks import relative_error
from benchmarks.results import Results, Row
from benchmarks.timing import alternate, spread, time_once
from benchmarks.work import scan_gbyte, scan_gflop

DESCRIPTION: Final = """\
Times one selective scan (softplus, scan, skip D u, gate silu(z); float32, N = 16 states) over the
sequence length, and at the four stages of SegMamba with a 128³ window: this project's native
kernel on token-major views (as its networks call it) and on contiguous (B, D, L) tensors (copies
included), its fallback in plain PyTorch, mambapy's pscan, and the algorithm of mamba-ssm's
selective_scan_ref.
"""
NOTES: Final = (
    "Elements are d·n·l: channels × states × tokens. One element counts as 8 operations (exp as "
    "one); the least memory traffic is u, Δ, z and the output once, and B and C once, in float32.",
    "Shares are of the peaks with all threads, for one thread too. Short sequences stay in the "
    "caches between runs, which are faster than the memory that the triad measures.",
    f"mambapy's scan is given chunks of {scans.PSCAN_CHUNK} tokens with the state carried through "
    "the first token of the next, which is exact; whole sequences need arrays of L·D·N numbers "
    "and are timed where one array stays below 0.5 GB. Softplus, D and z are done as mambapy does.",
    "The sequential algorithm walks sequences up to 4096 tokens whole; of longer ones it walks "
    "4096 and its time is scaled by the length.",
)
STATES: Final = 16
LENGTHS: Final = (512, 4096, 32768, 262144)
STAGES: Final = ((96, 262144), (192, 32768), (384, 4096), (768, 512))
SEQUENTIAL_LIMIT: Final = 4096
WHOLE_LIMIT: Final = 2**27
NATIVE: Final = "this project: native, token-major views"
COPIED: Final = "this project: native, (B, D, L) contiguous"
TORCH: Final = "this project: torch, blocked"
CHUNKED: Final = "mambapy pscan, chunks"
WHOLE: Final = "mambapy pscan, whole"
SEQUENTIAL: Final = "mamba-ssm's sequential algorithm"

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Shape:
    """One scan: channels D and tokens L."""

    channels: int
    length: int

    def group(self, threads: int) -> str:
        """The title of its rows."""
        return f"D {self.channels}, L {self.length}, {_threads(threads)}"


def shapes(quick: bool) -> tuple[Shape, ...]:
    """Every shape once: lengths at D 96, then the stages."""
    if quick:
        return Shape(32, 64), Shape(32, 512)
    wanted = [*((96, length) for length in LENGTHS), *STAGES]
    return tuple(Shape(*shape) for shape in dict.fromkeys(wanted))


def problem(shape: Shape) -> Tensors:
    """Arguments of a scan as token-major views: (B, D, L) whose channels lie side by side."""
    draw = torch.Generator().manual_seed(0)

    def tokens(width: int) -> Tensor:
        return torch.randn(1, shape.length, width, generator=draw).transpose(1, 2)

    u, delta, z = (tokens(shape.channels) for _ in range(3))
    B, C = tokens(STATES), tokens(STATES)
    A = -torch.arange(1.0, STATES + 1).repeat(shape.channels, 1)
    bias = torch.rand(shape.channels, generator=draw) - 4.6  # steps near 0.01, as initialised
    return u, delta * 0.5, A, B, C, torch.ones(shape.channels), z, bias


def contiguous(tensors: Tensors) -> Tensors:
    """The same arguments with tokens side by side, as mamba-ssm takes them."""
    return tuple(x.contiguous() for x in tensors)


def ways(shape: Shape, tensors: Tensors) -> dict[str, Callable[[], Tensor]]:
    """Every way that is timed in turn, by name. Each has its tensors in the layout it likes."""
    laid_out = contiguous(tensors)
    found: dict[str, Callable[[], Tensor]] = {
        NATIVE: lambda: scans.native(*tensors),
        COPIED: lambda: scans.native(*laid_out).contiguous(),
        TORCH: lambda: scans.torch_blocked(*laid_out),
        CHUNKED: lambda: scans.pscan(*tensors),
    }
    if shape.length > scans.PSCAN_CHUNK and shape.length * shape.channels * STATES <= WHOLE_LIMIT:
        found[WHOLE] = lambda: scans.pscan_whole(*tensors)
    if shape.length <= SEQUENTIAL_LIMIT:
        found[SEQUENTIAL] = lambda: scans.Sequential()(*laid_out)
    return found


def measure(shape: Shape, threads: int, results: Results, chosen: Options) -> None:
    """All rows of one shape and thread count."""
    group = shape.group(threads)
    torch.set_num_threads(threads)
    tensors = problem(shape) if not chosen.listing else problem(Shape(shape.channels, 1))
    found = ways(shape, tensors)
    found = {way: work for way, work in found.items() if chosen.wants(results, group, way)}
    if {CHUNKED, WHOLE} & set(found) and not scans.has_mambapy():
        say("mambapy is not installed: its rows are left out (benchmarks/setup.sh)")
        found = {way: work for way, work in found.items() if way not in (CHUNKED, WHOLE)}
    with torch.inference_mode():
        truth = scans.native(*tensors) if found else torch.empty(0)
        errors = {way: relative_error(work(), truth) for way, work in found.items()}
        timed = alternate(found, replace(chosen.plan, warmup=max(0, chosen.plan.warmup - 1)))
    for way, seconds in timed.items():
        row = _row(shape, threads, way, tuple(seconds), errors[way])
        results.add(_with_arithmetic(row, results.peaks))
    if shape.length > SEQUENTIAL_LIMIT and chosen.wants(results, group, SEQUENTIAL):
        row = _scaled(shape, threads, contiguous(tensors))
        results.add(_with_arithmetic(row, results.peaks))
    _tell(results, group)


def _scaled(shape: Shape, threads: int, tensors: Tensors) -> Row:
    sequential = scans.Sequential(limit=SEQUENTIAL_LIMIT)
    with torch.inference_mode():
        seconds = time_once(lambda: sequential(*tensors)) + sequential.unmeasured
    row = _row(shape, threads, SEQUENTIAL, (seconds,), None)
    remark = f"the loop walked {SEQUENTIAL_LIMIT} of {shape.length} tokens"
    return replace(row, bound="scaled", remark=remark)


def _row(
    shape: Shape, threads: int, way: str, seconds: tuple[float, ...], error: float | None
) -> Row:
    elements = shape.channels * shape.length * STATES
    median = float(spread(seconds)["median"])
    return Row(
        group=shape.group(threads),
        way=way,
        seconds=seconds,
        reference=way == NATIVE,
        threads=threads,
        gflop=scan_gflop(shape.channels, shape.length, STATES),
        gbyte=scan_gbyte(shape.channels, shape.length, STATES),
        peak="triad",
        error=None if way == NATIVE else error,
        remark=f"build {native_build()}" if way in (NATIVE, COPIED) else "",
        extra={
            "ns_per_element": median / elements * 1e9,
            "channels": shape.channels,
            "length": shape.length,
        },
    )


def _with_arithmetic(row: Row, peaks: Mapping[str, float]) -> Row:
    """The row with its share of the best matrix product beside that of the memory's best rate."""
    assert row.gflop is not None
    assert row.typical is not None
    share = row.gflop / row.typical / peaks["gemm_float32"]
    return replace(row, extra=dict(row.extra) | {"of_gemm_float32": f"{share:.0%}"})


def _tell(results: Results, group: str) -> None:
    for row in results.rows:
        if row.group == group and row.typical is not None:
            say(f"  {group}  {row.way:45s} {row.extra['ns_per_element']:8.3f} ns per element")


def _threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def main() -> None:
    """Measure every row that was asked for, then write the page."""
    made = parser("scan", DESCRIPTION, rounds=7)
    made.set_defaults(seconds=10.0)
    chosen = options(made.parse_args())
    results = open_results("scan", chosen, NOTES)
    for threads in dict.fromkeys((chosen.threads, 1)):
        for shape in shapes(chosen.quick):
            measure(shape, threads, results, chosen)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
