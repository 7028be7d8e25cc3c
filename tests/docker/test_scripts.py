"""What the images start: the entrypoint, the proof of the kernel, training that is served."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.docker.files import ROOT

SCRIPTS = ("entrypoint.sh", "kernel.sh", "train.sh")


class Image:
    """The scripts in one folder, with a ``segmamba`` that writes down what it was told.

    Args:
        folder: of all that is written.
        does: what that program does, in the shell's language.
    """

    def __init__(self, folder: Path, does: str = "exit 0") -> None:
        self.folder = folder
        self.said = folder / "said"
        for name in SCRIPTS:
            shutil.copy(ROOT / "docker" / name, folder / name)
        program = folder / "bin" / "segmamba"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$*" >> {self.said}\n{does}\n')
        program.chmod(0o755)

    def starts(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [self.folder / "entrypoint.sh", *words], capture_output=True, text=True, check=False,
            env={"PATH": path, **variables}, cwd=self.folder, timeout=30,
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        return self.said.read_text().splitlines() if self.said.exists() else []


@pytest.fixture
def service_image(tmp_path: Path) -> Image:
    image = Image(tmp_path)
    (tmp_path / "train.sh").unlink()
    return image


@pytest.mark.parametrize("words", [("serve",), ("segmamba", "serve")])
def test_the_words_are_a_command_of_segmamba(service_image: Image, words: tuple[str, ...]) -> None:
    assert service_image.starts(*words, "--port", "9").returncode == 0
    assert service_image.calls == ["serve --port 9"]


def test_the_status_is_the_commands(tmp_path: Path) -> None:
    assert Image(tmp_path, "exit 3").starts("models").returncode == 3


# the kernel


def findings(**changes: Any) -> dict[str, Any]:
    """What `segmamba doctor --json` says of a machine where the kernel runs."""
    kernel = {"backend": "mamba-ssm", "passed": True, "problem": ""}
    whole = {
        "gpus": [{"name": "A card"}], "checks": [kernel], "advice": [],
        "backends": {"mamba-ssm": "available"},
    }  # fmt: skip
    return whole | changes


BROKEN = {
    "no GPU is visible": findings(gpus=[], checks=[]),
    "does not load: not usable here": findings(
        checks=[], backends={"mamba-ssm": "not usable here: selective_scan_cuda is missing"}
    ),
    "fails its check: far from the reference": findings(
        checks=[{"backend": "mamba-ssm", "passed": False, "problem": "far from the reference"}]
    ),
}


def gpu_image(folder: Path, found: Mapping[str, Any]) -> Image:
    (folder / "found.json").write_text(json.dumps(found))
    return Image(folder, f'[ "$1" != doctor ] || cat {folder}/found.json')


def test_a_kernel_that_runs_is_named_and_the_service_starts(tmp_path: Path) -> None:
    image = gpu_image(tmp_path, findings())
    done = image.starts("serve", SEGMAMBA_KERNEL_CHECK="require")
    assert (done.returncode, image.calls) == (0, ["doctor --json", "serve"])
    assert "agrees with the reference on A card" in done.stderr


@pytest.mark.parametrize("message", BROKEN)
def test_without_the_kernel_nothing_starts_and_the_way_out_is_said(
    tmp_path: Path, message: str
) -> None:
    image = gpu_image(tmp_path, BROKEN[message])
    done = image.starts("serve", SEGMAMBA_KERNEL_CHECK="require")
    assert (done.returncode, image.calls) == (78, ["doctor --json"])
    assert message in done.stderr
    assert "SEGMAMBA_KERNEL_CHECK=warn" in done.stderr


def test_one_may_go_on_without_it(tmp_path: Path) -> None:
    image = gpu_image(tmp_path, BROKEN["no GPU is visible"])
    done = image.starts("serve", SEGMAMBA_KERNEL_CHECK="warn")
    assert (done.returncode, image.calls) == (0, ["doctor --json", "serve"])
    assert "slower" in done.stderr


def test_a_doctor_that_dies_is_no_proof(tmp_path: Path) -> None:
    done = Image(tmp_path, "exit 1").starts("worker", SEGMAMBA_KERNEL_CHECK="require")
    assert done.returncode == 78
    assert "did not answer" in done.stderr


def test_what_never_computes_needs_no_kernel(tmp_path: Path) -> None:
    image = gpu_image(tmp_path, BROKEN["no GPU is visible"])
    for command in ("api", "keys", "models", "doctor"):
        assert image.starts(command, SEGMAMBA_KERNEL_CHECK="require").returncode == 0
    assert image.calls == ["api", "keys", "models", "doctor"]


# training

TRAINS = """
case $1 in
train)
    mkdir -p results/mine/bundle; echo {} > results/mine/config.json
    printf '{"name": "mine", "weights": {"sha256": "%s"}}' "$(cat weights)" \
        > results/mine/bundle/card.json ;;
export)
    mkdir -p "$4"
    printf '{"name": "mine", "version": "%s"}' "$8" > "$4/card.json" ;;
models) mkdir -p "models/mine/$(grep -c 'models add' said)"
    cp "$3/card.json" "models/mine/$(grep -c 'models add' said)/" ;;
esac
"""
"""A run of which a bundle comes, whose weights are what the file ``weights`` says."""
RUN = ("train", "small-segmamba", "--data", "data", "--name", "mine")


@pytest.fixture
def training_image(tmp_path: Path) -> Image:
    (tmp_path / "weights").write_text("aaa")
    return Image(tmp_path, TRAINS)


def versions(image: Image) -> dict[str, str]:
    """The version of each card in the folder of models, by its folder."""
    cards = (image.folder / "models" / "mine").glob("*/card.json")
    return {card.parent.name: json.loads(card.read_text())["version"] for card in cards}


def test_a_finished_run_is_put_among_the_models(training_image: Image) -> None:
    done = training_image.starts(*RUN, SEGMAMBA_MODELS="models")
    assert done.returncode == 0, done.stderr
    assert training_image.calls[0] == " ".join(RUN)
    assert versions(training_image) == {"1": "1"}


def test_the_same_command_goes_on_and_adds_a_version_for_new_weights_only(
    training_image: Image,
) -> None:
    for weights in ("aaa", "aaa", "bbb"):
        (training_image.folder / "weights").write_text(weights)
        assert training_image.starts(*RUN, SEGMAMBA_MODELS="models").returncode == 0
    trains = [call for call in training_image.calls if call.startswith("train")]
    assert ["--resume" in call for call in trains] == [False, True, True]
    assert versions(training_image) == {"1": "1", "2": "2"}


@pytest.mark.parametrize("status", [1, 2, 74, 75])
def test_a_run_that_did_not_finish_gives_no_model_and_its_own_status(
    tmp_path: Path, status: int
) -> None:
    image = Image(tmp_path, f"mkdir -p results/mine/bundle; exit {status}")
    assert image.starts(*RUN, SEGMAMBA_MODELS="models").returncode == status
    assert image.calls == [" ".join(RUN)]


@pytest.mark.parametrize(
    "words", [("--name=mine", "--out=results"), ("--out", "results", "--name", "mine")]
)
def test_name_and_folder_are_found_in_either_form(
    training_image: Image, words: tuple[str, ...]
) -> None:
    assert training_image.starts("train", "a", *words, SEGMAMBA_MODELS="models").returncode == 0
    assert versions(training_image) == {"1": "1"}


def test_a_folder_of_models_that_was_emptied_is_filled_again(training_image: Image) -> None:
    training_image.starts(*RUN, SEGMAMBA_MODELS="models")
    shutil.rmtree(training_image.folder / "models")
    training_image.said.unlink()
    assert training_image.starts(*RUN, SEGMAMBA_MODELS="models").returncode == 0
    assert versions(training_image) == {"1": "1"}


def test_a_run_without_a_bundle_is_left_alone(tmp_path: Path) -> None:
    image = Image(tmp_path)
    done = image.starts(*RUN, SEGMAMBA_MODELS="models")
    assert done.returncode == 0, done.stderr
    assert image.calls == [" ".join(RUN)]
    assert "Nothing was put among the models" in done.stdout
    assert "models add" not in done.stdout


def test_folds_are_left_to_whoever_chooses_one_which_is_said(tmp_path: Path) -> None:
    bundle = "results/mine/fold_1/bundle"
    image = Image(tmp_path, f"mkdir -p {bundle}; echo {{}} > {bundle}/card.json")
    done = image.starts(*RUN, "--fold", "1", SEGMAMBA_MODELS="models")
    assert done.returncode == 0, done.stderr
    assert image.calls == [f"{' '.join(RUN)} --fold 1"]
    assert "Nothing was put among the models" in done.stdout
    assert bundle in done.stdout
    assert "segmamba models add results/mine/fold_K/bundle --to models" in done.stdout
