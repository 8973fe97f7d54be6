#!/bin/sh
# The first minutes with a noisy clip: look at it, try half a second, denoise it, compare.
#
#     examples/first-minutes/footage.sh [VIDEO] [FOLDER]
set -eu
VIDEO="${1:-samples/city-night.mp4}"
OUT="${2:-demo/footage}"
mkdir -p "$OUT"

# What is in it, how noisy is it, and what would a run do?
vidnoise info "$VIDEO"

# Left half as it was, right half denoised.
vidnoise "$VIDEO" -o "$OUT/try.mp4" --duration 0.3 --preview split -y

# Less of the grain, all of the colour noise, and a little fresh grain on top.
vidnoise "$VIDEO" -o "$OUT/clean.mp4" --duration 0.3 --luma 0.6 --grain 0.2 -y -v

# A video with a divider that wanders, and a picture with enlarged details.
vidnoise compare "$VIDEO" "$OUT/clean.mp4" -o "$OUT/both.mp4" --mode wipe --sheet "$OUT/both.png" -y
