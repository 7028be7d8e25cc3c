"""The wheel of a release: built, audited, looked into, installed elsewhere and used there."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scripts.wheel import main

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OPS = "model_core/ops/"
CARD = "model_core/models/small/card.json"
WHOLE: dict[str, bytes] = {
    "model_core/py.typed": b"",
    "service/py.typed": b"",
    "service/page/static/index.html": b"",
    "service/page/static/page.css": b"",
    "service/page/static/js/main.js": b"",
    "service/page/static/vendor/niivue-0.69.0.umd.js": b"",
    "service/page/static/vendor/niivue-0.69.0.LICENSE.txt": b"",
    "training/py.typed": b"",
    "model_core/provenance/run.schema.json": b"{}",
    "model_core/findings/appearance_ranges.json": b"{}",
    "training/runs/templates/report.html.jinja": b"",
    "service/__init__.py": b"",
    f"{OPS}native_library.py": b"ABI: Final = 4\n",
    "demo-1.0.dist-info/licenses/LICENSE": b"MIT",
    CARD: json.dumps(
        {
            "weights": {
                "file": "w.safetensors",
                "sha256": "2ac8cfabdfdd05b2ad0c76fc4a8025e57f2c61ecd7b9ce61f02ba2c1a0b1b21f",
            }
        }
    ).encode(),
}
"""A wheel without libraries and without the weights that its card names."""


def wheel_of(folder: Path, files: dict[str, bytes], name: str = "linux_x86_64") -> Path:
    wheel = folder / f"demo-1.0-py3-none-{name}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return wheel


def said_of(wheel: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main([str(wheel)]) == 1
    return [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]


def test_a_wheel_that_lacks_parts_is_told_each_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said_of(wheel_of(tmp_path, WHOLE), capsys) == [
        f"missing: {OPS}_native_v2.so",
        f"missing: {OPS}_native_v3.so",
        f"missing: {OPS}_native_v4.so",
        "missing: model_core/models/small/w.safetensors",
    ]


@pytest.mark.parametrize(
    "part",
    [name for name in WHOLE if name.endswith((".typed", "schema.json", "ranges.json", ".jinja"))],
)
def test_every_needed_file_is_missed(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: content for name, content in WHOLE.items() if name != part}
    assert f"missing: {part}" in said_of(wheel_of(tmp_path, files, "linux_aarch64"), capsys)


def test_a_wheel_without_its_licence_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: content for name, content in WHOLE.items() if "LICENSE" not in name}
    said = said_of(wheel_of(tmp_path, files, "linux_aarch64"), capsys)
    assert "missing: the licence, in .dist-info/licenses/" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tests/test_a.py", "packages: only model_core, service, training belong into it: tests"),
        ("service/tests/helper.py", "tests: service/tests/helper.py and 0 more"),
        (f"{OPS}_native_v5.so", f"not expected: {OPS}_native_v5.so"),
        ("libgomp.so.1", "packages: only model_core, service, training belong into it: libgomp"),
        (f"{OPS}_native_base.so", f"{OPS}_native_base.so does not load here"),
        ("model_core/models/small/w.safetensors", "not the weights of its card"),
    ],
)
def test_what_does_not_belong_into_it_is_told(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = wheel_of(tmp_path, WHOLE | {name: b"x"}, "macosx_11_0_arm64")
    assert any(words in line for line in said_of(wheel, capsys))


def test_a_tag_that_binds_it_to_one_python_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = wheel_of(tmp_path, WHOLE)
    bound = wheel.rename(tmp_path / "demo-1.0-cp311-cp311-linux_x86_64.whl")
    assert said_of(bound, capsys)[0].startswith("tag: expected py3-none-<platform>")


def test_release_builds_call_the_same_check() -> None:
    settings = PROJECT["tool"]["cibuildwheel"]
    for system in ("linux", "macos"):
        commands = settings[system]["repair-wheel-command"]
        assert commands[-1] == "python {project}/scripts/wheel.py {dest_dir}/*.whl"
    assert PROJECT["tool"]["scikit-build"]["wheel"]["py-api"] == "py3"  # hence one build a platform


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `scripts/wheel.sh` makes of this checkout."""
    if platform.system() != "Linux":
        pytest.skip("auditwheel is for Linux")
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        pytest.skip("no C++ compiler here: apt-get install g++")
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [ROOT / "scripts" / "wheel.sh", out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    assert f"{made.name}: complete" in done.stdout
    return made


@pytest.mark.slow
@pytest.mark.timeout(1200)  # everything is compiled, on whatever cores are free
class TestBuilt:
    def test_its_tag_fits_any_python_and_every_system_of_an_age(self, wheel: Path) -> None:
        machine = platform.machine()
        assert re.search(rf"-py3-none-manylinux_2_\d\d_{machine}\.whl$", wheel.name)

    def test_it_needs_no_library_but_the_systems_own(self, wheel: Path) -> None:
        """The audit would have grafted others into a folder of libraries."""
        with zipfile.ZipFile(wheel) as archive:
            assert not [name for name in archive.namelist() if ".libs/" in name]

    def test_every_file_beside_the_modules_is_in_it(self, wheel: Path) -> None:
        packages = PROJECT["tool"]["scikit-build"]["wheel"]["packages"]
        listed = subprocess.check_output(
            ["git", "ls-files", "-co", "--exclude-standard", *packages], cwd=ROOT, text=True
        ).splitlines()
        with zipfile.ZipFile(wheel) as archive:
            missing = set(listed) - set(archive.namelist())
        sources = (f"{OPS}native/",)
        assert not [
            name
            for name in missing
            if (ROOT / name).is_file() and not name.startswith(sources) and name[-3:] != ".md"
        ]

    def test_its_metadata_is_the_projects(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (place,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
            metadata = archive.read(place).decode()
        for line in (
            f"Version: {PROJECT['project']['version']}",
            "License-Expression: MIT",
            "Requires-Python: >=3.11",
        ):
            assert f"\n{line}\n" in metadata

    def test_installed_outside_the_checkout_it_segments_with_its_own_kernels(
        self, wheel: Path, tmp_path: Path
    ) -> None:
        place = tmp_path / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        (site,) = place.glob("lib/python*/site-packages")
        borrowed = [folder for folder in sys.path if folder.endswith("site-packages")]
        # paths alone: the files that make the checkout importable are not read from there
        (site / "borrowed.pth").write_text("\n".join(borrowed))
        python = place / "bin" / "python"
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps",
             "--ignore-installed", wheel],
            check=True,
        )  # fmt: skip
        code = "import model_core; print(model_core.__file__)"
        home = subprocess.check_output([python, "-c", code], cwd=tmp_path, text=True)
        assert Path(home.strip()).is_relative_to(site)
        segmamba = place / "bin" / "segmamba"
        doctor = subprocess.check_output([segmamba, "doctor"], cwd=tmp_path, text=True)
        assert re.search(r"native +available", doctor)
        assert "Ready: a study can be segmented here." in doctor
        subprocess.run(
            [segmamba, "demo", "-o", tmp_path / "demo", "--backend", "native"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
        report = json.loads((tmp_path / "demo" / "report.json").read_text())
        assert report["backend"] == "native"
        assert 50 < report["volumes_ml"]["WT"] < 150

    @pytest.mark.usefixtures("wheel")
    @pytest.mark.parametrize(
        ("system", "architecture", "identifier"),
        [
            ("linux", "x86_64", "cp311-manylinux_x86_64"),
            ("linux", "aarch64", "cp311-manylinux_aarch64"),
            ("macos", "arm64", "cp311-macosx_arm64"),
        ],
    )
    def test_a_release_builds_once_for_each_platform(
        self, system: str, architecture: str, identifier: str
    ) -> None:
        tool = ROOT / ".venv-wheel" / "bin" / "cibuildwheel"
        planned = subprocess.check_output(
            [
                tool,
                "--platform",
                system,
                "--archs",
                architecture,
                "--print-build-identifiers",
                ROOT,
            ],
            text=True,
        )
        assert planned.split() == [identifier]
