"""What a run remembers: enough to go on, nothing about anybody."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from model_core.cli.outputs import Targets
from model_core.errors import OptionError
from service.client.job import SubmitOptions
from service.client.manifest import Entry, Manifest, Run, relative_name, usual_place
from service.client.places import Folder


def a_manifest(folder: Path) -> Manifest:
    entries = [
        Entry(output="A.nii.gz", job="j1", state="succeeded", written=True),
        Entry(output="sub/B.nii", report="B.json", inputs={"t1": "abc"}),
    ]
    run = Run(
        server="http://127.0.0.1:1", options=SubmitOptions(tta="fast", batch="b"), own_batch=True,
        entries=entries,
    )  # fmt: skip
    return Manifest(Folder(folder), "run.json", run)


def test_a_manifest_comes_back_as_it_was_and_moves_with_its_folder(tmp_path: Path) -> None:
    file = a_manifest(tmp_path / "here")
    file.save()
    assert Manifest.load(file.place, "run.json").run == file.run
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Manifest.load(Folder(tmp_path / "there"), "run.json")
    shown = moved.place.shown(moved.run.entries[1].output)
    assert shown == str(tmp_path / "there" / "sub" / "B.nii")


def test_a_file_named_through_a_link_leads_to_the_same_results(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    name = relative_name(Folder(tmp_path / "link"), tmp_path / "real" / "A.nii.gz")
    assert name == "../A.nii.gz"
    same = relative_name(Folder(tmp_path / "real" / "deep"), tmp_path / "link" / "A.nii.gz")
    assert same == "A.nii.gz"


def test_a_manifest_is_for_its_owner_alone_and_holds_what_the_user_named(tmp_path: Path) -> None:
    file = a_manifest(tmp_path)
    file.save()
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    text = path.read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["entries"][0]["output"] == "A.nii.gz"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema_version": 2}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(OptionError, match="--resume"):
        Manifest.load(Folder(tmp_path), "state.json")


def test_a_file_of_the_first_release_is_gone_on_with(tmp_path: Path) -> None:
    entry = {"output": "A.nii.gz", "idempotency_key": "x", "job": "j1", "written": False}
    old = {"schema_version": 1, "server": "http://h", "options": {}, "own_batch": True}
    (tmp_path / "state.json").write_text(json.dumps({**old, "entries": [entry]}))
    (read,) = Manifest.load(Folder(tmp_path), "state.json").run.entries
    assert (read.job, read.open) == ("j1", True)


def test_the_usual_place_is_beside_the_results() -> None:
    one = Targets(label_map=Path("out/DOE.nii.gz"))
    assert usual_place([one]) == Path("out/DOE.segmamba-submit.json")
    assert usual_place([one, one]) == Path("out/segmamba-submit.json")


def test_the_key_of_a_request_is_that_of_its_content_its_try_and_its_run() -> None:
    """The same after a crash; another one for other images, options, tries and runs."""

    def key(salt: str = "s", tta: str = "fast", attempts: int = 1, **inputs: str) -> str:
        options = SubmitOptions(tta="fast" if tta == "fast" else "full")
        entry = Entry(output="A.nii.gz", inputs=inputs or {"t1": "a"}, attempts=attempts)
        return Run(server="", options=options, own_batch=True, salt=salt).idempotency_key(entry)

    others = [key(salt="z"), key(tta="full"), key(attempts=2), key(t1="b")]
    assert key() == key()
    assert len({key(), *others}) == 5
    assert all(len(text) == 64 for text in others)


def test_writing_never_becomes_the_work_and_nothing_stays_unwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = a_manifest(tmp_path)
    now = [100.0]
    monkeypatch.setattr("service.client.manifest.time.monotonic", lambda: now[0])
    put = file.place.put

    def slow(*arguments: object, **named: object) -> None:
        now[0] += 2
        put(*arguments, **named)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(file.place, "put", slow)
    file.save()
    file.run.entries[0].error = "news"
    file.note()
    assert "news" not in (tmp_path / "run.json").read_text(), (
        "a save took 2 s, so not again at once"
    )
    now[0] += 39
    file.settle()
    assert "news" not in (tmp_path / "run.json").read_text()
    now[0] += 2
    file.settle()
    assert "news" in (tmp_path / "run.json").read_text()
