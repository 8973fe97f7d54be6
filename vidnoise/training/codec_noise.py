"""Noise as a video codec leaves it: blotchy, frozen between frames, poor in detail.

Real encoding and decoding, by the project's own sink and source, so it needs PyAV at training time.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Generator, Tensor

from ..color import apply_correction, to_rgb
from ..frame import PIXEL_FORMATS, ColorInfo, Frame, StreamInfo
from ..noise import NOISES
from ..sinks import open_sink
from ..sources import open_source

BASES = ("poisson_gaussian", "poisson_gaussian", "gaussian", "correlated", "chroma_subsampled", "luma")
"""What the camera adds before the encoder sees the picture."""


def h264(clean: Tensor, generator: Generator) -> Tensor:
    """Camera noise, then H.264 in 4:2:0 at crf 12 to 30; ``(T, 3, H, W)`` in and out."""
    draws = torch.rand(3, generator=generator).tolist()
    noisy = NOISES[BASES[int(draws[0] * len(BASES))]](clean, generator).clamp(0, 1)
    preset = ("veryfast", "medium")[int(draws[1] * 2)]
    return transcode(noisy, crf=12 + 18 * draws[2], preset=preset)


def transcode(clip: Tensor, *, crf: float, preset: str) -> Tensor:
    """A clip ``(T, 3, H, W)`` in [0, 1] through the encoder and back."""
    _, _, height, width = clip.shape
    form, color, time_base = PIXEL_FORMATS["yuv420p"], ColorInfo(matrix=6, range=1), Fraction(1, 25)
    planes = tuple(torch.full(form.plane_shape(i, height, width), 128, dtype=torch.uint8) for i in range(3))
    canvas = Frame(planes, form, color, time_base=time_base, duration=1)
    gray = to_rgb(canvas)
    with tempfile.TemporaryDirectory(prefix="vidnoise-") as folder:
        path = Path(folder) / "clip.mkv"
        sink = open_sink(path, codec="h264", crf=crf, preset=preset, threads=1)
        sink.open(StreamInfo(width, height, form, time_base, rate=Fraction(25), color=color))
        for index, picture in enumerate(clip):
            sink.write(replace(apply_correction(canvas, picture[None] - gray), pts=index, index=index))
        sink.close()
        return torch.cat([to_rgb(frame) for frame in open_source(path, threads=1, interlaced="no")])
