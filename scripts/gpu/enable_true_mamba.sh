#!/usr/bin/env bash
# Build mamba-ssm's real CUDA kernel for the torch of this environment, then prove that it runs.
#
#   scripts/gpu/enable_true_mamba.sh [--dry-run]      --dry-run prints the commands and runs none
#
# Variables:
#   PYTHON      the environment's interpreter                        (default: .venv/bin/python)
#   PT_UPGRADE  1: first replace torch by PT_VER built for PT_CUDA    (default: 0, keep torch)
#   PT_VER      version of torch, for PT_UPGRADE=1                    (default: the pinned one)
#   PT_CUDA     CUDA of that torch, as PyTorch's index names it       (default: cu126)
#   MAX_JOBS    compiler processes; each takes a few GB               (default: 4)
set -euo pipefail
cd -P "$(dirname "$0")/../.."

dry=0
for argument in "$@"; do
    case $argument in
    --dry-run) dry=1 ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' scripts/gpu/enable_true_mamba.sh >&2
        exit 2
        ;;
    esac
done

python=${PYTHON:-.venv/bin/python}
pinned=$(sed -n 's/^torch==//p' constraints.txt)
ver=${PT_VER:-$pinned}
cuda=${PT_CUDA:-cu126}
jobs=${MAX_JOBS:-4}
# Quoted, here and wherever they go: a bare > is a redirection to the shell.
requirements=('mamba-ssm>=2.2.5' 'causal-conv1d>=1.5.2')

fail() {
    echo "error: $1" >&2
    exit 2
}
[[ $ver =~ ^[0-9]+(\.[0-9]+)+$ ]] || fail "PT_VER must be a version such as $pinned, got '$ver'."
[[ $cuda =~ ^cu[0-9]{3}$ ]] || fail "PT_CUDA must look like cu126, got '$cuda'."
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "MAX_JOBS must be a number from 1 on, got '$jobs'."

# Print a command as a shell would read it back; carry it out unless this is a dry run.
run() {
    local shown
    printf -v shown '%q ' "$@"
    echo "+ ${shown% }"
    [ "$dry" = 1 ] || "$@"
}
pip() { run "$python" -m pip "$@"; }

if [ "$dry" = 0 ]; then
    command -v "$python" >/dev/null || fail "$python is not there: make demo creates the environment."
    if [ "${PT_UPGRADE:-0}" != 1 ] && ! "$python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
        fail "torch is a CPU build here. PT_UPGRADE=1 replaces it by torch $ver for $cuda."
    fi
    if [ ! -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] && ! command -v nvcc >/dev/null; then
        fail "nvcc is missing: install the CUDA toolkit of torch's CUDA version, or name it in CUDA_HOME."
    fi
fi

if [ "${PT_UPGRADE:-0}" = 1 ]; then
    pip install --index-url "https://download.pytorch.org/whl/$cuda" "torch==$ver"
fi
# What the build needs when it runs without isolation, so that it sees the torch above.
pip install setuptools wheel packaging ninja
pip uninstall --yes mamba-ssm causal-conv1d
# Without KEEP newer releases leave the kernel out; FORCE compiles here instead of fetching a wheel
# made for another torch. --no-cache-dir: a kernel built for the torch of before may lie there.
run env MAMBA_KEEP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE \
    "MAX_JOBS=$jobs" "$python" -m pip install --no-build-isolation --no-cache-dir \
    "${requirements[@]}"
run env "PYTHONPATH=$PWD" "$python" scripts/gpu/verify_true_mamba.py
