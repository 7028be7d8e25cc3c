"""The report: one file, no network, no script, no name of a patient, readable in light and dark."""

from __future__ import annotations

import base64
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from model_core.metrics import evaluate_case, to_json
from tests.training.runs.conftest import MakeRun
from training.runs import report
from training.runs.lock import held
from training.runs.pictures import write_png
from training.runs.report import write_report
from training.runs.run_folder import RunFolder, write_json

VOID = {"meta", "img", "br", "link", "input"}
SECTIONS = ["trained", "data", "curves", "validation", "final", "environment", "config"]


class Page(HTMLParser):
    """Elements, ids and words of a page; refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The curves have tests of their own: here a dot stands for them."""

    def dot(folder: RunFolder) -> None:
        if folder.records("step"):
            write_png(folder.curves, np.zeros((1, 1, 3), np.uint8))

    monkeypatch.setattr(report, "draw_curves", dot)


@pytest.fixture
def folder(make_run: MakeRun) -> RunFolder:
    """A finished run with a picture, final metrics and environment."""
    folder = make_run(scores=(0.5, 0.8), steps=100)
    name = "val_predictions_epoch_0002_step_000100.png"
    write_png(folder.plots / name, np.zeros((1, 1, 3), np.uint8))
    truth = np.zeros((12, 20, 20), np.uint8)
    truth[4:8, 5:15, 5:15] = 2
    truth[5:7, 7:12, 7:12] = 3
    cases = {"case 1": evaluate_case(np.roll(truth, 1, 1), truth, (1, 1, 1))}
    write_json(folder.final_metrics, {**to_json(cases), "corrected": False})
    folder.note_environment()
    return folder


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_every_section_is_there_and_linked(folder: RunFolder) -> None:
    assert write_report(folder) == folder.report
    found = page(folder.report)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert [name for name in ids if name != "main"] == SECTIONS
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in found.all("a")]
    assert links == ["#main", *(f"#{name}" for name in SECTIONS)]


def test_the_numbers_are_those_of_the_run(folder: RunFolder) -> None:
    write_report(folder)
    text = page(folder.report).text
    assert "mean Dice 0.800 after step 100" in text
    assert "case 1 0.900 0.800 0.700" in text
    assert "1 training" not in text
    assert "2 training cases" in text
    assert "1 validation case their names case 1" in text
    assert "WT 0.900 1.0" in text  # two faces of 10 voxels: 2·(400 − 40)/800
    assert "learning_rate 0.001" in text
    assert "sources" in text


def test_it_needs_nothing_from_elsewhere_and_runs_nothing(folder: RunFolder) -> None:
    write_report(folder)
    text = folder.report.read_text(encoding="utf-8")
    found = page(folder.report)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in found.elements}
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not [name for _, a in found.elements for name in a if name.startswith("on")]
    policy = next(a["content"] for a in found.all("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    pictures = [attributes["src"] for attributes in found.all("img")]
    assert len(pictures) == 2
    for source in pictures:
        assert base64.b64decode(source.removeprefix("data:image/png;base64,"))[:4] == b"\x89PNG"


def test_no_patient_and_no_folder_is_named(folder: RunFolder) -> None:
    write_report(folder)
    text = folder.report.read_text(encoding="utf-8")
    assert "BraTS2021_00001" in text
    for secret in ("Smith", "Jones", str(folder.path.parent)):
        assert secret not in text


def test_a_report_to_pass_on_has_no_image_of_a_case(folder: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "shared.html"
    write_report(folder, target, images=False)
    found = page(target)
    assert [a["alt"][:7] for a in found.all("img")] == ["Curves."]
    assert "left out of this copy" in found.text
    assert not folder.report.exists()
    write_report(folder)
    assert "Contains image data" in page(folder.report).text


def test_it_can_be_read_by_everyone(folder: RunFolder) -> None:
    """WCAG 2.2: language, title, headings in order, alternatives, heads of tables, focus."""
    write_report(folder)
    found = page(folder.report)
    assert found.all("html")[0]["lang"] == "en"
    assert found.all("title")
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h\d", tag)]
    assert levels == [1] + [2] * len(SECTIONS)
    assert all(len(a["alt"]) > 40 for a in found.all("img"))
    assert len(found.all("caption")) == len(found.all("table")) == 3
    assert {a.get("scope") for a in found.all("th")} == {"row", "col"}
    scrolling = [a for a in found.all("div") if a.get("class") == "wide"]
    assert all(
        a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in scrolling
    )


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_words_stand_out_in_light_and_in_dark(folder: RunFolder) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1 for text, on the paper and on bands."""
    write_report(folder)
    themes = re.findall(r":root \{([^}]*--paper[^}]*)\}", folder.report.read_text("utf-8"))
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        for words in ("ink", "soft", "link"):
            for ground in ("paper", "band"):
                light, dark = sorted((luminance(colours[words]), luminance(colours[ground])))[::-1]
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (words, ground)


def test_corrections_are_shown_before_and_after(folder: RunFolder) -> None:
    evidence = {
        "what": "mean Dice over 9 cases", "verdict": "It helps.",
        "before": {"WT": 0.9}, "after": {"WT": 0.95}, "left_out": None,
    }  # fmt: skip
    step = {"name": "remove_small_components", "params": {"region": "WT", "min_mm3": 100}}
    write_json(folder.path / "corrections.json", {"steps": [step], "evidence": evidence})
    write_report(folder)
    text = page(folder.report).text
    assert "remove_small_components region WT, min_mm3 100" in text
    assert "before after WT 0.900 0.950" in text
    assert "It helps." in text


def test_a_name_cannot_smuggle_in_markup(make_run: MakeRun) -> None:
    folder = make_run("<b>bold</b> & co".replace("/", "_"))
    write_report(folder)
    assert "<b>" not in folder.report.read_text("utf-8")
    assert "Training run <b>bold<_b> & co" in page(folder.report).text


def test_a_run_that_has_hardly_begun_has_a_report_too(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    write_json(folder.config, {})
    write_report(folder)
    text = page(folder.report).text
    for words in ("Nothing has been recorded yet", "has not been validated", "There is none"):
        assert words in text


def test_a_run_that_writes_its_report_as_its_last_deed_is_finished(folder: RunFolder) -> None:
    with held(folder.lock):
        write_report(folder)
        assert "State finished" in page(folder.report).text
        folder.record("note", step=100)
        later = folder.final_metrics.stat().st_mtime + 5
        os.utime(folder.metrics, (later, later))
        write_report(folder)
        assert "State running" in page(folder.report).text
