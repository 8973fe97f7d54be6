"""Interlaced clips."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidnoise.sinks.interlacing import FieldMarker, interlaced_options
from vidnoise.sources.interlacing import field_order

WIDTH, HEIGHT = 64, 48


def bar(seconds: float, lines: int, noise: float = 0) -> np.ndarray:
    """A bright bar that moves 5 pixels a frame of 1/25 s, ``(lines, WIDTH)`` uint8."""
    x = np.arange(WIDTH)
    at = 4 + seconds * 125
    picture = np.tile(np.where((x >= at) & (x < at + 16), 200.0, 40.0), (lines, 1))
    rng = np.random.default_rng(round(seconds * 1000))
    return (picture + rng.normal(0, noise, picture.shape)).clip(0, 255).astype(np.uint8)


def woven(index: int, order: str, noise: float = 0) -> np.ndarray:
    """Frame ``index`` of an interlaced video: 50 fields a second."""
    picture = np.empty((HEIGHT, WIDTH), np.uint8)
    first = 0 if order == "tff" else 1
    picture[first::2] = bar(index / 25, HEIGHT // 2, noise)
    picture[1 - first :: 2] = bar(index / 25 + 1 / 50, HEIGHT // 2, noise)
    return picture


def write_interlaced(
    path: Path, order: str = "tff", codec: str = "ffv1", *, is_marked: bool = True, noise: float = 0, count: int = 8
) -> Path:
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    marker = FieldMarker(order, WIDTH, HEIGHT, "yuv420p") if is_marked else None
    options = interlaced_options(codec, order, {}) if is_marked else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options, time_base=Fraction(1, 25))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        for i in range(count):
            picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            luma = np.full((HEIGHT, picture.planes[0].line_size), 16, np.uint8)
            luma[:, :WIDTH] = woven(i, order, noise)
            picture.planes[0].update(luma.tobytes())
            for plane in picture.planes[1:]:
                plane.update(bytes([128]) * plane.buffer_size)
            picture.pts, picture.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(picture if marker is None else marker.mark(picture)))
        container.mux(stream.encode(None))
    return path


def stored_order(path: Path) -> str | None:
    with av.open(str(path)) as container:
        return field_order(container.streams.video[0], next(container.decode(video=0)))
