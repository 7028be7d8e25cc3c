"""The job database is where it may be, and no other."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import sqlalchemy as sa

from model_core.errors import OptionError
from service.jobs import database
from service.jobs.database import UNREACHABLE, asked_again, file_system_of, open_database
from service.jobs.records import NewJob
from service.jobs.store import JobStore
from service.settings import Settings
from tests.service.jobs.postgres import Cluster
from tests.service.servers import COMMAND


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "ceph"])
def test_a_file_on_a_network_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "file_system_of", lambda _: kind)
    with pytest.raises(OptionError, match=kind):
        open_database(f"sqlite:///{tmp_path}/jobs.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the system says is on NFS; all other mounts are the real ones."""
    share = tmp_path / "share"
    share.mkdir()
    mounts = [*psutil.disk_partitions(all=True), SimpleNamespace(mountpoint=share, fstype="nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    return share


def refused(url: str, share: Path) -> None:
    with pytest.raises(OptionError, match="nfs4"):
        open_database(url)
    assert list(share.iterdir()) == [], "nothing has been made there"


def test_a_folder_far_below_a_network_mount_is_on_the_network(share: Path) -> None:
    refused(f"sqlite:///{share}/jobs.sqlite", share)
    refused(f"sqlite:///{share}/not/yet/there/jobs.sqlite", share)


def test_a_link_leads_to_the_network_wherever_it_lies(share: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to(share, target_is_directory=True)
    (tmp_path / "second").symlink_to(tmp_path / "folder")
    (tmp_path / "jobs.sqlite").symlink_to(share / "elsewhere.sqlite")
    for place in ("folder", "folder/deep", "second", "."):
        refused(f"sqlite:///{tmp_path}/{place}/jobs.sqlite", share)
    (tmp_path / "local").mkdir()
    open_database(f"sqlite:///{tmp_path}/local/jobs.sqlite").dispose()


def test_a_relative_path_is_looked_at_too(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(share)
    refused("sqlite:///jobs.sqlite", share)


def test_a_data_folder_on_the_network_is_refused_unless_the_database_is_elsewhere(
    share: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(share / "segmamba")
    refused(Settings(data_dir=share).database_url, share)
    refused(Settings(data_dir=tmp_path / "data").database_url, share)
    local = f"sqlite:///{tmp_path}/jobs.sqlite"
    open_database(Settings(data_dir=share, jobs_url=local).database_url).dispose()


def test_a_local_disk_mounted_inside_a_share_is_local(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = share / "disk"
    disk.mkdir()
    mounts = [*psutil.disk_partitions(all=True), SimpleNamespace(mountpoint=disk, fstype="ext4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    open_database(f"sqlite:///{disk}/jobs.sqlite").dispose()


def test_the_file_system_of_a_folder_to_come_is_that_of_its_parent(tmp_path: Path) -> None:
    assert file_system_of(tmp_path / "not" / "yet") == file_system_of(tmp_path)
    assert file_system_of(Path("/proc")) == "proc"


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "jobs.sqlite", "", "http://x"])
def test_another_database_is_refused_without_repeating_the_url(url: str) -> None:
    with pytest.raises(OptionError) as refused:
        open_database(url)
    assert "secret" not in str(refused.value)


def test_commits_reach_the_disk_and_readers_do_not_wait(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/deep/jobs.sqlite")
    with engine.connect() as connection:
        modes = [
            connection.execute(sa.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    engine.dispose()
    assert modes == ["wal", 2, 1]


def test_a_statement_is_made_again_while_the_database_is_away() -> None:
    away = [kind("SELECT", {}, Exception()) for kind in UNREACHABLE[:2]]
    asked = []

    @asked_again
    def ask(answer: int) -> int:
        asked.append(answer)
        if away:
            raise away.pop()
        return answer

    assert ask(7) == 7
    assert asked == [7, 7, 7]


def test_a_faulty_statement_is_not_made_again() -> None:
    asked = []

    @asked_again
    def ask() -> None:
        asked.append(1)
        raise sa.exc.ProgrammingError("SELEC", {}, Exception())

    with pytest.raises(sa.exc.ProgrammingError):
        ask()
    assert asked == [1]


def test_an_end_that_is_written_twice_counts_and_another_attempts_does_not(tmp_path: Path) -> None:
    """The answer to the first may have been lost with the connection."""
    store = JobStore(open_database(f"sqlite:///{tmp_path}/jobs.sqlite"))
    store.create_tables()
    with store.engine.begin() as connection:
        store.insert(connection, "a", NewJob(owner="t", spec={}))
    job = store.claim("a", "w")
    assert job is not None
    assert store.complete("a", 1, {"answer": 1}, 0)
    first = store.get("a")
    assert store.complete("a", 1, {"answer": 1}, 0)
    assert store.get("a") == first, "nothing has changed"
    assert not store.complete("a", 2, {"answer": 2}, 0)
    assert not store.fail("a", 1, {"title": "No"})
    store.engine.dispose()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    file.write_bytes(b"something else\n" * 100)
    with pytest.raises(OptionError, match="not a database"):
        JobStore(open_database(f"sqlite:///{file}")).create_tables()
    assert file.read_bytes() == b"something else\n" * 100


def test_a_server_that_is_not_there_is_said_without_the_password() -> None:
    url = "postgresql://nobody:sesame@127.0.0.1:1/jobs"
    with pytest.raises(OptionError, match="Connection refused") as refused:
        JobStore(open_database(url)).create_tables()
    assert refused.value.argument == "SEGMAMBA_JOBS_URL"
    assert "sesame" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_letter_is_refused(
    cluster: Cluster, encoding: str
) -> None:
    store = JobStore(open_database(cluster.new_database(encoding)))
    with pytest.raises(OptionError, match=f"got one in {encoding}.*ENCODING 'UTF8'"):
        store.create_tables()
    store.engine.dispose()


def test_serve_ends_with_one_line(tmp_path: Path) -> None:
    command = [*COMMAND, "serve", "--port", "0"]
    nowhere = ["--jobs-url", "postgresql://nobody@127.0.0.1:1/jobs", "--data-dir", str(tmp_path)]
    said = subprocess.run([*command, *nowhere], capture_output=True, text=True, timeout=120)
    assert said.returncode == 2
    assert said.stderr.startswith("error: SEGMAMBA_JOBS_URL: expected a job database that can be")
    assert len(said.stderr.splitlines()) == 1
