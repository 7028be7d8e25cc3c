#!/usr/bin/env bash
# Create .venv-bench: the project's environment (.venv) with the peers of benchmarks/requirements.txt
# beside it. Nothing in .venv changes, and project and peers use the very same torch and numpy.
# Afterwards: .venv-bench/bin/python -m benchmarks.scan --help
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -x .venv/bin/python ]; then
    echo "The project's own environment is missing. Make it first: make .venv/ready" >&2
    exit 1
fi
[ -x .venv-bench/bin/python ] || .venv/bin/python -m venv .venv-bench
echo '*' >.venv-bench/.gitignore

site_of() { "$1" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }
project=$(site_of .venv/bin/python)
peers=$(site_of .venv-bench/bin/python)
# Through addsitedir, so that the project's editable install and its .pth files count here too.
printf 'import site; site.addsitedir(%s)\n' "'$project'" >"$peers/_project.pth"

echo "Installing the peers into .venv-bench (benchmarks/requirements.txt) ..."
.venv-bench/bin/python -m pip install -qq --disable-pip-version-check --no-deps \
    -r benchmarks/requirements.txt
.venv-bench/bin/python -W ignore - <<'PYTHON'
import bentoml
import litserve
import locust
import mambapy.pscan
import nnunetv2.inference.predict_from_raw_data
import torch

import model_core

print(f"Ready: torch {torch.__version__}, mambapy, nnU-Net, LitServe, BentoML, locust and this project.")
PYTHON
