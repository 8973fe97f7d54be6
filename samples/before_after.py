"""Draws one frame of a video before and after denoising, with an enlarged part of it.

python samples/before_after.py NOISY CLEAN PICTURE [--frame N] [--zoom 4]
"""

from __future__ import annotations

import argparse
import collections
import itertools
import sys
from pathlib import Path

import cv2
import numpy as np

from vidnoise import VidnoiseError, open_source
from vidnoise.color import to_rgb

MARGIN = 8
BACKGROUND = 24
LABEL_HEIGHT = 36


def read_frame(path: str, index: int) -> np.ndarray:
    """Frame ``index`` of a video (the last one if it is shorter) as ``(H, W, 3)`` BGR uint8."""
    source = open_source(path)
    last = collections.deque(itertools.islice(source, index + 1), maxlen=1)
    source.close()
    if not last:
        sys.exit(f"{path} has no frames")
    frame = last[0]
    rgb = to_rgb(frame)[0].clamp(0, 1).mul(255).round().byte()
    return np.ascontiguousarray(rgb.permute(1, 2, 0).flip(-1).numpy())


def telling_part(noisy: np.ndarray, clean: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """Top left corner of the part that shows most: noise that went and detail that stayed."""

    def mean_in_part(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, (width, height), borderType=cv2.BORDER_CONSTANT)

    gray = cv2.cvtColor(clean, cv2.COLOR_BGR2GRAY).astype(np.float32)
    detail = np.abs(cv2.Laplacian(cv2.GaussianBlur(gray, (0, 0), 1.5), cv2.CV_32F))
    removed = cv2.absdiff(noisy, clean).mean(-1, dtype=np.float32)
    # Edges are capped, so that a few highlights do not win.
    score = mean_in_part(np.minimum(detail, 4)) * mean_in_part(removed)
    inner = score[height // 2 : score.shape[0] - height // 2, width // 2 : score.shape[1] - width // 2]
    y, x = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(y), int(x)


def panel(picture: np.ndarray, label: str, corner: tuple[int, int], size: tuple[int, int], zoom: int) -> np.ndarray:
    """The picture with the enlarged part under it and a label above it."""
    (y, x), (height, width) = corner, size
    part = cv2.resize(picture[y : y + height, x : x + width], None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
    whole = picture.copy()
    cv2.rectangle(whole, (x, y), (x + width - 1, y + height - 1), (80, 220, 255), 2)
    title = np.full((LABEL_HEIGHT, picture.shape[1], 3), BACKGROUND, np.uint8)
    cv2.putText(title, label, (2, LABEL_HEIGHT - 11), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 1, cv2.LINE_AA)
    gap = np.full((MARGIN, picture.shape[1], 3), BACKGROUND, np.uint8)
    return np.vstack([title, whole, gap, part[:, : picture.shape[1]]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("noisy")
    parser.add_argument("clean")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--frame", type=int, default=40)
    parser.add_argument("--zoom", type=int, default=4)
    options = parser.parse_args()
    try:
        noisy, clean = (read_frame(path, options.frame) for path in (options.noisy, options.clean))
    except VidnoiseError as ex:
        sys.exit(str(ex))
    if noisy.shape != clean.shape:
        sys.exit(f"the videos differ in size: {noisy.shape[1::-1]} and {clean.shape[1::-1]}")
    width = noisy.shape[1] // options.zoom
    size = (min(noisy.shape[0], width // 2), width)
    corner = telling_part(noisy, clean, *size)
    panels = [
        panel(picture, label, corner, size, options.zoom) for picture, label in ((noisy, "before"), (clean, "after"))
    ]
    gap = np.full((panels[0].shape[0], MARGIN, 3), BACKGROUND, np.uint8)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(options.picture), np.hstack([panels[0], gap, panels[1]])):
        sys.exit(f"{options.picture} could not be written")


if __name__ == "__main__":
    main()
