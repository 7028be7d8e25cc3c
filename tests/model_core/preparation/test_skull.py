from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.errors import Cancelled, StudyError
from model_core.imaging.volume import Volume
from model_core.preparation.confined import Bounds
from model_core.preparation.skull import Brain, find_brain
from model_core.preparation.skull_tools import find_tool
from model_core.preparation.watch import Watch
from tests.model_core.preparation.builders import (
    BRIGHT_BRAIN_TOOL,
    SPACING_MM,
    head,
    head_affine,
    tissues,
    write_tool,
)
from tests.model_core.preparation.test_confined import assert_gone

QUIET = Watch()
MINUTE = Bounds(seconds=60)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders come to lie, so that one sees whether they went."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that is the only one on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def ask(image: Volume, bounds: Bounds = MINUTE, watch: Watch = QUIET) -> Brain:
    return find_brain(image, find_tool("mri_synthstrip"), bounds=bounds, watch=watch)


def image(axcodes: str = "LPS") -> Volume:
    return head("t1ce").reoriented(axcodes)


def truth(axcodes: str = "LPS") -> NDArray[np.bool_]:
    return Volume((tissues() >= 3).astype(np.uint8), head_affine()).reoriented(axcodes).array > 0


@pytest.mark.parametrize("axcodes", ["LPS", "SAR", "PIR"])
def test_a_mask_comes_back_to_our_own_voxels(axcodes: str, programs: Path, scratch: Path) -> None:
    """The tool sees the image in the atlas's orientation; we see its answer in ours."""
    write_tool(programs, "mri_synthstrip", BRIGHT_BRAIN_TOOL)
    brain = ask(image(axcodes))
    inside = truth(axcodes)
    overlap = 2 * (brain.mask & inside).sum() / (brain.mask.sum() + inside.sum())
    assert overlap > 0.95
    assert brain.volume_ml == pytest.approx(inside.sum() * SPACING_MM**3 / 1000, rel=0.08)
    assert brain.tool == "mri_synthstrip"
    assert not list(scratch.iterdir())


def test_the_largest_piece_counts_and_holes_are_filled(programs: Path, scratch: Path) -> None:
    body = BRIGHT_BRAIN_TOOL.replace(
        "# change", "mask[0:3, 0:3, 0:3] = 1; mask[25:28, 29:32, 22:25] = 0"
    )
    write_tool(programs, "mri_synthstrip", body)
    mask = ask(image("RAS")).mask
    assert not mask[0:3, 0:3, 0:3].any()
    assert mask[25:28, 29:32, 22:25].all()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("sys.exit(3)", "exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("print('a word' * 10**6)", "no mask, or one that cannot be read"),
        ("open(args[args.index('-m') + 1], 'w').write('nonsense')", "cannot be read"),
        (BRIGHT_BRAIN_TOOL.replace("# change", "mask = mask[:-1]"), "on another grid"),
        (BRIGHT_BRAIN_TOOL.replace("# change", "affine[0, 3] += 4"), "on another grid"),
        (BRIGHT_BRAIN_TOOL.replace("# change", "mask[:] = 0"), "0 mL found by"),
        (BRIGHT_BRAIN_TOOL.replace("# change", "mask[:] = 1"), "mL found by"),
    ],
    ids=["fails", "dies", "no mask", "nonsense", "shape", "place", "empty", "everything"],
)
def test_a_tool_that_does_not_do_its_work_is_an_error_that_names_it(
    body: str, told: str, programs: Path, scratch: Path
) -> None:
    write_tool(programs, "mri_synthstrip", body)
    with pytest.raises(StudyError, match=told) as caught:
        ask(image())
    assert "mri_synthstrip" in str(caught.value)
    assert "a word" not in str(caught.value)
    assert str(scratch) not in str(caught.value)
    assert not list(scratch.iterdir())


HANGING = (
    "import subprocess, time, os\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "open({pids!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} ')\n"
    "time.sleep(600)"
)


def test_a_tool_that_hangs_is_stopped_and_leaves_nothing(programs: Path, scratch: Path) -> None:
    pids = scratch.parent / "pids"
    write_tool(programs, "mri_synthstrip", HANGING.format(pids=str(pids)))
    with pytest.raises(StudyError, match="its time was up"):
        ask(image(), bounds=Bounds(seconds=2.0))
    assert_gone([int(pid) for pid in pids.read_text().split()])
    assert not list(scratch.iterdir())


def test_a_caller_who_stops_leaves_neither_process_nor_file(programs: Path, scratch: Path) -> None:
    pids = scratch.parent / "pids"
    write_tool(programs, "mri_synthstrip", HANGING.format(pids=str(pids)))
    watch = Watch(cancelled=lambda: pids.exists() and pids.read_text().endswith(" "))
    with pytest.raises(Cancelled):
        ask(image(), watch=watch)
    assert_gone([int(pid) for pid in pids.read_text().split()])
    assert not list(scratch.iterdir())
    gc.collect()  # an open file would be a ResourceWarning, and so an error


def test_a_slab_may_hold_less_than_a_whole_brain(programs: Path, scratch: Path) -> None:
    """Fourteen slices of a head hold no 800 mL of brain, and are no mistake."""
    write_tool(programs, "mri_synthstrip", BRIGHT_BRAIN_TOOL)
    whole = image("RAS")
    grid = whole.grid.cropped((0, 0, 20), (54, 62, 14))
    slab = Volume(whole.array[:, :, 20:34], grid.affine)
    assert 300 < ask(slab).volume_ml < 800
