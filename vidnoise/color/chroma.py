"""Resampling of chroma planes to and from the luma's resolution, respecting the siting of their samples.

Both directions are separable and linear, preserve constants, and repeat the picture's edge outside it. Downsampling
inverts upsampling: a correction of chroma noise computed at the luma's resolution reaches the chroma samples in full,
where an average over each sample's area would leave half of the noise.

Both are written as a few strided slices rather than as convolutions: on a CPU a single-channel convolution is several
times slower, and on a GPU both are memory-bound.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# Values of FFmpeg's AVChromaLocation sited in the left column of a block, in its top row and in its bottom row.
_LEFT = frozenset({1, 3, 5})
_TOP = frozenset({3, 4})
_BOTTOM = frozenset({5, 6})


def siting(chroma_location: int, log2_w: int, log2_h: int) -> tuple[float, float]:
    """Return the position of a chroma sample in its block: ``(x, y)`` in luma samples from the block's first.

    ``chroma_location`` is an AVChromaLocation (ITU-T H.273 figure 1): 1 left, 2 centre, 3 top left, 4 top,
    5 bottom left, 6 bottom.
    """
    last_x, last_y = (1 << log2_w) - 1, (1 << log2_h) - 1
    x = 0.0 if chroma_location in _LEFT else last_x / 2
    y = 0.0 if chroma_location in _TOP else float(last_y) if chroma_location in _BOTTOM else last_y / 2
    return x, y


def upsample(plane: Tensor, height: int, width: int, log2_w: int, log2_h: int, chroma_location: int) -> Tensor:
    """Interpolate linearly from ``(h, w)`` to ``(height, width)``; float32."""
    x, y = siting(chroma_location, log2_w, log2_h)
    # Rows first, so that the strided writes along x happen only once.
    plane = _interpolate(plane, 0, height, 1 << log2_h, y)
    return _interpolate(plane, 1, width, 1 << log2_w, x)


def downsample(plane: Tensor, log2_w: int, log2_h: int, chroma_location: int) -> Tensor:
    """Inverse of :func:`upsample`: from ``(H, W)`` to the chroma samples' own resolution (rounded up); float32.

    For any other plane, this is a weighted average around each chroma sample.
    """
    x, y = siting(chroma_location, log2_w, log2_h)
    plane = _gather(plane, 0, 1 << log2_h, y)
    return _gather(plane, 1, 1 << log2_w, x)


def _at(dim: int, start: int, stop: int | None = None, step: int = 1) -> tuple[slice, ...]:
    return (slice(None),) * dim + (slice(start, stop, step),)


def _interpolate(plane: Tensor, dim: int, size: int, factor: int, offset: float) -> Tensor:
    if factor == 1:
        return plane
    n = plane.shape[dim]
    out = plane.new_empty((size, plane.shape[1]) if dim == 0 else (plane.shape[0], size))
    for phase in range(factor):
        # Output sample factor*i + phase lies at i + position on the chroma axis.
        position = (phase - offset) / factor
        before = math.floor(position)
        weight = position - before
        target = out[_at(dim, phase, None, factor)]
        count = target.shape[dim]
        first = min(max(0, -before), count)  # the first output with both neighbours inside the plane
        last = max(min(count, n - 1 - before), first)  # one past the last such output
        inside = target[_at(dim, first, last)]
        left = plane[_at(dim, first + before, last + before)]
        if weight == 0:
            inside.copy_(left)
        else:
            torch.lerp(left, plane[_at(dim, first + before + 1, last + before + 1)], weight, out=inside)
        for i in (*range(first), *range(last, count)):
            low = min(max(i + before, 0), n - 1)
            high = min(max(i + before + 1, 0), n - 1)
            target[_at(dim, i, i + 1)] = torch.lerp(
                plane[_at(dim, low, low + 1)], plane[_at(dim, high, high + 1)], weight
            )
    return out


@lru_cache(maxsize=64)
def taps(factor: int, offset: float) -> tuple[tuple[int, float], ...]:
    """Return the offsets and weights of samples that recover a chroma sample from its interpolation (:func:`upsample`).

    Of all such weights on samples within ``factor`` of the chroma sample, these have the least squares, hence pass the
    least noise. Where the picture ends within a chroma sample, the recovery is only approximate.
    """
    if factor == 1:
        return ((0, 1.0),)
    samples = range(math.ceil(offset - factor), math.floor(offset + factor) + 1)
    position = (np.array(samples)[:, None] - offset) / factor  # on the chroma axis
    neighbours = np.arange(math.floor(position.min()), math.ceil(position.max()) + 1)
    interpolation = np.clip(1 - np.abs(position - neighbours), 0, None)
    weights = np.linalg.pinv(interpolation.T) @ (neighbours == 0)
    return tuple((k, w) for k, w in zip(samples, weights.tolist(), strict=True))


def _gather(plane: Tensor, dim: int, factor: int, offset: float) -> Tensor:
    if factor == 1:
        return plane
    n = plane.shape[dim]
    count = -(-n // factor)
    out: Tensor | None = None
    # The middle tap comes first: it is inside the picture for (almost) every output, so it can start the sum.
    for k, weight in sorted(taps(factor, offset), key=lambda tap: abs(tap[0] - offset)):
        first = -(-max(0, -k) // factor)
        last = max(min(count, (n - 1 - k) // factor + 1), first)
        source = plane[_at(dim, factor * first + k, factor * (last - 1) + k + 1, factor)]
        if out is None and (first, last) == (0, count):
            out = source * weight
            continue
        if out is None:
            out = plane.new_zeros((count, plane.shape[1]) if dim == 0 else (plane.shape[0], count))
        if last > first:
            out[_at(dim, first, last)].add_(source, alpha=weight)
        for i in (*range(first), *range(last, count)):
            edge = min(max(factor * i + k, 0), n - 1)
            out[_at(dim, i, i + 1)].add_(plane[_at(dim, edge, edge + 1)], alpha=weight)
    assert out is not None
    return out
