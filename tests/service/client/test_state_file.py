"""What a run remembers: enough to go on, nothing about anybody."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from model_core.errors import OptionError
from service.client.job import SubmitOptions
from service.client.state_file import Entry, RunState, StateFile, usual_place


def a_state(folder: Path) -> StateFile:
    entries = [
        Entry(output=folder / "A.nii.gz", idempotency_key="one", job="j1", written=True),
        Entry(output=folder / "sub" / "B.nii", report=folder / "B.json", idempotency_key="two"),
    ]
    run = RunState(
        server="http://127.0.0.1:1", options=SubmitOptions(tta="fast", batch="b"), own_batch=True,
        entries=entries,
    )  # fmt: skip
    return StateFile(folder / "state.json", run)


def test_a_state_comes_back_as_it_was_and_moves_with_its_folder(tmp_path: Path) -> None:
    state = a_state(tmp_path / "here")
    state.save()
    assert StateFile.load(state.path).run == state.run
    (tmp_path / "here").rename(tmp_path / "there")
    moved = StateFile.load(tmp_path / "there" / "state.json").run
    assert moved.entries[1].output == tmp_path / "there" / "sub" / "B.nii"
    assert moved.entries[1].report == tmp_path / "there" / "B.json"


def test_a_file_named_through_a_link_leads_to_the_same_results(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    state = a_state(tmp_path / "real")
    state.path = tmp_path / "link" / "state.json"
    state.save()
    loaded = StateFile.load(tmp_path / "real" / "deep" / "state.json")
    assert loaded.run.entries[0].output == tmp_path / "real" / "A.nii.gz"


def test_a_state_is_for_its_owner_alone_and_holds_what_the_user_named(tmp_path: Path) -> None:
    state = a_state(tmp_path)
    state.save()
    assert stat.S_IMODE(state.path.stat().st_mode) & 0o077 == 0
    text = state.path.read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["entries"][0]["output"] == "A.nii.gz"
    assert list(tmp_path.iterdir()) == [state.path]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema_version": 2}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(OptionError, match="--resume"):
        StateFile.load(path)


def test_the_usual_place_is_beside_the_results() -> None:
    one = Entry(output=Path("out/DOE.nii.gz"), idempotency_key="").targets
    assert usual_place([one]) == Path("out/DOE.segmamba-submit.json")
    assert usual_place([one, one]) == Path("out/segmamba-submit.json")
