"""What this process may use of the machine: processors, memory, instruction sets.

Cores and bytes are those that the operating system grants: a container that may use two of
sixty-four cores gets two threads, since more would only wait for each other. Both versions of
Linux' control groups are read, from the group of this process up to the root of what is mounted;
the tightest limit counts. Nothing here needs torch, except to set its threads.

Readers take the root of the file system, so that they can be held against others than this one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final, NamedTuple

from model_core.errors import OptionError

THREADS_VARIABLE: Final = "SEGMAMBA_THREADS"
MEMORY_LIMIT_VARIABLE: Final = "SEGMAMBA_MEMORY_LIMIT_MB"
"""Mebibytes that a segmentation may use; read at the border (command line, service settings)."""

_SYSTEM_ROOT: Final = Path("/")
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Whoever sets one of these has decided; torch has read it already."""
_UNKNOWN_MEMORY: Final = 8 * 2**30
"""Assumed where the system does not tell."""

_ONEDNN_VARIABLES: Final = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_ONEDNN_LEVELS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "SSE41": 0, "AVX": 0,
        "AVX2": 1, "AVX2_VNNI": 1, "AVX2_VNNI_2": 1,
        "AVX512_CORE": 2, "AVX512_CORE_VNNI": 2,
        "AVX512_CORE_BF16": 3, "AVX10_1_512": 3, "AVX512_CORE_FP16": 3,
    }
)  # fmt: skip
"""oneDNN's names of instruction sets, as far as they forbid something; others allow all."""
_FEATURES: Final = (
    # name here, flags of /proc/cpuinfo, oneDNN's level
    ("avx2", ("avx2", "fma"), 1),
    ("avx512", ("avx512f", "avx512bw", "avx512dq", "avx512vl"), 2),
    ("avx512_bf16", ("avx512_bf16",), 3),
    ("amx_bf16", ("amx_tile", "amx_bf16"), 4),
)


def usable_cpus(root: Path = _SYSTEM_ROOT) -> int:
    """Processors that this process may keep busy, at least 1; a fraction is rounded up."""
    granted = _affinity()
    quota = cpu_quota(root)
    return granted if quota is None else max(1, min(granted, math.ceil(quota)))


def cpu_quota(root: Path = _SYSTEM_ROOT) -> float | None:
    """Processors' worth of time that the control groups allow, or None without a limit."""
    quotas = [
        *_limits(root, "", "cpu.max", _quota_of_v2),
        *_limits(root, "cpu", "cpu.cfs_quota_us", _quota_of_v1),
    ]
    return min(quotas, default=None)


def memory_limit_bytes(root: Path = _SYSTEM_ROOT) -> int:
    """Bytes that this process may hold: the control groups' limit or the physical memory."""
    limits = [
        *_limits(root, "", "memory.max", _number),
        *_limits(root, "memory", "memory.limit_in_bytes", _number),
    ]
    # version 1 writes "no limit" as a number beyond any memory
    return int(min([*limits, physical_memory_bytes(root)]))


def physical_memory_bytes(root: Path = _SYSTEM_ROOT) -> int:
    """Bytes of the machine's main memory."""
    for line in _lines(root / "proc" / "meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN_MEMORY


def cpu_features(root: Path = _SYSTEM_ROOT) -> Mapping[str, bool]:
    """Instruction sets that convolutions can use: avx2, avx512, avx512_bf16, amx_bf16.

    Those of the processor, unless ``ONEDNN_MAX_CPU_ISA`` forbids oneDNN to use them. All are
    False off x86: the bfloat16 instructions of other processors speed up no 3-D convolution here.
    """
    flags = _cpu_flags(root)
    level = _onednn_level()
    return MappingProxyType(
        {name: level >= needed and flags.issuperset(of) for name, of, needed in _FEATURES}
    )


def limit_threads(threads: int | None = None) -> int:
    """Give torch, and the native kernels with it, as many threads as there are processors to use.

    Call it once at the start of a program. An explicit choice is left alone: `threads`, else
    ``SEGMAMBA_THREADS``, else ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``, which torch has followed
    already. The number of threads that torch has now is never raised without such a choice.

    Args:
        threads: how many; None chooses.

    Returns:
        The threads that torch uses from now on.

    Raises:
        OptionError: fewer than one thread, or a variable that holds no number.
    """
    import torch

    wanted = _chosen_threads(threads)
    if wanted is None and not any(os.environ.get(name) for name in _THREAD_VARIABLES):
        wanted = min(torch.get_num_threads(), usable_cpus())
    if wanted is not None and wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)
    return torch.get_num_threads()


def _chosen_threads(threads: int | None) -> int | None:
    if threads is not None:
        return _at_least_one("threads", str(threads))
    given = os.environ.get(THREADS_VARIABLE)
    return _at_least_one(THREADS_VARIABLE, given) if given else None


def _at_least_one(argument: str, text: str) -> int:
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise OptionError(
        argument,
        expected="a number of threads, at least 1",
        got=repr(text),
        way_out="Leave it out to use every processor that this process may use.",
    )


def _affinity() -> int:
    """Processors that the scheduler may put this process on."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except (AttributeError, OSError):  # not on macOS
        return os.cpu_count() or 1


class _Mount(NamedTuple):
    """Where a hierarchy of control groups is seen, and which group is its top there."""

    top: PurePosixPath
    place: Path
    controllers: frozenset[str]
    """Of version 1; the one hierarchy of version 2 has the empty name."""


def _limits(
    root: Path, controller: str, file: str, read: Callable[[Path], float | None]
) -> Iterator[float]:
    """What `file` says in this process's group of a controller and in all groups above it."""
    group = _group_of_this_process(root, controller)
    if group is None:
        return
    for mount in _mounts(root):
        if controller in mount.controllers:
            for folder in _up(mount, group):
                limit = read(folder / file)
                if limit is not None:
                    yield limit


def _group_of_this_process(root: Path, controller: str) -> PurePosixPath | None:
    # lines of the form "4:cpu,cpuacct:/a/b"; version 2 is "0::/a/b"
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return None


def _mounts(root: Path) -> Iterator[_Mount]:
    # proc_pid_mountinfo(5): … root mount-point options … - type source super-options
    for line in _lines(root / "proc" / "self" / "mountinfo"):
        before, _, after = line.partition(" - ")
        top, place = before.split(" ")[3:5]
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            names = {""} if kind == "cgroup2" else set(options.split(","))
            yield _Mount(
                PurePosixPath(top), root / place.replace("\\040", " ").lstrip("/"), frozenset(names)
            )


def _up(mount: _Mount, group: PurePosixPath) -> Iterator[Path]:
    """The folder of `group` and those above it, as far as they are mounted.

    In a container the file tells the group as the host names it, while only its own part is
    mounted: then the top of the mount is the group.
    """
    inside = group.is_relative_to(mount.top) and ".." not in group.parts
    relative = group.relative_to(mount.top) if inside else PurePosixPath()
    for part in (relative, *relative.parents):
        yield mount.place / part


def _quota_of_v2(path: Path) -> float | None:
    """``cpu.max``: "200000 100000" (of a period, in microseconds) or "max 100000"."""
    for line in _lines(path):
        quota, _, period = line.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    return None


def _quota_of_v1(path: Path) -> float | None:
    """``cpu.cfs_quota_us`` over ``cpu.cfs_period_us``; -1 is no limit."""
    quota, period = _number(path), _number(path.with_name("cpu.cfs_period_us"))
    return quota / period if quota and period and quota > 0 else None


def _number(path: Path) -> float | None:
    for line in _lines(path):
        return None if line == "max" else int(line)
    return None


def _lines(path: Path) -> list[str]:
    """Lines of a file of the kernel; none where it is missing or not ours to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _cpu_flags(root: Path) -> frozenset[str]:
    """The flags of the first processor; empty off Linux on x86."""
    for line in _lines(root / "proc" / "cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def _onednn_level() -> int:
    named = next((os.environ[name] for name in _ONEDNN_VARIABLES if os.environ.get(name)), "")
    return _ONEDNN_LEVELS.get(named.upper(), max(needed for *_, needed in _FEATURES))
