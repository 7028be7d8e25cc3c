#!/bin/sh
# finish.sh PIP-ARGUMENTS: install what is new in this image, write the bytecode, which a read-only
# image cannot do later, and the bill of materials.
set -eu
documents=/usr/share/doc/segmamba

/opt/tools/bin/python -m pip --python /opt/segmamba/bin/python install -q \
    --no-cache-dir --no-compile --disable-pip-version-check "$@"
# Without times in it: the same sources give the same bytes. Some packages have files for a newer
# Python, which cannot be compiled.
/opt/segmamba/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
    /opt/segmamba/lib >/dev/null || true
mkdir -p "$documents"
/opt/tools/bin/cyclonedx-py environment --output-reproducible --of JSON \
    -o "$documents/python.cdx.json" /opt/segmamba/bin/python
dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\n' >"$documents/debian.tsv"
