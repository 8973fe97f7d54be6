"""Pictures of every kind that the Python API takes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch

from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame

Image = pytest.importorskip("PIL.Image")


def arrays(n: int = 3, shape: tuple[int, ...] = (32, 48, 3), seed: int = 0) -> list[np.ndarray]:
    """Noise on a ramp whose channels differ."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 180, shape[1])[:, None] + 20 * np.arange(3)
    ramp = (ramp if len(shape) == 3 else ramp[:, 0]) * np.ones(shape)
    return [(ramp + rng.normal(0, 15, shape)).clip(0, 255).round().astype(np.uint8) for _ in range(n)]


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


def av_frame(array: np.ndarray) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(array, format="rgb24")
    frame.pts, frame.time_base = 7, Fraction(1, 25)
    return frame


def our_frame(array: np.ndarray) -> Frame:
    return Frame((torch.from_numpy(array),), PIXEL_FORMATS["rgb24"], ColorInfo(matrix=0, range=2))


KINDS_OF_PICTURES: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[Any], np.ndarray]]] = {
    "array": (lambda a: a, lambda p: p),
    "tensor": (tensor, lambda p: p.permute(1, 2, 0).numpy()),
    "pil": (Image.fromarray, np.asarray),
    "av": (av_frame, lambda p: p.to_ndarray(format="rgb24")),
    "frame": (our_frame, lambda p: p.planes[0].numpy()),
}
"""How each kind is made of an array, and goes back to one."""
