#!/usr/bin/env bash
# Rebuild what an upgrade of torch, CUDA, Python or the compiler has broken.
#
#   scripts/gpu/fix_env.sh [--dry-run] [--fresh]
#     --dry-run  print the commands and run none
#     --fresh    begin with a new .venv; the old one comes back if the new one cannot be made
#
# Variables: PYTHON, TORCH_INDEX_URL as for make (docs/how-to/install.md).
set -euo pipefail
cd -P "$(dirname "$0")/../.."

dry=0 fresh=0
for argument in "$@"; do
    case $argument in
    --dry-run) dry=1 ;;
    --fresh) fresh=1 ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' scripts/gpu/fix_env.sh >&2
        exit 2
        ;;
    esac
done

# Print a command as a shell would read it back; carry it out unless this is a dry run.
run() {
    local shown
    printf -v shown '%q ' "$@"
    echo "+ ${shown% }"
    [ "$dry" = 1 ] || "$@"
}
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

if [ "$fresh" = 1 ]; then
    if [ -e .venv-old ]; then
        echo "error: .venv-old is in the way, left by an earlier attempt: rename or remove it." >&2
        exit 2
    fi
    put_back() {
        [ -e .venv-old ] || return 0
        rm -rf .venv
        mv .venv-old .venv
        echo "failed; the environment is the old one again" >&2
    }
    trap put_back EXIT
    [ ! -e .venv ] || run mv .venv .venv-old
fi
run rm -rf build/native  # a compiler that is gone may stand in its cache
run scripts/setup.sh     # the pinned packages, the project, the C++ kernels
run .venv/bin/python -m pip check
if [ "$fresh" = 1 ]; then
    run rm -rf .venv-old
    trap - EXIT
fi
# The CUDA kernel is compiled against one torch: build it again where there is a GPU.
if has_gpu; then
    run env PYTHON=.venv/bin/python scripts/gpu/enable_true_mamba.sh
else
    echo "No NVIDIA GPU answers here: the CUDA kernel is left as it is."
fi
run .venv/bin/segmamba doctor
