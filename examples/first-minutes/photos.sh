#!/bin/sh
# The first minutes with pictures: one photo, a folder, and a numbered sequence as a video.
#
#     examples/first-minutes/photos.sh [VIDEO] [FOLDER]
set -eu
VIDEO="${1:-samples/city-night.mp4}"
OUT="${2:-demo/photos}"
mkdir -p "$OUT"

# A few pictures to work on, from a video.
vidnoise "$VIDEO" -o "$OUT/frame%02d.png" --duration 0.1 --strength 0 -y

# One photo; what the file says about itself (EXIF, colour profile) comes along.
vidnoise "$OUT/frame01.png" -o "$OUT/clean.jpg" --quality 92 -y

# A folder of photos, each by itself.
vidnoise "$OUT/frame01.png" "$OUT/frame02.png" -o "$OUT/clean/" -y

# A sequence, with memory from picture to picture.
vidnoise "$OUT/frame%02d.png" -o "$OUT/lapse.mp4" --rate 12 -y
