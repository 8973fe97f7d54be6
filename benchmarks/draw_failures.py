"""What the models do badly: models/failures.png, from scenes that are drawn here.

    python benchmarks/draw_failures.py [--model standard]

Each row is one kind of failure at its plainest: the clean frame, the noisy one, and what the model makes of it, blind,
after eight frames, enlarged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

import vidnoise

SIZE, ZOOM, FRAMES = 128, 2, 8
CROP = slice(32, 96)
GAP, TITLE = 8, 26

Scene = Callable[[int], np.ndarray]
"""Frame number to an ``(H, W, 3)`` float32 RGB picture in [0, 1]."""


def grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return y, x


def weave(_: int) -> np.ndarray:
    """Cloth: a pattern of a few codes, near the finest that pixels can show."""
    y, x = grid()
    pattern = 0.05 * np.sign(np.sin(x * 1.9)) * np.sign(np.sin(y * 1.7))
    return np.stack([0.45 + pattern, 0.4 + pattern, 0.35 + pattern], -1)


def small_print(_: int) -> np.ndarray:
    """Pale text a few pixels high."""
    page = np.full((SIZE, SIZE, 3), 190, np.uint8)
    for row in range(8, SIZE, 9):
        cv2.putText(
            page, "the quick brown fox jumps", (2, row), cv2.FONT_HERSHEY_SIMPLEX, 0.25, (158,) * 3, 1, cv2.LINE_AA
        )
    return page.astype(np.float32) / 255


def wheel(index: int) -> np.ndarray:
    """Spokes that turn 25 degrees a frame: no flow follows them."""
    y, x = grid()
    angle = np.arctan2(y - SIZE / 2, x - SIZE / 2) + np.radians(25 * index)
    light = 0.5 + 0.35 * np.sign(np.sin(9 * angle)) * (np.hypot(y - SIZE / 2, x - SIZE / 2) < 56)
    return np.stack([light, 0.9 * light, 0.7 * light], -1).astype(np.float32)


def neon(_: int) -> np.ndarray:
    """Smooth, saturated colours in the dark."""
    y, x = grid()
    glow = np.exp(-((y - 64) ** 2) / 500)
    return np.stack([0.05 + 0.9 * glow * (x < 64), 0.03 + 0.05 * glow, 0.08 + 0.9 * glow * (x >= 64)], -1).astype(
        np.float32
    )


SCENES: tuple[tuple[str, Scene, float], ...] = (
    ("fine, faint texture", weave, 30),
    ("small, faint print", small_print, 30),
    ("faster than the flow", wheel, 40),
    ("saturated and smooth", neon, 50),
)
"""What goes wrong, where, and sigma in 8-bit units."""


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(1 / np.mean((a.clip(0, 1) - b) ** 2)))


def row(title: str, scene: Scene, sigma: float, model: str) -> np.ndarray:
    """One row of the picture."""
    rng = np.random.default_rng(0)
    clean = [scene(i) for i in range(FRAMES)]
    noisy = [c + rng.standard_normal(c.shape).astype(np.float32) * sigma / 255 for c in clean]
    out = list(vidnoise.denoise(iter(noisy), model=model))[-1]
    labels = (
        f"{title}",
        f"sigma {sigma:g}: {psnr(noisy[-1], clean[-1]):.1f} dB",
        f"{model}: {psnr(out, clean[-1]):.1f} dB",
    )
    panels = []
    for label, picture in zip(labels, (clean[-1], noisy[-1], out), strict=True):
        part = (picture[CROP, CROP, ::-1].clip(0, 1) * 255).round().astype(np.uint8)
        part = cv2.resize(part, None, fx=2 * ZOOM, fy=2 * ZOOM, interpolation=cv2.INTER_NEAREST)
        head = np.full((TITLE, part.shape[1], 3), 24, np.uint8)
        cv2.putText(head, label, (2, TITLE - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        panels += [np.vstack([head, part]), np.full((TITLE + part.shape[0], GAP, 3), 24, np.uint8)]
    return np.hstack(panels[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="standard")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parents[1] / "models" / "failures.png")
    options = parser.parse_args()
    rows = [row(*scene, options.model) for scene in SCENES]
    if not cv2.imwrite(str(options.output), np.vstack(rows)):
        sys.exit(f"{options.output} could not be written")


if __name__ == "__main__":
    main()
