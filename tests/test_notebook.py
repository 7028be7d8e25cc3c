"""notebooks/: committed without outputs, and whole when run from nothing in an empty folder."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.commandlines import unknown_in

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRAINING = ROOT / "notebooks" / "train_on_phantoms.ipynb"


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_nothing_that_was_computed_is_committed(path: Path) -> None:
    cells = code_cells(path)
    assert len(cells) > 5
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None]
    assert str(ROOT) not in path.read_text(encoding="utf-8")


def test_the_settings_stand_in_the_first_cell() -> None:
    cells = json.loads(TRAINING.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["cell_type"] == "code"
    first = "".join(cells[0]["source"])
    for name in ("FOLDER", "RUN", "RECIPE", "STEPS", "SETTINGS"):
        assert f"{name} = " in first
    # a later cell uses them and sets none of them again
    later = "".join("".join(cell["source"]) for cell in cells[1:])
    assert "STEPS = " not in later


def test_its_settings_make_a_config() -> None:
    from training.recipes import recipe

    names: dict[str, Any] = {}
    exec("".join(code_cells(TRAINING)[0]["source"]), names)
    config = recipe(names["RECIPE"]).with_settings(names["SETTINGS"] | {"steps": names["STEPS"]})
    assert config.steps == names["STEPS"]
    # the deepest map has a sixteenth of each side: three voxels, so norms have something to average
    assert min(config.patch) >= 48


def commands_in(path: Path) -> list[list[str]]:
    """The words of every command that a cell hands to ``run``; values are written as X."""
    found = []
    for cell in code_cells(path):
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run":
                parts = getattr(node.args[0], "values", [node.args[0]])
                text = "".join(p.value if isinstance(p, ast.Constant) else "X" for p in parts)
                found.append(shlex.split(text))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_command_exists_with_its_options(path: Path) -> None:
    commands = commands_in(path)
    assert len(commands) >= 5
    assert all(words[0] == "segmamba" for words in commands)
    assert not [problem for words in commands if (problem := unknown_in(words[1:]))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!\w+:)([^)#\s]+)", text)
    assert links
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two minutes on two idle cores
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook machinery
def test_it_runs_from_nothing_to_scores_and_pictures(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the notebook's own packages are missing")
    nbclient = pytest.importorskip("nbclient", reason="the notebook's own packages are missing")
    pytest.importorskip("ipykernel", reason="the notebook's own packages are missing")
    notebook = nbformat.read(TRAINING, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()  # raises if a cell does
    pictures = [o for c in notebook.cells for o in c.get("outputs", ()) if "image/png" in str(o)]
    assert len(pictures) >= 3

    made = tmp_path / "phantom-training"
    run = made / "results" / "first"
    expected = (
        "checkpoints/best.pt", "checkpoints/last.pt", "plots/training_curves.png",
        "metrics/final_metrics.json", "report.html", "config.json",
    )  # fmt: skip
    assert not [name for name in expected if not (run / name).is_file()]
    out = made / "predictions"
    assert (made / "corrections.json").is_file()
    assert len(list((out / "raw").iterdir())) == 1
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert not [path for path in tmp_path.iterdir() if path != made]
