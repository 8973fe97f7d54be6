"""Denoise what OpenCV reads, and write it with OpenCV: frames are NumPy arrays.

OpenCV keeps neither sound nor the times of frames; denoise_file.py does.

python examples/opencv_frames.py noisy.mp4 clean.mp4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import cv2
import numpy as np

import vidnoise


def read(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames, ``(H, W, 3)`` BGR."""
    while (bgr := capture.read()[1]) is not None:
        yield bgr


def main() -> None:
    parser = argparse.ArgumentParser(description="Denoise a video with OpenCV at both ends.")
    parser.add_argument("noisy")
    parser.add_argument("clean", help="an .mp4 file")
    parser.add_argument("--model", default="standard")
    args = parser.parse_args()
    capture = cv2.VideoCapture(args.noisy)
    if not capture.isOpened():
        sys.exit(f"{args.noisy} cannot be opened")
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25
    writer = cv2.VideoWriter(args.clean, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        sys.exit(f"{args.clean} cannot be written")
    # Each frame is denoised by 8 that follow it, too; without lookahead, every frame comes back at once.
    for bgr in vidnoise.denoise(read(capture), model=args.model, order="bgr", lookahead=8):
        writer.write(bgr)
    writer.release()
    capture.release()


if __name__ == "__main__":
    main()
