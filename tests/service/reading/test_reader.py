from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_core.errors import Cancelled, ImageError, InputError, OptionError, StudyError
from model_core.imaging.study import Study, load_study
from model_core.imaging.volume import Volume
from model_core.phantom import write_phantom
from model_core.types import CONTRASTS
from service.reading import ReadingLimits, StudyReader
from service.reading.work import read_study
from tests.model_core.imaging.builders import (
    BRATS_AFFINE,
    ORIENTATIONS,
    nifti_bytes,
    oblique_affine,
    random_image,
)
from tests.service.reading import misdeeds
from tests.service.reading.footprint import children_of, open_files, resident_mb, server_of

READABLE = "an image that can be read"
CRASHED = f"{READABLE}, got one that ended the process reading it."
NONSENSE = f"{READABLE}, got one that left no sensible result."
SMALL = ReadingLimits(voxels=4_000_000, memory_mb=512, cpu_seconds=20, wall_seconds=30)


@pytest.fixture(scope="module")
def reader() -> Iterator[StudyReader]:
    with StudyReader(SMALL) as reader:
        yield reader


def spool(folder: Path, images: dict[str, bytes]) -> dict[Any, Path]:
    for name, data in images.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in images}


@cache
def good_image(seed: int, oblique: bool) -> bytes:
    return nifti_bytes(random_image(seed=seed), oblique_affine() if oblique else BRATS_AFFINE)


def good_images(*, oblique: bool = False) -> dict[str, bytes]:
    return {contrast: good_image(seed, oblique) for seed, contrast in enumerate(CONTRASTS)}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    return spool(tmp_path_factory.mktemp("good"), good_images())


def turned(volume: Volume, axcodes: str) -> bytes:
    there = volume.reoriented(axcodes)
    return nifti_bytes(there.array, there.affine)


def misled(reader: StudyReader, work: Any, **limits: Any) -> StudyReader:
    """A reader that shares the fork server of another, with other limits and other children."""
    other = copy(reader)
    usual = {"voxels": 2000, "memory_mb": 256, "cpu_seconds": 20.0, "wall_seconds": 20.0}
    other.limits, other._work = ReadingLimits(**{**usual, **limits}), work
    return other


def assert_same(ours: Study, theirs: Study) -> None:
    assert ours.reference == theirs.reference
    assert ours.warnings == theirs.warnings
    assert ours.native is ours.volumes[ours.reference]
    assert list(ours.volumes) == list(theirs.volumes)
    for contrast in CONTRASTS:
        one, other = ours.volumes[contrast], theirs.volumes[contrast]
        assert one.array.dtype == other.array.dtype
        np.testing.assert_array_equal(one.array, other.array)
        np.testing.assert_array_equal(one.affine, other.affine)
        assert repr(one.header) == repr(other.header)  # a NaN does not equal itself
        assert one.warnings == other.warnings


# The result is that of `load_study`


@pytest.mark.parametrize(
    ("first", "second"), list(zip(ORIENTATIONS[::2], ORIENTATIONS[1::2], strict=True))
)
def test_a_study_in_any_orientation_is_what_reading_it_here_gives(
    first: str, second: str, tmp_path: Path, reader: StudyReader
) -> None:
    """Two images in orientations of their own, and two as they were; either gives the grid."""
    images = good_images(oblique=True)
    for n, (contrast, axcodes) in enumerate((("t1", first), ("t1ce", second))):
        images[contrast] = turned(Volume(random_image(seed=n), oblique_affine()), axcodes)
    files = spool(tmp_path, images)
    references: dict[Any, str] = {"t1": first, "t1ce": second}
    for reference, axcodes in references.items():
        ours = reader.read(files, reference=reference)
        assert ours.native.axcodes == axcodes
        assert_same(ours, load_study(files, reference=reference))


@pytest.mark.parametrize("reference", CONTRASTS)
def test_any_contrast_may_give_the_grid_and_others_are_resampled(
    reference: Any, tmp_path: Path, reader: StudyReader
) -> None:
    images = good_images()
    images["flair"] = nifti_bytes(
        random_image((11, 9, 10), 9), BRATS_AFFINE @ np.diag((1, 1, 1.1, 1))
    )
    files = spool(tmp_path, images)
    study = reader.read(files, reference=reference)
    assert_same(study, load_study(files, reference=reference))
    assert any("resampled" in warning for warning in study.warnings)


def test_a_phantom_written_as_files_is_what_reading_it_here_gives(
    tmp_path: Path, reader: StudyReader
) -> None:
    _, paths = write_phantom(tmp_path, seed=3, shape=(48, 56, 40))
    files: Any = {c: paths[c] for c in CONTRASTS}
    assert_same(reader.read(files), load_study(files))


def test_warnings_headers_and_odd_numbers_in_them_come_along(
    tmp_path: Path, reader: StudyReader
) -> None:
    array = random_image()
    images = {
        "t1": nifti_bytes(array, qform_code=0, quatern_b=np.nan, qoffset_x=-np.inf, sform_code=4),
        "t1ce": nifti_bytes(array.astype("i8") * 10**9, qoffset_x=0.5, version=2, endianness=">"),
        "t2": nifti_bytes(array, scl_slope=-0.5, scl_inter=3, xyzt_units=10, compress=False),
        "flair": nifti_bytes(array, sform_code=0, pixdim=(0, 1, 1, 1, 0, 0, 0, 0)),
    }
    images["flair"] = nifti_bytes(random_image(seed=4) + 1)  # a skull, for those who squint
    files = spool(tmp_path, images)
    study = reader.read(files)
    assert_same(study, load_study(files))
    assert len(study.warnings) == 3


def test_the_voxels_are_the_callers_to_change(good: dict[Any, Path], reader: StudyReader) -> None:
    first, second = reader.read(good), reader.read(good)
    array = first.volumes["t1"].array
    array[1, 2, 3] = 5
    assert array[1, 2, 3] == 5
    assert second.volumes["t1"].array[1, 2, 3] != 5
    assert type(array) is np.ndarray
    assert array.flags.f_contiguous


def test_reading_from_several_threads_keeps_studies_apart(
    tmp_path: Path, reader: StudyReader
) -> None:
    def read(seed: int) -> Any:
        folder = tmp_path / str(seed)
        folder.mkdir()
        array = random_image(seed=10 * seed)
        images = {c: nifti_bytes(array + n) for n, c in enumerate(CONTRASTS)}
        return reader.read(spool(folder, images)).native.array, array

    with ThreadPoolExecutor(4) as pool:
        for ours, expected in pool.map(read, range(8)):
            np.testing.assert_array_equal(ours, expected)


# A refusal is the one that `load_study` gives


def refusal(call: Callable[[], Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    "spoilt",
    [
        {"t2": b"no image"},
        {"flair": b""},
        {"t1ce": b"no image", "t2": b"no image"},
        {"t2": nifti_bytes(random_image(), datatype=32, bitpix=64)},
        {"t1": nifti_bytes(np.full((9, 10, 11), 7.0, "f4"))},
        {"t1": nifti_bytes(random_image(), np.diag((1.0, 1, 50, 1)))},
        {"t2": nifti_bytes(random_image(), BRATS_AFFINE + 500 * np.eye(4)[:, [1, 2, 3, 0]].T)},
    ],
)
def test_a_refusal_has_the_class_and_the_parts_that_it_has_here(
    spoilt: dict[str, bytes], tmp_path: Path, reader: StudyReader
) -> None:
    files = spool(tmp_path, {**good_images(), **spoilt})
    ours, theirs = refusal(lambda: reader.read(files)), refusal(lambda: load_study(files))
    assert type(ours) is type(theirs)
    assert vars(ours) == vars(theirs)


def test_a_missing_contrast_or_file_and_an_unknown_reference_are_refused(
    good: dict[Any, Path], reader: StudyReader, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="t2: expected all of"):
        reader.read({c: path for c, path in good.items() if c != "t2"})
    with pytest.raises(ImageError, match="t2: expected a readable file, got none"):
        reader.read({**good, "t2": tmp_path / "nowhere"})
    with pytest.raises(OptionError, match="reference: expected one of"):
        reader.read(good, reference="dwi")  # type: ignore[arg-type]


# A child that ends badly


@pytest.mark.parametrize(
    ("work", "limits", "argument", "message"),
    [
        (misdeeds.spin, {"cpu_seconds": 1}, "t1ce", f"{READABLE} in 1 s of computing"),
        (misdeeds.sleep, {"wall_seconds": 0.3}, "flair", f"{READABLE} within 0.3 s"),
        (misdeeds.devour_memory, {"memory_mb": 99}, "t2", f"{READABLE} in 99 MiB"),
        (misdeeds.be_killed, {}, "t1", f"{READABLE} in 256 MiB"),
        (misdeeds.crash, {}, "t2", CRASHED),
        (misdeeds.abort, {}, "study", CRASHED),
        (misdeeds.recurse, {}, "study", CRASHED),
        (misdeeds.raise_secret, {}, "t1", CRASHED),
        (misdeeds.leave, {}, "study", CRASHED),
        (misdeeds.say_nothing, {}, "t2", NONSENSE),
        (misdeeds.write_too_much, {}, "flair", CRASHED),
        (misdeeds.babble, {}, "t2", NONSENSE),
        (misdeeds.babble_at_length, {"voxels": 10**6}, "study", NONSENSE),
        (misdeeds.send_nothing_but_words, {}, "study", NONSENSE),
        (misdeeds.send_too_large_an_image, {}, "study", NONSENSE),
        (misdeeds.send_nan, {}, "study", NONSENSE),
        (misdeeds.send_another_grid, {}, "study", NONSENSE),
        (misdeeds.send_a_singular_affine, {}, "study", NONSENSE),
        (misdeeds.send_another_reference, {}, "study", NONSENSE),
        (misdeeds.answer_twice, {}, "study", NONSENSE),
    ],
)
def test_however_a_child_ends_the_caller_hears_which_image_and_why(
    work: Any,
    limits: dict[str, Any],
    argument: str,
    message: str,
    good: dict[Any, Path],
    reader: StudyReader,
) -> None:
    before = open_files()
    error = refusal(lambda: misled(reader, work, **limits).read(good))
    assert type(error) is (StudyError if argument == "study" else ImageError)
    assert str(error).startswith(f"{argument}: expected {message}")
    assert error.way_out
    assert "Jane" not in str(error)
    assert children_of(server_of(reader)) == []
    del error  # its traceback keeps what was mapped
    assert open_files() == before


def test_an_image_too_large_for_the_memory_is_named(tmp_path: Path, reader: StudyReader) -> None:
    images = good_images()
    images["t2"] = nifti_bytes(np.random.default_rng(0).normal(size=(100, 100, 100)), np.eye(4))
    small = misled(reader, read_study, voxels=10**6, memory_mb=8)
    with pytest.raises(ImageError, match=r"t2: .* in 8 MiB, got one that needs more"):
        small.read(spool(tmp_path, images))


def test_more_voxels_than_allowed_are_refused_by_the_header(
    good: dict[Any, Path], reader: StudyReader
) -> None:
    with pytest.raises(ImageError, match="989 in all at most"):
        misled(reader, read_study, voxels=989).read(good)


def test_a_limit_that_is_none_is_refused() -> None:
    for name in ("voxels", "memory_mb", "cpu_seconds", "wall_seconds"):
        for value in (0, -1, float("nan"), float("inf")):
            with pytest.raises(OptionError, match=f"{name}: expected a finite number above 0"):
                ReadingLimits(**{name: value})


# What the child is


def told(reader: StudyReader, files: dict[Any, Path]) -> dict[str, Any]:
    answer: dict[str, Any] = ast.literal_eval(refusal(lambda: reader.read(files)).got)
    return answer


def test_a_child_is_bound_before_it_opens_anything(
    good: dict[Any, Path], reader: StudyReader
) -> None:
    limits = {"voxels": 10**6, "memory_mb": 300, "cpu_seconds": 7.5}
    facts = told(misled(reader, misdeeds.tell, **limits), good)
    limits = facts["limits"]
    assert limits["CPU"] == (8, 9)
    assert limits["CORE"] == (0, 0)
    assert limits["NPROC"] == (0, 0)
    assert limits["NOFILE"] == (64, 64)
    assert limits["FSIZE"] == (4 * 10**6, 4 * 10**6)
    assert 300 * 2**20 < limits["AS"][0] < 3000 * 2**20
    assert facts["nice"] >= 5
    assert facts["oom"] == 1000
    assert facts["ignored"] == [True, True]


def test_a_child_knows_no_torch_and_none_of_the_parents_files(
    good: dict[Any, Path], tmp_path: Path, reader: StudyReader
) -> None:
    with (tmp_path / "secret").open("w"):
        facts = told(misled(reader, misdeeds.tell), good)
    assert not facts["torch"]
    assert facts["scipy"]  # loaded before the fork, or every child would pay for it
    assert not [name for name in facts["open"] if "secret" in name]
    assert len([name for name in facts["open"] if "memfd" in name]) == 5


def test_a_child_has_everything_loaded_that_it_needs(
    good: dict[Any, Path], reader: StudyReader
) -> None:
    assert told(misled(reader, misdeeds.tell_what_it_had_to_import), good) == []


# Nothing stays behind


def test_reading_leaves_no_file_no_process_and_no_memory(
    good: dict[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: StudyReader
) -> None:
    empty = tmp_path / "temporary"
    empty.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(empty))
    reader.read(good)
    files, memory = open_files(), resident_mb()
    for number in range(20):
        reader.read(good)
        with pytest.raises(ImageError):
            reader.read({**good, "t2": tmp_path / str(number)})
    assert open_files() == files
    assert resident_mb() < memory + 20
    assert children_of(server_of(reader)) == []
    assert list(empty.iterdir()) == []


def test_a_study_gives_its_memory_back_with_its_last_user(
    good: dict[Any, Path], reader: StudyReader
) -> None:
    before = open_files()
    study = reader.read(good)
    assert open_files() > before
    del study
    assert open_files() == before


def test_without_anonymous_memory_unnamed_files_do(
    good: dict[Any, Path], reader: StudyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    before = open_files()
    assert_same(reader.read(good), load_study(good))
    assert open_files() == before


# Ends from outside


def test_a_reading_is_cancelled_within_moments(good: dict[Any, Path], reader: StudyReader) -> None:
    asked: list[int] = []

    def third_time() -> bool:
        asked.append(1)
        return len(asked) > 2

    start = time.monotonic()
    with pytest.raises(Cancelled):
        misled(reader, misdeeds.sleep).read(good, cancelled=third_time)
    assert time.monotonic() - start < 5
    assert children_of(server_of(reader)) == []


def test_closing_ends_a_reading_that_runs_and_keeps_what_was_read(good: dict[Any, Path]) -> None:
    reader = StudyReader(SMALL)
    study = reader.read(good)
    reader._work = misdeeds.sleep
    ended: list[BaseException] = []

    def read() -> None:
        try:
            reader.read(good)
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    server = server_of(reader)
    wait_until(lambda: bool(children_of(server)))
    reader.close()
    thread.join(10)
    assert len(ended) == 1
    assert not Path(f"/proc/{server}").exists()
    with pytest.raises(Cancelled, match="closed"):
        reader.read(good)
    reader.close()  # again, without harm
    assert_same(study, load_study(good))


def test_a_signal_to_the_whole_group_does_not_end_a_reading(
    good: dict[Any, Path], reader: StudyReader
) -> None:
    """A service that is told to stop lets its running work end."""
    server = server_of(reader)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(server, number)
    reader.read(good)
    assert server_of(reader) == server


def test_a_lost_fork_server_is_replaced(good: dict[Any, Path], reader: StudyReader) -> None:
    """Between two readings, and in the middle of one."""
    os.kill(server_of(reader), signal.SIGKILL)
    assert_same(reader.read(good), load_study(good))
    orphans: list[int] = []

    def strike() -> bool:
        if not orphans:
            server = server_of(reader)
            orphans.extend(children_of(server))
            os.kill(server, signal.SIGKILL)
        return False

    with pytest.raises(ImageError, match=r"flair: .* within 0\.5 s"):
        misled(reader, misdeeds.sleep, wall_seconds=0.5).read(good, cancelled=strike)
    assert len(orphans) == 1
    wait_until(lambda: gone(orphans[0]))


WORKER = """
import os, pathlib, signal
from service.reading import ReadingLimits, StudyReader
from tests.service.reading import misdeeds
from tests.service.reading.footprint import children_of, server_of

print("main runs")

def strike():
    print(server_of(reader), *children_of(server_of(reader)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

files = {contrast: pathlib.Path(path) for contrast, path in FILES.items()}
reader = StudyReader(ReadingLimits(wall_seconds=1))
print(reader.read(files).native.shape)
reader._work = misdeeds.sleep
reader.read(files, cancelled=strike)
"""


@pytest.mark.slow
def test_a_main_module_is_not_run_again_and_its_death_leaves_no_process(
    good: dict[Any, Path], tmp_path: Path
) -> None:
    """Neither a guard nor a light main module is asked of whoever uses the reader."""
    script = tmp_path / "worker.py"
    files = {contrast: str(path) for contrast, path in good.items()}
    script.write_text(f"FILES = {files!r}\n{WORKER}")
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": root, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    *lines, pids = done.stdout.splitlines()
    assert lines == ["main runs", "(9, 10, 11)"]
    assert len(pids.split()) == 2
    wait_until(lambda: all(gone(int(pid)) for pid in pids.split()))


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has heard of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
