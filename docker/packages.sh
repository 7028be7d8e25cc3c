#!/bin/sh
# packages.sh PIP-ARGUMENTS: the environment /opt/segmamba with these packages, and beside it
# /opt/tools with pip and the writer of the bill of materials, which no image keeps.
set -eu
here=$(dirname "$0")

python3 -m venv /opt/tools
/opt/tools/bin/python -m pip install -q --no-cache-dir -r "$here/sbom.txt"
python3 -m venv --without-pip /opt/segmamba
/opt/tools/bin/python -m pip --python /opt/segmamba/bin/python install -q \
    --no-cache-dir --no-compile "$@"

# What only tests, or a compiler, would read.
site=$(/opt/segmamba/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
find "$site" -type d -name tests -prune -exec rm -rf {} +
rm -rf "$site"/torch/test "$site"/torch/include "$site"/torch/bin/protoc*
