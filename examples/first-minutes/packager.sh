#!/bin/sh
# The first minutes of someone who packages vidnoise or looks after a machine: what is installed, what works, the manual
# page, completion, and how fast it is here.
#
#     examples/first-minutes/packager.sh [FOLDER]
set -eu
OUT="${1:-demo/packager}"
mkdir -p "$OUT"

vidnoise --version
vidnoise doctor
vidnoise models
vidnoise --man >"$OUT/vidnoise.1"

# One second of a test picture: the installed weights are found, and the usual encoder works.
vidnoise lavfi:testsrc2=size=64x48:duration=1 -o "$OUT/test.mp4" -y

vidnoise bench --models fast --sizes 64x48 --frames 3 --seconds-per-case 0.1 -o "$OUT/speed.json"
