"""scripts/gpu/*.sh: what they would run, and that every argument reaches pip in one piece.

No GPU is used: a stand-in for the interpreter writes down what it is given.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "gpu"
PINNED = next(
    line.removeprefix("torch==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line.startswith("torch==")
)
REQUIREMENTS = ("mamba-ssm>=2.2.5", "causal-conv1d>=1.5.2")


def run(
    script: Path, *arguments: str, path: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    kept = {
        k: v for k, v in os.environ.items() if k not in ("PYTHON", "PT_VER", "PT_CUDA", "MAX_JOBS")
    }
    return subprocess.run(
        ["bash", str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, "PATH": path or os.environ["PATH"], **variables},
        check=False,
    )


def commands(output: str) -> list[list[str]]:
    """The commands that a script printed, read back as a shell would."""
    return [shlex.split(line[2:]) for line in output.splitlines() if line.startswith("+ ")]


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts in a folder of their own, which they take for the checkout."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts" / "gpu")
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["enable_true_mamba.sh", "fix_env.sh"])
class TestEveryScript:
    def test_bash_can_read_it(self, name: str) -> None:
        subprocess.run(["bash", "-n", str(SCRIPTS / name)], check=True)
        assert os.access(SCRIPTS / name, os.X_OK)

    def test_an_unknown_option_shows_the_help_and_runs_nothing(self, name: str) -> None:
        done = run(SCRIPTS / name, "--frobnicate")
        assert done.returncode == 2
        assert "--dry-run" in done.stderr
        assert not done.stdout

    def test_a_dry_run_changes_nothing(self, name: str, checkout: Path) -> None:
        before = sorted(checkout.rglob("*"))
        done = run(checkout / "scripts" / "gpu" / name, "--dry-run", PYTHON="/nowhere/python")
        assert done.returncode == 0
        assert commands(done.stdout)
        assert sorted(checkout.rglob("*")) == before


class TestEnableTrueMamba:
    script = SCRIPTS / "enable_true_mamba.sh"

    def test_the_build_asks_for_the_kernel_and_ends_with_its_proof(self) -> None:
        *_, build, proof = commands(run(self.script, "--dry-run", PYTHON="py").stdout)
        assert build == [
            "env",
            "MAMBA_KEEP_CUDA_BUILD=TRUE",
            "MAMBA_FORCE_BUILD=TRUE",
            "CAUSAL_CONV1D_FORCE_BUILD=TRUE",
            "MAX_JOBS=4",
            *["py", "-m", "pip", "install", "--no-build-isolation", "--no-cache-dir"],
            *REQUIREMENTS,
        ]
        assert proof[-2:] == ["py", "scripts/gpu/verify_true_mamba.py"]
        assert (ROOT / proof[-1]).is_file()

    def test_torch_is_left_alone_unless_told(self) -> None:
        installs = commands(run(self.script, "--dry-run").stdout)
        assert not [words for words in installs if any("torch" in word for word in words)]

    def test_an_upgrade_installs_the_named_torch_first(self) -> None:
        done = run(
            self.script,
            "--dry-run",
            PYTHON="py",
            PT_UPGRADE="1",
            PT_VER="2.9.1",
            PT_CUDA="cu128",
        )
        first = commands(done.stdout)[0]
        assert first[:4] == ["py", "-m", "pip", "install"]
        assert first[-1] == "torch==2.9.1"
        assert first[first.index("--index-url") + 1].endswith("/cu128")

    def test_an_upgrade_without_a_version_takes_the_pinned_one(self) -> None:
        first = commands(run(self.script, "--dry-run", PT_UPGRADE="1").stdout)[0]
        assert first[-1] == f"torch=={PINNED}"

    @pytest.mark.parametrize(
        ("variable", "value"),
        [("PT_VER", "newest; rm -rf /"), ("PT_CUDA", "12.1"), ("MAX_JOBS", "0")],
    )
    def test_a_bad_value_is_refused_by_name(self, variable: str, value: str) -> None:
        done = run(self.script, "--dry-run", **{variable: value})
        assert done.returncode == 2
        assert variable in done.stderr
        assert not commands(done.stdout)

    def test_the_requirements_are_those_of_the_package_and_of_the_doctor(self) -> None:
        from model_core.cli.doctor import KERNEL_COMMAND

        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert tuple(project["optional-dependencies"]["gpu"]) == REQUIREMENTS
        assert shlex.split(KERNEL_COMMAND)[-2:] == list(REQUIREMENTS)

    def test_every_argument_reaches_pip_whole_and_no_file_is_made_of_a_version(
        self, checkout: Path
    ) -> None:
        """Unquoted, ``>=2.2.5`` is a redirection: pip gets less, and a file ``=2.2.5`` appears."""
        python = program(checkout / "python", f'echo "$@" >>{checkout}/calls')
        program(checkout / "cuda" / "bin" / "nvcc", "exit 0")
        before = {path.name for path in checkout.iterdir()} | {"calls"}
        script = checkout / "scripts" / "gpu" / self.script.name
        done = run(script, PYTHON=str(python), CUDA_HOME=str(checkout / "cuda"))
        assert done.returncode == 0, done.stderr
        calls = (checkout / "calls").read_text(encoding="utf-8").splitlines()
        assert calls[-2].endswith(" ".join(REQUIREMENTS))
        assert calls[-1] == "scripts/gpu/verify_true_mamba.py"
        assert {path.name for path in checkout.iterdir()} == before

    def test_a_failed_build_is_a_failure_and_nothing_is_called_proven(self, checkout: Path) -> None:
        python = program(
            checkout / "python",
            f'echo "$@" >>{checkout}/calls; case "$*" in *mamba-ssm\\>*) exit 9;; esac',
        )
        program(checkout / "cuda" / "bin" / "nvcc", "exit 0")
        script = checkout / "scripts" / "gpu" / self.script.name
        done = run(script, PYTHON=str(python), CUDA_HOME=str(checkout / "cuda"))
        assert done.returncode == 9
        assert "verify_true_mamba" not in (checkout / "calls").read_text(encoding="utf-8")

    def test_a_cpu_build_of_torch_is_told_how_to_become_another(self, checkout: Path) -> None:
        python = program(checkout / "python", 'case "$1" in -c) exit 1;; esac')
        script = checkout / "scripts" / "gpu" / self.script.name
        done = run(script, PYTHON=str(python), CUDA_HOME=str(checkout))
        assert done.returncode == 2
        assert "PT_UPGRADE=1" in done.stderr
        assert not commands(done.stdout)


class TestFixEnv:
    script = SCRIPTS / "fix_env.sh"

    @staticmethod
    def without_gpu(folder: Path) -> str:
        """A search path with the plain tools and no nvidia-smi."""
        for tool in ("bash", "dirname", "sed", "grep", "rm", "mv", "env", "echo"):
            found = shutil.which(tool)
            if found:
                (folder / tool).parent.mkdir(parents=True, exist_ok=True)
                (folder / tool).symlink_to(found)
        return str(folder)

    def test_without_a_gpu_the_cuda_kernel_is_left_alone(self, tmp_path: Path) -> None:
        done = run(self.script, "--dry-run", path=self.without_gpu(tmp_path / "bin"))
        assert commands(done.stdout) == [
            ["rm", "-rf", "build/native"],
            ["scripts/setup.sh"],
            [".venv/bin/python", "-m", "pip", "check"],
            [".venv/bin/segmamba", "doctor"],
        ]
        assert "No NVIDIA GPU" in done.stdout

    def test_with_a_gpu_the_cuda_kernel_is_built_again(self, tmp_path: Path) -> None:
        path = self.without_gpu(tmp_path / "bin")
        program(tmp_path / "bin" / "nvidia-smi", 'echo "GPU 0: made up"')
        words = commands(run(self.script, "--dry-run", path=path).stdout)
        assert ["env", "PYTHON=.venv/bin/python", "scripts/gpu/enable_true_mamba.sh"] in words

    def test_a_fresh_environment_that_fails_leaves_the_old_one(self, checkout: Path) -> None:
        program(checkout / "scripts" / "setup.sh", "mkdir -p .venv && exit 7")
        program(checkout / ".venv" / "bin" / "python", "exit 0")
        done = run(checkout / "scripts" / "gpu" / self.script.name, "--fresh")
        assert done.returncode == 7
        assert (checkout / ".venv" / "bin" / "python").is_file()
        assert not (checkout / ".venv-old").exists()

    def test_a_fresh_environment_that_works_replaces_the_old_one(self, checkout: Path) -> None:
        program(
            checkout / "scripts" / "setup.sh",
            "mkdir -p .venv/bin && for p in python segmamba; do"
            ' printf "#!/bin/sh\\n" >.venv/bin/$p; chmod +x .venv/bin/$p; done',
        )
        program(checkout / ".venv" / "old", "exit 0")
        path = self.without_gpu(checkout / "bin")
        for tool in ("mkdir", "chmod", "printf", "sh"):
            (checkout / "bin" / tool).symlink_to(shutil.which(tool) or "")
        done = run(checkout / "scripts" / "gpu" / self.script.name, "--fresh", path=path)
        assert done.returncode == 0, done.stderr
        assert not (checkout / ".venv" / "old").exists()
        assert not (checkout / ".venv-old").exists()
        assert (checkout / ".venv" / "bin" / "segmamba").is_file()
