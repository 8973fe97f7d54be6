#!/bin/sh
# All that is measured on a CPU, into benchmarks/: speed.json (the tiers, other filters, a network of FFDNet's size),
# speed-avx2.json (where there is AVX-512: the tiers without it), speed-lookahead.json (both ways, as files are by default),
# speed-backends.json, speed-end-to-end.json, speed-streams.json, roofline.json, each with its tables. A quarter of an
# hour on two cores; the machine should do nothing else. With "compile" speed-compile.json too, which takes three minutes more.
#
#     benchmarks/cpu.sh [THREADS] [NOTE] [compile]
set -eu
cd "$(dirname "$0")/.."
threads="${1:-$(nproc)}"
note="${2:-}"
bench() { "${VIDNOISE:-.venv/bin/vidnoise}" bench --device cpu --threads "$threads" --note "$note" "$@"; }

bench --models fast,standard,quality --backends eager --sizes 1080p,2160p --frames 5 --seconds-per-case 2 \
    --peers hqdn3d,nlmeans,bm3d-ffmpeg,opencv-nlm,ffdnet-size -o benchmarks/speed.json
if grep -qm 1 avx512f /proc/cpuinfo; then
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 bench --models fast,standard,quality --backends eager:fp32 \
        --sizes 1080p --frames 5 --seconds-per-case 2 --peers nlmeans -o benchmarks/speed-avx2.json
fi
bench --models fast,standard,quality --backends eager --sizes 1080p --lookaheads 0,8 --frames 3 --seconds-per-case 4 \
    -o benchmarks/speed-lookahead.json
bench --models fast,standard --backends eager,openvino,openvino:int8,onnxruntime:fp32 --sizes 540p,1080p --frames 10 \
    --seconds-per-case 3 -o benchmarks/speed-backends.json
bench --sizes 1080p,2160p --lookaheads 0,8 --frames 20 --seconds-per-case 6 --end-to-end -o benchmarks/speed-end-to-end.json
bench --models fast --sizes 320x180,540p --streams 1,2,4,8 --frames 10 --seconds-per-case 4 \
    -o benchmarks/speed-streams.json
bench --roofline --sizes 1080p -o benchmarks/roofline.md
[ "${3:-}" = compile ] || exit 0
bench --models fast --backends eager,compile --sizes 540p --frames 20 --seconds-per-case 4 --patience 300 \
    -o benchmarks/speed-compile.json
