#!/usr/bin/env bash
# Trains all tiers on one GPU, unattended, in nine minutes, going on from the weights in models/.
#
#   vidnoise train standard --data DIR --pack SMALL            where the data is: cut it down to 42 MB
#   benchmarks/train_gpu.sh --data SMALL                       where the GPU is; results in $OUT, else benchmarks/train-gpu/
#   benchmarks/train_gpu.sh --dry-run --device cpu             the same programme, tiny, in a minute
#   benchmarks/train_gpu.sh --data SMALL --minutes 3 --tiers fast --stills 1 --constant
#
# Needs Python with torch, numpy, opencv and safetensors, nothing else. The output folder has TIER.safetensors (averaged),
# TIER-raw.safetensors (to go on from: --initial TIER=FILE, or `initial` of a configuration), log.csv and train.log, new
# every two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python
output="${OUT:-benchmarks/train-gpu}"
mkdir -p "$output"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
"$python" benchmarks/train_gpu.py --output "$output" "$@" 2>&1 | tee "$output/train.log"
