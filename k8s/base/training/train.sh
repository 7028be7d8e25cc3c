#!/bin/sh
# train.sh NAME ARGUMENTS: start the run of that name, or go on with it where an earlier pod stopped.
# In a GPU image the kernel is proved first. Exits as segmamba train does: with 75 where it was asked
# to stop before its end and has saved.
set -eu

results=${RESULTS:?the folder of all runs}
name=$1
shift
run=$results/$name

"${KERNEL_CHECK:-/usr/local/lib/segmamba/kernel.sh}"

begun() {
    [ -e "$run/config.json" ] || ls "$run"/fold_*/config.json >/dev/null 2>&1
}

if begun; then
    set -- "$@" --resume
fi
segmamba train "$@" --out "$results" --name "$name" &
child=$!
# the signal comes to this shell alone: it is its to pass on
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break   # else the wait was ended by the signal, not by the child
done
exit "$status"
