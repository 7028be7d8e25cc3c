#!/bin/sh
# entrypoint.sh COMMAND OPTIONS: a command of segmamba, as `docker run IMAGE serve` says it.
# In a GPU image the CUDA kernel is proved first; the training image goes on with a run it knows.
set -eu
here=$(dirname "$0")

[ "${1:-}" != segmamba ] || shift
case ${1:-} in
serve | worker | train | segment | predict | tta) "$here/kernel.sh" ;;
esac
if [ "${1:-}" = train ] && [ -x "$here/train.sh" ]; then
    exec "$here/train.sh" "$@"
fi
exec segmamba "$@"
