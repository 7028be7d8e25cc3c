#!/bin/sh
# train.sh train OPTIONS: `segmamba train` that goes on with a run that was begun, and puts the bundle
# of a finished one into the folder of models, where running services take it up by themselves.
set -eu

name=run out=results before=''
for word in "$@"; do
    case $before$word in
    --name=*) name=${word#--name=} ;;
    --out=*) out=${word#--out=} ;;
    "--name "*) name=$word ;;
    "--out "*) out=$word ;;
    esac
    case $word in
    --name | --out) before="$word " ;;
    *) before='' ;;
    esac
    [ "$word" != --help ] || exec segmamba "$@"
    [ "$word" != -h ] || exec segmamba "$@"
done
run=$out/$name

begun() {
    [ -e "$run/config.json" ] || ls "$run"/fold_*/config.json >/dev/null 2>&1
}

# The next whole number is the version; nothing is done where these weights were put there before.
publish() {
    models=${SEGMAMBA_MODELS%%:*}
    title=$(field name <"$run/bundle/card.json")
    weights=$(field weights sha256 <"$run/bundle/card.json")
    last=$(ls "$models/$title" 2>/dev/null | grep -xE '[0-9]+' | sort -n | tail -n 1)
    if [ -n "$last" ] && [ "$(cat "$run/published" 2>/dev/null)" = "$weights" ]; then
        echo "The folder of models has these weights already."
        return
    fi
    bundle=$(mktemp -d)
    segmamba export "$run" --to "$bundle/new" --name "$title" --version $((${last:-0} + 1))
    segmamba models add "$bundle/new" --to "$models"
    echo "$weights" >"$run/published"
    rm -rf "$bundle"
}

field() {
    python -c 'import functools, json, sys
print(functools.reduce(dict.__getitem__, sys.argv[1:], json.load(sys.stdin)))' "$@"
}

case " $* " in
*" --resume "*) ;;
*) ! begun || set -- "$@" --resume ;;
esac
segmamba "$@" &
child=$!
# The signal comes to this shell alone: it is its to pass on.
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break # else the wait was ended by the signal, not by the child
done
[ "$status" -eq 0 ] || exit "$status"
if [ -e "$run/bundle/card.json" ]; then
    publish
else
    echo "Nothing was put among the models: $run has no bundle of its own."
    ! ls "$run"/fold_*/bundle/card.json 2>/dev/null ||
        echo "To serve one of these: segmamba models add $run/fold_K/bundle --to ${SEGMAMBA_MODELS%%:*}"
fi
