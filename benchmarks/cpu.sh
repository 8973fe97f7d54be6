#!/bin/sh
# All that is measured on a CPU, into benchmarks/: speed.json, speed-tiers.json, speed-end-to-end.json,
# speed-streams.json, roofline.json, each with its tables. Ten minutes on two cores; the machine should do nothing else.
# With "compile" speed-compile.json too, which takes three more.
#
#     benchmarks/cpu.sh [THREADS] [NOTE] [compile]
set -eu
cd "$(dirname "$0")/.."
threads="${1:-$(nproc)}"
note="${2:-}"
bench() { "${VIDNOISE:-.venv/bin/vidnoise}" bench --device cpu --threads "$threads" --note "$note" "$@"; }

bench --backends eager,openvino,onnxruntime:fp32,auto --sizes 540p,1080p --frames 20 --seconds-per-case 4 \
    --peers -o benchmarks/speed.json
bench --models fast,standard,quality --backends eager --sizes 540p,1080p --frames 6 --seconds-per-case 2 \
    -o benchmarks/speed-tiers.json
bench --sizes 540p,1080p --frames 60 --seconds-per-case 6 --end-to-end -o benchmarks/speed-end-to-end.json
bench --models fast --sizes 320x180,540p --streams 1,2,4,8,16 --frames 10 --seconds-per-case 4 \
    -o benchmarks/speed-streams.json
bench --roofline --sizes 1080p -o benchmarks/roofline.md
[ "${3:-}" = compile ] || exit 0
bench --models fast --backends eager,compile --sizes 540p --frames 20 --seconds-per-case 4 --patience 300 \
    -o benchmarks/speed-compile.json
