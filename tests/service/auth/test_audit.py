"""The audit log says who did what, and nothing that a patient's file brought."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from model_core.errors import OptionError
from service.auth.audit import AuditLog
from service.auth.principal import ANONYMOUS, Principal
from service.observability import adopt_request_id

CALLER = Principal(id="0123456789abcdef", scopes=frozenset({"segment"}))
JOB = "5f0c" * 8


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_when_who_what_which_job_how_and_in_which_request(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    adopt_request_id("run-7")
    log.note("submit", CALLER, job=JOB)
    log.note("refused", None, outcome="unauthenticated")
    log.close()
    first, second = lines(tmp_path / "audit.log")
    assert str(first.pop("time")).endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "service.audit",
        "event": "audit",
        "request_id": "run-7",
        "act": "submit",
        "principal": CALLER.id,
        "job": JOB,
        "outcome": "done",
    }
    assert (second["principal"], second["job"]) == (None, None)
    assert (second["act"], second["outcome"]) == ("refused", "unauthenticated")


@pytest.mark.parametrize(
    "text", ["JANE DOE", "JANE\n{}", "JANE/1970.nii.gz", "JANE" * 17, "JANE^DOE", ""]
)
def test_what_is_no_short_token_is_not_written(tmp_path: Path, text: str) -> None:
    log = AuditLog(tmp_path / "audit.log", addresses=True)
    named = Principal(id=text, scopes=frozenset())
    log.note("delete", named, job=text, outcome=text, address=text)
    log.close()
    written = (tmp_path / "audit.log").read_text()
    assert "JANE" not in written
    [line] = lines(tmp_path / "audit.log")
    assert [line[name] for name in ("principal", "job", "outcome", "address")] == ["?"] * 4


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "fe80::1%eth0"])
def test_an_address_is_written_only_where_it_is_wanted(tmp_path: Path, address: str) -> None:
    for wanted in (False, True):
        log = AuditLog(tmp_path / f"{wanted}.log", addresses=wanted)
        log.note("cancel", ANONYMOUS, address=address)
        log.close()
    assert "address" not in lines(tmp_path / "False.log")[0]
    assert lines(tmp_path / "True.log")[0]["address"] == address


def test_the_file_is_private_whatever_the_umask_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    before = os.umask(0)
    try:
        for _ in range(2):
            log = AuditLog(path)
            log.note("cancel", CALLER)
            log.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(lines(path)) == 2


def test_after_a_rotation_a_new_private_file_is_written(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    log = AuditLog(path)
    log.note("submit", CALLER)
    path.rename(old)
    log.note("cancel", CALLER)
    log.close()
    assert [line["act"] for line in lines(old)] == ["submit"]
    assert [line["act"] for line in lines(path)] == ["cancel"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_that_cannot_be_written_is_told_and_the_next_one_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = AuditLog(folder / "audit.log")
    folder.rename(tmp_path / "away")
    log.note("submit", CALLER)
    [told] = caplog.records
    assert (told.getMessage(), told.__dict__["act"]) == ("an audit line is lost", "submit")
    folder.mkdir()
    log.note("cancel", CALLER)
    log.close()
    assert [line["act"] for line in lines(folder / "audit.log")] == ["cancel"]
    assert capfd.readouterr().err == ""


def test_without_a_file_the_service_log_gets_the_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "service.audit"):
        AuditLog().note("read-result", CALLER, job=JOB)
    [record] = caplog.records
    assert record.name == "service.audit"
    assert (record.__dict__["act"], record.__dict__["job"]) == ("read-result", JOB)


def test_with_a_file_the_service_log_gets_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        log = AuditLog(tmp_path / "audit.log")
        log.note("submit", CALLER)
        log.close()
    assert not caplog.records


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="SEGMAMBA_AUDIT_LOG"):
        AuditLog(tmp_path / "nowhere" / "audit.log")
