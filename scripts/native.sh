#!/usr/bin/env bash
# Build the native kernels into the checkout (model_core/ops/_native_*.so), only what has changed.
# Extra arguments go to CMake, e.g. -DCMAKE_CXX_COMPILER=clang++
set -euo pipefail
cd -P "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

mkdir -p build
if command -v flock >/dev/null; then  # two builds at once would write the same files
    exec 9>build/native.lock
    flock 9
fi

# A cache made in another folder, as in a copied tree, or for another build program is of no use.
generator=$(command -v ninja >/dev/null && echo Ninja || echo "Unix Makefiles")
usable() { grep -qsxF "$1" build/native/CMakeCache.txt; }
if ! usable "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" || ! usable "CMAKE_GENERATOR:INTERNAL=$generator"; then
    rm -rf build/native
fi
# The program is named because an older one may stand in the cache and be gone.
program=$(command -v ninja || command -v make || true)
cmake -S . -B build/native -G "$generator" "-DCMAKE_MAKE_PROGRAM=$program" --log-level=NOTICE "$@"
cmake --build build/native --parallel
