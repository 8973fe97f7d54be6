"""Denoise a camera frame by frame, and say how late the clean pictures are.

python examples/webcam.py 0 -o clean.mp4          # camera 0, until Ctrl-C
python examples/webcam.py rtsp://camera/1         # latency only
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator

import cv2
import numpy as np

import vidnoise


def watch(camera: cv2.VideoCapture, arrivals: deque[float]) -> Iterator[np.ndarray]:
    while (bgr := camera.read()[1]) is not None:
        arrivals.append(time.perf_counter())
        yield bgr


def main() -> None:
    parser = argparse.ArgumentParser(description="Denoise a camera and print the latency.")
    parser.add_argument("camera", help="the number of a camera, a URL or a file")
    parser.add_argument("-o", "--output", help="an .mp4 file for the clean pictures")
    parser.add_argument("--model", default="fast", help="what is slower than the camera makes it wait")
    args = parser.parse_args()
    vidnoise.keep_freed_memory()  # faster on a CPU, and nothing else in this process minds
    camera = cv2.VideoCapture(int(args.camera) if args.camera.isdigit() else args.camera)
    if not camera.isOpened():
        sys.exit(f"{args.camera} cannot be opened")
    writer = cv2.VideoWriter()
    if args.output:
        size = int(camera.get(cv2.CAP_PROP_FRAME_WIDTH)), int(camera.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate = camera.get(cv2.CAP_PROP_FPS) or 25
        if not writer.open(args.output, cv2.VideoWriter.fourcc(*"mp4v"), rate, size):
            sys.exit(f"{args.output} cannot be written")
    arrivals: deque[float] = deque()
    delays: list[float] = []
    with contextlib.suppress(KeyboardInterrupt):
        for bgr in vidnoise.denoise(watch(camera, arrivals), model=args.model, order="bgr"):
            if writer.isOpened():
                writer.write(bgr)
            delays.append(1000 * (time.perf_counter() - arrivals.popleft()))
            print(f"\r{len(delays)} frames, latency {delays[-1]:.0f} ms", end="", flush=True)
    writer.release()
    if delays:
        print(f"\nlatency {statistics.median(delays):.0f} ms, at the longest {max(delays):.0f} ms")


if __name__ == "__main__":
    main()
