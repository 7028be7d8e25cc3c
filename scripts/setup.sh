#!/usr/bin/env bash
# Create .venv with the pinned packages and this project in it. Called by make; variables:
#   PYTHON           the interpreter to use (default: python3.11, else python3)
#   TORCH_INDEX_URL  an index with CPU wheels of torch, given to pip as --extra-index-url
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
if [ -z "$python" ] || ! command -v "$python" >/dev/null; then
    echo "No Python found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed, $python is $found. Name another: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "$python has no venv module. On Debian and Ubuntu: apt-get install python$found-venv" >&2
    exit 1
fi
[ "$found" = 3.11 ] || echo "Note: tested with Python 3.11; going on with $found."

[ -x .venv/bin/python ] || "$python" -m venv .venv

extra=()
if [ -n "${TORCH_INDEX_URL:-}" ]; then
    extra=(--extra-index-url "$TORCH_INDEX_URL")
elif [ "$(uname -sm)" = "Linux x86_64" ] && ! .venv/bin/python -c 'import torch' 2>/dev/null &&
    [[ ! $(.venv/bin/python -m pip config list) =~ find-links|index-url ]]; then
    echo "Note: PyPI's torch for Linux x86-64 brings NVIDIA's libraries: a download of several GB."
    echo "      Without a GPU, stop now (Ctrl-C) and name an index with CPU wheels instead:"
    echo "      make TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu"
    sleep 5
fi

echo "Installing the pinned packages into .venv (constraints.txt) ..."
install() { .venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt "$@"; }
# Without build isolation the build, too, uses the pins; the kernels are built below, where the
# next build finds what this one compiled.
install scikit-build-core cmake ninja
install "${extra[@]}" --no-build-isolation --config-settings=wheel.cmake=false -e '.[dev]'

echo "Building the native kernels ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
scripts/native.sh >"$log" 2>&1 || { cat "$log"; echo "Note: the native kernels cannot be built here."; }
grep '^segmamba-service:' "$log" || true
touch .venv/ready
