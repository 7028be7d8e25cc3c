#!/usr/bin/env bash
# Measure every subject, one after the other, and rebuild the pages. Called by `make bench`.
#   benchmarks/run.sh [--data FOLDER] [--postgres URL] [--quick]
# A subject that fails is reported at the end; the others go on. Start on an idle machine.
set -uo pipefail
cd "$(dirname "$0")/.."

data=() options=() postgres=()
while [ $# -gt 0 ]; do
    case $1 in
        --data) data=(--data "$2") && shift 2 ;;
        --postgres) postgres=(--postgres "$2") && shift 2 ;;
        --quick) options=(--quick) && shift ;;
        *) sed -n '2,4p' "$0" >&2 && exit 2 ;;
    esac
done

python=.venv-bench/bin/python
[ -x $python ] || benchmarks/setup.sh || exit 1
failed=()
measure() {
    echo "== $1 ($(date +%H:%M))"
    $python -W ignore -m "benchmarks.$1" "${options[@]}" "${@:2}" || failed+=("$1")
}
measure scan
measure window
measure training
measure case "${data[@]}"
measure memory "${data[@]}"
measure load "${postgres[@]}"
measure dispatch "${postgres[@]}"
measure throughput "${postgres[@]}"
[ ${#postgres[@]} -eq 0 ] || measure scale_out "${postgres[@]}"   # its server: benchmarks/README.md
measure serving
measure registration "${data[@]}"
$python -W ignore -m benchmarks.report
if [ ${#failed[@]} -gt 0 ]; then
    echo "Failed: ${failed[*]}" >&2
    exit 1
fi
