"""Draws one frame of a video before and after denoising, with two enlarged parts: detail, and a flat dark place.

python samples/before_after.py NOISY CLEAN PICTURE [--frame N] [--zoom 4] [--moving FILE.webp]

With --moving the flat part is also shown over a second, before and after side by side: noise shows when it moves.
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


N_MOVING = 25
"""Frames of the moving picture."""

Part = tuple[slice, slice]


def read_frames(path: str, index: int, count: int) -> list[np.ndarray]:
    """``count`` frames of a video from ``index`` on (its last ones if it is shorter), ``(H, W, 3)`` BGR uint8."""
    source = open_source(path)
    last = collections.deque(itertools.islice(source, index + count), maxlen=count)
    source.close()
    if not last:
        sys.exit(f"{path} has no frames")
    pictures = (to_rgb(frame)[0].clamp(0, 1).mul(255).round().byte() for frame in last)
    return [np.ascontiguousarray(rgb.permute(1, 2, 0).flip(-1).numpy()) for rgb in pictures]


def telling_parts(noisy: np.ndarray, clean: np.ndarray, height: int, width: int) -> tuple[Part, Part]:
    """The part where noise went and detail stayed, and the flat dark one where most of it was."""

    def mean_in_part(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, (width, height), borderType=cv2.BORDER_CONSTANT)

    def best(score: np.ndarray) -> Part:
        inner = score[height // 2 : score.shape[0] - height // 2, width // 2 : score.shape[1] - width // 2]
        y, x = (int(i) for i in np.unravel_index(int(inner.argmax()), inner.shape))
        return slice(y, y + height), slice(x, x + width)

    gray = cv2.cvtColor(clean, cv2.COLOR_BGR2GRAY).astype(np.float32)
    detail = np.abs(cv2.Laplacian(cv2.GaussianBlur(gray, (0, 0), 1.5), cv2.CV_32F))
    removed = cv2.absdiff(noisy, clean).mean(-1, dtype=np.float32)
    # Edges are capped, so that a few highlights do not win.
    textured = mean_in_part(np.minimum(detail, 4)) * mean_in_part(removed)
    flat = mean_in_part(removed) / (1 + mean_in_part(detail)) / (20 + mean_in_part(gray))
    return best(textured), best(flat)


def enlarged(picture: np.ndarray, part: Part, zoom: int) -> np.ndarray:
    return cv2.resize(picture[part], None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)


def titled(picture: np.ndarray, label: str) -> np.ndarray:
    title = np.full((LABEL_HEIGHT, picture.shape[1], 3), BACKGROUND, np.uint8)
    cv2.putText(title, label, (2, LABEL_HEIGHT - 11), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([title, picture])


def panel(picture: np.ndarray, label: str, parts: tuple[Part, Part], zoom: int) -> np.ndarray:
    """The picture with the enlarged parts under it and a label above it."""
    whole = picture.copy()
    for rows, columns in parts:
        cv2.rectangle(whole, (columns.start, rows.start), (columns.stop - 1, rows.stop - 1), (80, 220, 255), 2)
    below = [enlarged(picture, part, zoom) for part in parts]
    height, width = below[0].shape[0], picture.shape[1] - sum(b.shape[1] for b in below)
    below.insert(1, np.full((height, width, 3), BACKGROUND, np.uint8))
    gap = np.full((MARGIN, picture.shape[1], 3), BACKGROUND, np.uint8)
    return titled(np.vstack([whole, gap, np.hstack(below)]), label)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.hstack([left, np.full((left.shape[0], MARGIN, 3), BACKGROUND, np.uint8), right])


def write_moving(path: Path, noisy: list[np.ndarray], clean: list[np.ndarray], part: Part, zoom: int) -> None:
    """A picture that moves, of the part before and after."""
    animation = cv2.Animation()
    animation.frames = [
        beside(titled(enlarged(n, part, zoom), "before"), titled(enlarged(c, part, zoom), "after"))
        for n, c in zip(noisy, clean, strict=True)
    ]
    animation.durations = [40] * len(animation.frames)
    if not cv2.imwriteanimation(str(path), animation, [cv2.IMWRITE_WEBP_QUALITY, 80]):
        sys.exit(f"{path} could not be written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("noisy")
    parser.add_argument("clean")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--frame", type=int, default=40)
    parser.add_argument("--zoom", type=int, default=4)
    parser.add_argument("--moving", type=Path, help="also a picture that moves, .webp")
    options = parser.parse_args()
    count = N_MOVING if options.moving else 1
    try:
        noisy, clean = (read_frames(path, options.frame, count) for path in (options.noisy, options.clean))
    except VidnoiseError as ex:
        sys.exit(str(ex))
    if noisy[0].shape != clean[0].shape:
        sys.exit(f"the videos differ in size: {noisy[0].shape[1::-1]} and {clean[0].shape[1::-1]}")
    # Two of them fit under the picture.
    width = (noisy[0].shape[1] - MARGIN) // 2 // options.zoom
    parts = telling_parts(noisy[0], clean[0], min(noisy[0].shape[0], width), width)
    panels = [panel(v[0], label, parts, options.zoom) for v, label in ((noisy, "before"), (clean, "after"))]
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(options.picture), beside(*panels)):
        sys.exit(f"{options.picture} could not be written")
    if options.moving:
        write_moving(options.moving, noisy, clean, parts[1], options.zoom)


if __name__ == "__main__":
    main()
