"""What the process may use, read from trees of files as containers and plain machines show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from model_core import cpu
from model_core.errors import OptionError

GIB = 2**30
V2_MOUNT = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "33 31 0:30 {top} /sys/fs/cgroup/{name} rw shared:9 - cgroup cgroup rw,{name}"


def tree(root: Path, files: dict[str, str]) -> Path:
    """A file system below `root`; a file of the kernel ends with a line feed."""
    for name, text in {"proc/meminfo": "MemTotal:       16777216 kB", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


def version_2(root: Path, files: dict[str, str], *, group: str, top: str = "/") -> Path:
    """A machine with one hierarchy; `files` are relative to where it is mounted."""
    inside = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    proc = {
        "proc/self/cgroup": f"0::{group}",
        "proc/self/mountinfo": "24 1 8:1 / / rw - ext4 /dev/sda rw\n" + V2_MOUNT.format(top=top),
    }
    return tree(root, proc | inside)


def version_1(root: Path, files: dict[str, str], *, group: str, top: str = "/") -> Path:
    """A machine with a hierarchy for each controller, and an empty one of version 2 beside."""
    inside = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    mounts = [V1_MOUNT.format(top=top, name=name) for name in ("cpu,cpuacct", "memory")]
    proc = {
        "proc/self/cgroup": f"4:memory:{group}\n1:cpu,cpuacct:{group}\n9:name=systemd:/\n0::/",
        "proc/self/mountinfo": "\n".join(
            [*mounts, "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"]
        ),
    }
    return tree(root, proc | inside)


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", cpu.THREADS_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("50000 10000", 5),
        ("6400000 100000", 8),
        ("300000", 3),
    ],
)
def test_a_quota_of_version_2_counts_rounded_up(tmp_path: Path, quota: str, cpus: int) -> None:
    assert cpu.usable_cpus(version_2(tmp_path, {"cpu.max": quota}, group="/")) == cpus


def test_the_tightest_group_above_the_process_counts(tmp_path: Path) -> None:
    files = {
        "a/cpu.max": "300000 100000",
        "a/b/cpu.max": "600000 100000",
        "a/b/c/cpu.max": "max 100000",
        "a/b/c/memory.max": "max",
        "a/b/memory.max": str(3 * GIB),
        "a/memory.max": str(9 * GIB),
        "elsewhere/cpu.max": "100000 100000",
        "elsewhere/memory.max": "1",
    }
    root = version_2(tmp_path, files, group="/a/b/c")
    assert cpu.usable_cpus(root) == 3
    assert cpu.memory_limit_bytes(root) == 3 * GIB


@pytest.mark.parametrize(
    ("group", "top"),
    [
        ("/docker/x", "/docker/x"),  # the host's name of the group; only its part is mounted
        ("/", "/../.."),  # a mount from outside of the process's name space
        ("/../../other", "/"),  # a group outside of what can be seen
    ],
)
def test_in_a_container_the_top_of_the_mount_is_the_group(
    tmp_path: Path, group: str, top: str
) -> None:
    files = {"cpu.max": "200000 100000", "memory.max": str(2 * GIB)}
    root = version_2(tmp_path, files, group=group, top=top)
    assert cpu.usable_cpus(root) == 2
    assert cpu.memory_limit_bytes(root) == 2 * GIB


@pytest.mark.parametrize("group", ["/", "/pods/one"])
def test_limits_of_version_1_are_found_up_the_hierarchy(tmp_path: Path, group: str) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "250000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/pods/one/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/pods/one/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(4 * GIB),
        "memory/pods/one/memory.limit_in_bytes": "9223372036854771712",
    }
    root = version_1(tmp_path, files, group=group)
    assert cpu.cpu_quota(root) == 2.5
    assert cpu.usable_cpus(root) == 3
    assert cpu.memory_limit_bytes(root) == 4 * GIB


def test_version_1_without_a_limit_is_the_whole_machine(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }
    root = version_1(tmp_path, files, group="/")
    assert cpu.usable_cpus(root) == 8
    assert cpu.memory_limit_bytes(root) == 16 * GIB


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    root = tree(tmp_path, {})
    assert cpu.usable_cpus(root) == 8
    assert cpu.memory_limit_bytes(root) == 16 * GIB


def test_without_a_proc_file_system_memory_is_still_known(tmp_path: Path) -> None:
    assert cpu.memory_limit_bytes(tmp_path) >= GIB


def test_the_affinity_limits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3}, raising=False)
    root = version_2(tmp_path, {"cpu.max": "400000 100000"}, group="/")
    assert cpu.usable_cpus(root) == 1


def test_a_system_without_affinity_counts_its_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpu.usable_cpus(tmp_path) == 6


ZEN4 = "flags\t\t: fpu avx avx2 fma avx512f avx512bw avx512dq avx512vl avx512_bf16"
SAPPHIRE = f"{ZEN4} amx_tile amx_bf16 amx_int8"


def features(root: Path) -> set[str]:
    return {name for name, has in cpu.cpu_features(root).items() if has}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (SAPPHIRE, {"avx2", "avx512", "avx512_bf16", "amx_bf16"}),
        (ZEN4, {"avx2", "avx512", "avx512_bf16"}),
        ("flags\t: avx avx2 fma avx512f avx512bw avx512dq avx512vl", {"avx2", "avx512"}),
        ("flags\t: avx avx2 fma", {"avx2"}),
        ("flags\t: avx512f avx512cd", set()),
        ("Features\t: fp asimd bf16 i8mm sve", set()),
    ],
)
def test_instruction_sets_are_read_from_the_flags(
    tmp_path: Path, info: str, expected: set[str]
) -> None:
    assert features(tree(tmp_path, {"proc/cpuinfo": f"processor\t: 0\n{info}"})) == expected


def test_no_cpuinfo_is_no_feature(tmp_path: Path) -> None:
    assert not features(tmp_path)


@pytest.mark.parametrize(
    ("cap", "expected"),
    [
        ("avx2", {"avx2"}),
        ("AVX512_CORE", {"avx2", "avx512"}),
        ("AVX512_CORE_BF16", {"avx2", "avx512", "avx512_bf16"}),
        ("AVX512_CORE_AMX", {"avx2", "avx512", "avx512_bf16", "amx_bf16"}),
        ("SSE41", set()),
    ],
)
def test_a_cap_on_onednn_is_a_cap_on_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cap: str, expected: set[str]
) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": SAPPHIRE})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert features(root) == expected


@pytest.fixture
def torch_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of threads that torch would have, last; eight at first."""
    seen = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: seen[-1])
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return seen


def granted(monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
    monkeypatch.setattr(cpu, "usable_cpus", lambda: cpus)


@pytest.mark.parametrize(("cpus", "expected"), [(2, 2), (64, 8)])
def test_threads_are_cut_to_the_processors_and_never_raised(
    torch_threads: list[int], monkeypatch: pytest.MonkeyPatch, cpus: int, expected: int
) -> None:
    granted(monkeypatch, cpus)
    assert cpu.limit_threads() == expected
    assert torch_threads[-1] == expected


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_choice_made_outside_is_left_alone(
    torch_threads: list[int], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    granted(monkeypatch, 2)
    monkeypatch.setenv(name, "8")
    assert cpu.limit_threads() == 8
    assert torch_threads == [8]


def test_an_explicit_number_wins_over_the_variable_and_that_over_the_machine(
    torch_threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    granted(monkeypatch, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv(cpu.THREADS_VARIABLE, "5")
    assert cpu.limit_threads() == 5
    assert cpu.limit_threads(11) == 11
    assert torch_threads == [8, 5, 11]


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_a_variable_that_is_no_number_of_threads_is_named(
    torch_threads: list[int], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv(cpu.THREADS_VARIABLE, wrong)
    with pytest.raises(OptionError, match=cpu.THREADS_VARIABLE):
        cpu.limit_threads()
    with pytest.raises(OptionError, match="threads"):
        cpu.limit_threads(0)
    assert torch_threads == [8]


def test_this_machine_gives_sane_answers() -> None:
    assert 1 <= cpu.usable_cpus() <= 8
    assert 2**28 < cpu.memory_limit_bytes() <= cpu.physical_memory_bytes()
