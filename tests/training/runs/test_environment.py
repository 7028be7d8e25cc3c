"""What a run ran on is noted, without saying whose machine it was."""

from __future__ import annotations

import json
import platform
import socket
from pathlib import Path

import pytest
import torch

from model_core.provenance.environment import commit_at, package_version
from training.runs.environment import describe_environment


def test_code_libraries_and_processor_are_named() -> None:
    found = describe_environment()
    assert found["packages"]["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["processor"]["threads"] == torch.get_num_threads()
    assert len(found["code"]["sources"]) == 16
    assert json.loads(json.dumps(found)) == found


def test_neither_host_nor_user_nor_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "radiology-7"
    monkeypatch.setattr(platform, "node", lambda: secret)
    monkeypatch.setattr(socket, "gethostname", lambda: secret)
    for name in ("USER", "LOGNAME", "HOME", "HOSTNAME"):
        monkeypatch.setenv(name, secret)
    words = json.dumps(describe_environment())
    assert secret not in words
    assert str(Path(__file__).parents[3]) not in words


def test_an_unknown_package_has_no_version() -> None:
    assert package_version("no-such-package-at-all") is None


def test_a_commit_is_read_from_every_form_of_head(tmp_path: Path) -> None:
    assert commit_at(tmp_path) is None
    head = tmp_path / "HEAD"
    head.write_text("0a1b\n")
    assert commit_at(tmp_path) == "0a1b"
    head.write_text("ref: refs/heads/main\n")
    assert commit_at(tmp_path) is None
    (tmp_path / "packed-refs").write_text("# pack\n2c3d refs/heads/main\n4e5f refs/heads/x\n")
    assert commit_at(tmp_path) == "2c3d"
    (tmp_path / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "refs" / "heads" / "main").write_text("6a7b\n")
    assert commit_at(tmp_path) == "6a7b"
