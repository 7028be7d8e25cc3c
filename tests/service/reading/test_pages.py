from __future__ import annotations

import mmap
import os

import numpy as np
import pytest

from service.reading.message import ACCOUNT_BYTES
from service.reading.pages import NonsenseError, Pages, fill, say
from tests.model_core.imaging.builders import random_image
from tests.service.reading.footprint import open_files


@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 0, 1)])
def test_an_array_in_any_order_arrives_first_axis_fastest(turn: tuple[int, int, int]) -> None:
    array = random_image().transpose(turn)[::-1]
    with Pages() as pages:
        fill(pages.volumes["t2"], array)
        assert array.ndim == 3
        x, y, z = array.shape
        mapped = pages.map_volume("t2", (x, y, z))
    np.testing.assert_array_equal(mapped, array)  # it outlives the pages
    assert mapped.flags.f_contiguous


def test_a_file_of_another_size_is_refused() -> None:
    with Pages() as pages:
        fill(pages.volumes["t1"], random_image())
        for shape in ((9, 10, 12), (9, 10, 10), (1, 1, 1)):
            with pytest.raises(NonsenseError):
                pages.map_volume("t1", shape)
        with pytest.raises(NonsenseError):
            pages.map_volume("t2", (9, 10, 11))  # never written


def test_nobody_writes_to_what_has_been_mapped() -> None:
    with Pages() as pages:
        page = pages.volumes["t1"]
        fill(page, random_image())
        copy = os.dup(page)
        mapped = pages.map_volume("t1", (9, 10, 11))
        with pytest.raises(PermissionError):
            os.pwrite(copy, b"\0" * 8, 0)
        with pytest.raises(PermissionError):
            os.ftruncate(copy, 8)
        os.close(copy)
    np.testing.assert_array_equal(mapped, random_image())


def test_a_file_that_someone_may_still_write_to_is_refused() -> None:
    with Pages() as pages:
        page = pages.volumes["t1"]
        fill(page, random_image())
        with mmap.mmap(page, 0), pytest.raises(NonsenseError):
            pages.map_volume("t1", (9, 10, 11))
        assert pages.map_volume("t1", (9, 10, 11)).size == 990


def test_lines_add_up_to_an_account_that_is_read_to_its_cap() -> None:
    with Pages() as pages:
        say(pages.account, b"one\n")
        say(pages.account, b"two\n")
        assert pages.read_account() == b"one\ntwo\n"
        say(pages.account, bytes(2 * ACCOUNT_BYTES))
        assert len(pages.read_account()) == ACCOUNT_BYTES + 1


def test_pages_are_closed_with_their_context() -> None:
    before = open_files()
    with Pages() as pages:
        assert len(pages.descriptors) == 5
        assert open_files() == before + 5
    assert open_files() == before
