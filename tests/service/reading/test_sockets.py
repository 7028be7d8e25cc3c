"""The fork server starts wherever temporary files lie."""

from __future__ import annotations

import tempfile
from multiprocessing import process, util
from pathlib import Path

import pytest

from model_core.errors import OptionError
from service.reading import sockets
from service.reading.nursery import Nursery


@pytest.fixture(params=[40, 90, 150])
def temporary(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder for temporary files whose path has at least so many bytes."""
    folder = tmp_path / ("x" * max(1, request.param - len(str(tmp_path))))
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setitem(process.current_process()._config, "tempdir", None)  # type: ignore[attr-defined]
    return folder


def test_a_fork_server_starts_under_a_long_name(temporary: Path) -> None:
    nursery = Nursery()
    nursery.warm_up()
    address = nursery._server._forkserver_address  # type: ignore[attr-defined]  # nothing public
    nursery.close()
    assert len(address) <= 103
    below = address.startswith(str(temporary))
    assert below == (len(str(temporary)) + len("/pymp-12345678/listener-12345678") <= 103)


def test_a_long_name_and_no_other_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(util, "get_temp_dir", lambda: "/x" * 80)
    monkeypatch.setattr(sockets, "_SHORT", str(tmp_path / "absent"))
    with pytest.raises(OptionError, match="TMPDIR"):
        Nursery().warm_up()
