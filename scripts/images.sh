#!/usr/bin/env bash
# Build container images, and write down beside each what is in it: dist/sbom/TARGET.cdx.json (Python,
# CycloneDX) and TARGET.debian.tsv.
#
#   scripts/images.sh [TARGET ...]      cpu training (the default), gpu, training-gpu
#
# Variables:
#   SEGMAMBA_CONTAINERS  a folder with the programs `build` and `run`, which take what `docker build`
#                        and `docker run` take             (default: docker, else podman)
#   TORCH_INDEX_URL      the index with torch's CPU wheels; empty: pip's own settings decide
#   PYTHON_IMAGE, CUDA_IMAGE   the bases, as the Dockerfile names them; with a digest for the very same
set -euo pipefail
cd -P "$(dirname "$0")/.."
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(cpu training)

if [ -n "${SEGMAMBA_CONTAINERS:-}" ]; then
    build=("$SEGMAMBA_CONTAINERS/build") run=("$SEGMAMBA_CONTAINERS/run")
elif engine=$(command -v docker || command -v podman); then
    build=("$engine" build) run=("$engine" run)
else
    echo "Neither docker nor podman is here. On Debian and Ubuntu: apt-get install podman" >&2
    exit 1
fi

# Of the last commit: the same sources give the same bytecode and wheel.
arguments=(--build-arg "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)")
for name in TORCH_INDEX_URL PYTHON_IMAGE CUDA_IMAGE; do
    [ -z "${!name+given}" ] || arguments+=(--build-arg "$name=${!name}")
done
export BUILDAH_FORMAT=docker # for podman: the other format has no health check

mkdir -p dist/sbom
for target in "${targets[@]}"; do
    image=segmamba-service:$target
    "${build[@]}" "${arguments[@]}" --target "$target" -t "$image" -f Dockerfile .
    for file in python.cdx.json debian.tsv; do
        "${run[@]}" --rm --entrypoint cat "$image" "/usr/share/doc/segmamba/$file" \
            >"dist/sbom/$target.${file#python.}"
    done
    echo "built     $image"
done
ls dist/sbom
