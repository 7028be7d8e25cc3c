#!/usr/bin/env bash
# Create .venv-triton: the project's environment (.venv) with Triton beside it, for the tests of the
# Triton scan on a machine without a GPU. torch's CPU wheel leaves Triton out; its CUDA wheel brings
# the same version. Nothing in .venv changes, and Triton meets the very same torch and numpy.
# Its wheel is about 200 MB, and 700 MB unpacked: a compiler, and NVIDIA's assembler (ptxas).
# Usage: scripts/triton.sh [FOLDER] [PACKAGE]
# Afterwards: .venv/bin/python -m pytest -m slow tests/model_core/ops/test_scan_triton.py
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.venv-triton}
package=${2:-triton}

. scripts/beside.sh
make_beside "$folder"

echo "Installing $package into $folder ..."
"$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps \
    -c constraints.txt "$package"
"$folder/bin/python" -W ignore - <<'PYTHON'
import torch
import triton

print(f"Ready: Triton {triton.__version__} on torch {torch.__version__}.")
PYTHON
touch "$folder/ready"
