#!/usr/bin/env bash
# Create .venv-nnunet: the project's environment (.venv) with the real nnU-Net v2 beside it, for the
# tests that train with it. Nothing in .venv changes, and nnU-Net uses the very same torch and numpy.
# The packages are those of the benchmarks, plus what nnU-Net's trainer draws its curves with.
# Afterwards: .venv/bin/python -m pytest -m slow tests/training/nnunet
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/beside.sh
make_beside .venv-nnunet

echo "Installing nnU-Net into .venv-nnunet (benchmarks/requirements.txt) ..."
.venv-nnunet/bin/python -m pip install -qq --disable-pip-version-check --no-deps \
    -r benchmarks/requirements.txt seaborn==0.13.2
.venv-nnunet/bin/python -W ignore - <<'PYTHON'
import importlib.metadata

import nnunetv2.run.run_training
import torch

import training.nnunet

print(f"Ready: nnU-Net {importlib.metadata.version('nnunetv2')} on torch {torch.__version__}.")
PYTHON
touch .venv-nnunet/ready
