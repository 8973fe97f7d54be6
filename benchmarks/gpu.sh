#!/usr/bin/env bash
# The whole GPU programme, unattended, in under nine minutes: correctness, kernels, model alone, end to end, profile.
#
#   benchmarks/gpu.sh                 on the first CUDA device; results in $OUT, else in benchmarks/gpu/
#   benchmarks/gpu.sh --dry-run       the same programme, tiny, on the CPU
#   benchmarks/gpu.sh --parts model,profile --minutes 4
#
# Needs Python with torch, numpy, opencv, click, rich, safetensors, pytest and triton. Without av, what decodes and
# encodes is left out and said so; wheels in a folder .whl are installed aside and used.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python
if compgen -G ".whl/*.whl" >/dev/null; then
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
"$python" benchmarks/gpu.py --output "${OUT:-benchmarks/gpu}" "$@"
