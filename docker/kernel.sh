#!/bin/sh
# Prove mamba-ssm's CUDA kernel with `segmamba doctor`, where the image is made for it.
# SEGMAMBA_KERNEL_CHECK: require (stop where it does not run), warn (say so and go on), off.
set -eu
mode=${SEGMAMBA_KERNEL_CHECK:-off}
[ "$mode" != off ] || exit 0

findings=$(segmamba doctor --json) || true
verdict=$(printf '%s' "$findings" | python -c '
import json, sys
try:
    found = json.load(sys.stdin)
except ValueError:
    sys.exit(print("segmamba doctor did not answer: run it by hand and read what it says."))
checks = {check["backend"]: check for check in found["checks"]}
kernel = checks.get("mamba-ssm")
if not found["gpus"]:
    print("no GPU is visible. Start the container with one: --gpus all, or docker/gpu.yml with "
          "compose; the host needs the NVIDIA Container Toolkit.", *found["advice"])
elif kernel is None:
    print("the kernel does not load:", found["backends"]["mamba-ssm"])
elif not kernel["passed"]:
    print("the kernel fails its check:", kernel["problem"])
else:
    print("ok", found["gpus"][0]["name"])
')
case $verdict in
"ok "*)
    echo "The CUDA kernel agrees with the reference on ${verdict#ok }." >&2
    exit 0
    ;;
esac
echo "CUDA kernel: $verdict" >&2
if [ "$mode" = warn ]; then
    echo "Going on without it, slower (SEGMAMBA_KERNEL_CHECK=warn)." >&2
    exit 0
fi
echo "Stopped. To go on without it, slower: SEGMAMBA_KERNEL_CHECK=warn; or use the image cpu." >&2
exit 78 # EX_CONFIG
