#!/bin/sh
# The first minutes of someone with a detector: clean frames as files, frames in Python, and the network without Python.
#
#     examples/first-minutes/vision.sh [VIDEO] [FOLDER]
set -eu
VIDEO="${1:-samples/city-night.mp4}"
OUT="${2:-demo/vision}"
mkdir -p "$OUT"

# Clean frames for a labelled set, a little weaker than for the eye.
vidnoise "$VIDEO" -o "$OUT/frame%02d.png" --duration 0.2 --strength 0.7 --lookahead 0 --model fast -y

# The same in Python, as OpenCV has frames: see examples/opencv_frames.py, and examples/webcam.py for the latency.

# One step of the network with its state as inputs and outputs.
vidnoise export fast -o "$OUT/fast.onnx" --size 64x48
