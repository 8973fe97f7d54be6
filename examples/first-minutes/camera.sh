#!/bin/sh
# The first minutes with a camera: record it, pass it on, and list several in a file. Without a camera, a test picture
# stands in for one.
#
#     examples/first-minutes/camera.sh [CAMERA] [FOLDER]
set -eu
CAMERA="${1:-lavfi:testsrc2=size=64x48:rate=10:duration=1,noise=alls=20:allf=t}"
OUT="${2:-demo/camera}"
mkdir -p "$OUT"

# A recording that can be watched while it grows; the lag is bounded, and statistics go to a file.
vidnoise "$CAMERA" -o "$OUT/night.mkv" --live --grow --model fast --max-latency 500 --stats "$OUT/stats.jsonl" -y

# A playlist for browsers and a recording, from one network.
vidnoise "$CAMERA" -o "$OUT/live.m3u8" --tee "$OUT/copy.mkv" --live --model fast -y

# Two cameras from one file, a process each.
cat >"$OUT/cameras.toml" <<END
model = "fast"
live = true
overwrite = true
[camera.door]
input = "$CAMERA"
output = "$OUT/door.mkv"
[camera.yard]
input = "$CAMERA"
output = "$OUT/yard.mkv"
END
vidnoise cameras "$OUT/cameras.toml"
