"""Every hostile file as one of four contrasts, through the real reader."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_core.errors import ImageError, InputError
from model_core.imaging.study import load_study
from model_core.types import CONTRASTS
from service.reading import ReadingLimits, StudyReader
from tests.hostile.corpus import SHAPE, Hostile, corpus
from tests.model_core.imaging.builders import nifti_bytes, random_image
from tests.service.reading.footprint import children_of, open_files, resident_mb, server_of

LIMITS = ReadingLimits(voxels=2_000_000, memory_mb=160, cpu_seconds=10, wall_seconds=20)
NUMPY_AND_PYTHON_MB = 120
"""What a child has before it reads anything."""
PARENTS_GROWTH_MB = 40


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    folder = tmp_path_factory.mktemp("good")
    for number, contrast in enumerate(CONTRASTS):
        data = nifti_bytes(random_image(SHAPE, seed=number), compress=False)
        (folder / contrast).write_bytes(data)
    return {contrast: folder / contrast for contrast in CONTRASTS}


@pytest.fixture(scope="module")
def reader(good: dict[Any, Path]) -> Iterator[StudyReader]:
    """A reader that leaves this process as it was, after the whole corpus."""
    with StudyReader(LIMITS) as reader:
        reader.read(good)
        files, memory = open_files(), resident_mb()
        yield reader
        assert open_files() == files
        assert children_of(server_of(reader)) == []
        assert resident_mb() < memory + PARENTS_GROWTH_MB


def place_of(entry: Hostile) -> Any:
    return CONTRASTS[corpus().index(entry) % len(CONTRASTS)]


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    names = [entry.name for entry in corpus()]
    assert len(names) == len(set(names)) >= 60
    assert {entry.says is None for entry in corpus()} == {True, False}


@pytest.mark.parametrize("entry", corpus(), ids=lambda entry: entry.name)
def test_a_hostile_file_is_refused_in_clear_words_or_harmless(
    entry: Hostile,
    good: dict[Any, Path],
    reader: StudyReader,
    caplog: pytest.LogCaptureFixture,
) -> None:
    contrast = place_of(entry)
    files = {**good, contrast: good[contrast].with_name("hostile")}
    files[contrast].write_bytes(entry.make())
    caplog.set_level(logging.DEBUG, "service.reading")
    start = time.monotonic()
    if entry.says is None:
        study = reader.read(files)
        assert all(np.isfinite(volume.array).all() for volume in study.volumes.values())
        assert study.warnings == load_study(files).warnings
        del study
    else:
        with pytest.raises(InputError) as caught:
            reader.read(files)
        assert entry.says in str(caught.value)
        assert caught.value.argument == contrast
        assert "/" not in str(caught.value).replace(".hdr/.img", "")
    assert time.monotonic() - start < LIMITS.wall_seconds / 2
    (record,) = (r for r in caplog.records if r.name == "service.reading")
    assert record.peak_mb < NUMPY_AND_PYTHON_MB + LIMITS.memory_mb


def test_what_is_no_file_is_refused(
    good: dict[Any, Path], tmp_path: Path, reader: StudyReader
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "loop", Path("/dev/zero")):
        with pytest.raises(ImageError, match="t2: expected a readable file, got one that cannot"):
            reader.read({**good, "t2": path})
