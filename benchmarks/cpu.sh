#!/bin/sh
# All that is measured on a CPU, into benchmarks/: speed.json, speed-compile.json, speed-end-to-end.json,
# speed-streams.json, roofline.json, each with its tables. Under ten minutes; the machine should do nothing else.
#
#     benchmarks/cpu.sh [THREADS] [NOTE]
set -eu
cd "$(dirname "$0")/.."
threads="${1:-$(nproc)}"
note="${2:-}"
bench() { "${VIDNOISE:-.venv/bin/vidnoise}" bench --device cpu --threads "$threads" --note "$note" "$@"; }

bench --backends eager,openvino,onnxruntime:fp32,auto --sizes 540p,1080p --frames 20 --seconds-per-case 4 \
    --peers -o benchmarks/speed.json
bench --sizes 540p,1080p --frames 60 --seconds-per-case 6 --end-to-end -o benchmarks/speed-end-to-end.json
bench --models fast --sizes 320x180,540p --streams 1,2,4,8,16 --frames 10 --seconds-per-case 4 \
    -o benchmarks/speed-streams.json
bench --roofline --sizes 1080p -o benchmarks/roofline.md
# Last, as compiling takes minutes: by itself, beside what it is to be compared with.
bench --models fast --backends eager,compile --sizes 540p --frames 20 --seconds-per-case 4 --patience 300 \
    -o benchmarks/speed-compile.json
