"""docs/promises.md: every promise has its row once, and all that the rows name exists."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.commandlines import commands, options_of, unknown_in

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NUMBERS = range(1, 74)
CLAIMS = (33, 34, 47, 65, 66, 73)
"""Promised numbers that nobody measured here as they were promised."""
CELL = re.compile(r"(?<!\\)\|")
CODE = re.compile(r"`([^`]+)`")
PLACE = re.compile(
    r"^(?:model_core|service|training|tests|docs|scripts|notebooks|benchmarks)/[\w./-]*$"
    r"|^(?:LICENSE|Makefile|\w+\.(?:toml|md|txt))$"
)


def rows() -> dict[str, list[str]]:
    """The cells of each row by its number or ``D`` number; none may come twice."""
    found: dict[str, list[str]] = {}
    for line in PAGE.splitlines():
        first, *cells = (cell.strip() for cell in CELL.split(line.strip().strip("|")))
        if re.fullmatch(r"D?\d+", first):
            assert first not in found, f"row {first} comes twice"
            found[first] = cells
    return found


ROWS = rows()


def spoken(row: str) -> list[str]:
    """What a row sets in code, in its last two cells."""
    return [code for cell in ROWS[row][1:] for code in CODE.findall(cell)]


def test_every_promise_has_its_row() -> None:
    assert [name for name in ROWS if name.isdigit()] == [str(number) for number in NUMBERS]
    defects = [name for name in ROWS if not name.isdigit()]
    assert defects == [f"D{number}" for number in range(1, len(defects) + 1)]
    assert len(defects) >= 14


@pytest.mark.parametrize("row", ROWS)
def test_every_row_says_what_how_and_who_watches(row: str) -> None:
    assert len(ROWS[row]) == 3
    assert all(ROWS[row])
    *_, watched = ROWS[row]
    assert re.search(r"`tests/|CI: `|not claimed", watched)


@pytest.mark.parametrize("row", ROWS)
def test_every_file_and_folder_exists(row: str) -> None:
    places = [place for code in spoken(row) if PLACE.match(place := code.split("::")[0])]
    assert not [place for place in places if not (ROOT / place).exists()]


@pytest.mark.parametrize("row", ROWS)
def test_a_folder_of_tests_holds_some(row: str) -> None:
    folders = [ROOT / c for c in spoken(row) if c.startswith("tests/") and c.endswith("/")]
    assert not [folder for folder in folders if not any(folder.rglob("test_*.py"))]


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_every_named_test_exists(row: str) -> None:
    named = [code.split("::") for code in spoken(row) if "::" in code]
    assert not [name for path, name in named if name not in functions_of(path)]


def test_the_check_of_commands_finds_what_is_missing() -> None:
    assert unknown_in(["frobnicate"])
    assert unknown_in(["doctor", "--frobnicate"])
    assert not unknown_in(["doctor", "--json"])


@pytest.mark.parametrize("row", ROWS)
def test_every_command_and_option_exists(row: str) -> None:
    lines = [code for code in spoken(row) if code.startswith("segmamba ")]
    problems = [unknown_in(shlex.split(line)[1:]) for line in lines]
    assert not [problem for problem in problems if problem]


@pytest.mark.parametrize("row", ROWS)
def test_every_bare_option_is_one_of_the_commands_that_train_or_predict(row: str) -> None:
    bare = {code.split("=")[0].split()[0] for code in spoken(row) if code.startswith("--")}
    known = options_of(commands()["train"]) | options_of(commands()["predict"])
    known |= {"--dry-run", "--ipc"}  # of scripts/gpu and of docker
    assert bare <= known


@pytest.mark.parametrize("row", ROWS)
def test_every_setting_is_a_field_and_every_recipe_exists(row: str) -> None:
    from training.config import TrainConfig
    from training.recipes import RECIPES

    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    settings = [name for code in spoken(row) for name in re.findall(r"--set (\w+)[.=]", code)]
    assert set(settings) <= fields
    trained = re.findall(r"segmamba train (\w[\w-]*)", " ".join(spoken(row)))
    assert {name for name in trained if not name.isupper()} <= set(RECIPES)


def test_every_example_of_a_setting_is_one_that_a_config_takes() -> None:
    import json

    from training.recipes import recipe

    examples = re.findall(r"`--set ([\w.]+)=([^`]+)`", PAGE)
    assert len(examples) > 5
    for name, value in examples:
        recipe("small-segmamba").with_settings({name: json.loads(value)})


@pytest.mark.parametrize("row", [str(number) for number in CLAIMS])
def test_a_claim_that_was_not_measured_is_not_repeated(row: str) -> None:
    assert "not claimed" in ROWS[row][-1]


@pytest.mark.parametrize("row", ["56", "57", "58", "62", "65", "69"])
def test_what_no_gpu_has_run_says_so(row: str) -> None:
    assert "not run on a GPU" in ROWS[row][-1]


def test_the_counts_of_parameters_are_counted() -> None:
    """Promise 47, and the table in docs/concepts/mathematics.md."""
    import torch

    from model_core.networks import build_network

    def count(name: str, **arguments: Any) -> str:
        with torch.device("meta"):
            network = build_network(name, **arguments)
        return f"{sum(p.numel() for p in network.parameters()):,}".replace(",", " ")

    four = {"in_channels": 4, "out_channels": 4}
    small = {"in_channels": 4, "out_channels": 3, "features": (16, 32, 64, 128), "hidden": 256}
    promised = " ".join(ROWS["47"])
    mathematics = (ROOT / "docs" / "concepts" / "mathematics.md").read_text(encoding="utf-8")
    for name in ("segmamba", "segmamba-brtm", "lightm-unet"):
        assert count(name, **four) in promised
        assert count(name, **four) in mathematics
    assert count("lightm-unet", in_channels=1, out_channels=2, spatial_dims=2) in promised
    assert count("segmamba", **small) in promised


def test_a_fresh_network_keeps_mambas_own_beginning() -> None:
    """D12: A is -1 ... -N in every channel, and the first steps lie between 0.0001 and 0.1."""
    import torch

    from model_core.networks import build_network

    narrow: dict[str, dict[str, Any]] = {
        "segmamba": {"features": (8, 16, 32, 64), "hidden": 64},
        "segmamba-brtm": {"base_channels": 8},
        "lightm-unet": {"init_filters": 8},
    }
    for name, sizes in narrow.items():
        torch.manual_seed(0)
        weights = build_network(name, in_channels=1, out_channels=2, **sizes).state_dict()
        rates = [w for key, w in weights.items() if key.endswith("A_log")]
        steps = [w for key, w in weights.items() if key.endswith("dt_proj.bias")]
        assert rates
        assert len(rates) == len(steps)
        for rate in rates:
            assert torch.allclose(rate.exp(), torch.arange(1.0, rate.shape[-1] + 1).expand_as(rate))
        first = torch.cat([torch.nn.functional.softplus(step).flatten() for step in steps])
        assert 1e-4 * 0.99 < first.min() < 2e-3
        assert 0.05 < first.max() < 0.1001


def test_what_ci_is_said_to_run_is_run_by_the_gate() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    said = {
        command for cells in ROWS.values() for command in re.findall(r"CI: `([^`]+)`", cells[-1])
    }
    assert said
    assert not [command for command in said if command not in gate]


def test_no_script_ends_processes_by_name() -> None:
    """D4. The names are put together here so that this file does not hold them."""
    forbidden = ("pk" + "ill", "kill" + "all")
    sources = [
        path
        for folder in ("scripts", "benchmarks", "model_core", "service", "training", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh", "") and path.is_file()
    ]
    assert len(sources) > 100
    assert not [
        str(path.relative_to(ROOT))
        for path in sources
        if any(word in path.read_text(encoding="utf-8", errors="ignore") for word in forbidden)
    ]


def test_nothing_is_read_with_pickle() -> None:
    """D13."""
    rooms = ("model_core", "service", "training")
    sources = [p.read_text(encoding="utf-8") for room in rooms for p in (ROOT / room).rglob("*.py")]
    assert not [s for s in sources if re.search(r"\b(?:pickle|dill|joblib)\.loads?\(", s)]
    loads = [line for source in sources for line in re.findall(r"torch\.load\(.*", source)]
    assert loads
    assert not [line for line in loads if "weights_only=True" not in line]
