"""Conversion of a frame's samples to the network's input and back, by compiled kernels on the CPU.

Same functions as :func:`.planes_in.to_rgb` and :func:`.planes_out.apply_correction`, which are for CUDA.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from vidnoise.color.chroma import siting, taps
from vidnoise.color.colorimetry import coefficients
from vidnoise.frame import Frame
from vidnoise.kernels.library import Library
from vidnoise.kernels.planes import check_covers, components, targets

COLORS = {"gray": 0, "rgb": 1, "yuv": 2}
MOST_TAPS = 12


def _layout(frame: Frame, planes: list[Tensor]) -> Iterator[float]:
    """Yield the kernels' ``struct layout``."""
    format = frame.format
    yield from (planes[0].element_size(), COLORS[format.family], frame.height, frame.width, *planes[1].shape)
    yield from (1 << format.log2_chroma_h, 1 << format.log2_chroma_w)
    yield from (plane.stride(0) for plane in planes)
    yield from (plane.stride(1) for plane in planes)


def to_rgb(library: Library, frame: Frame, multiple: int = 1, *, rgb: Tensor | None = None) -> Tensor:
    """Convert a frame to the network's input, padded to whole blocks; arguments as for :func:`.planes_in.to_rgb`."""
    format, planes, k = frame.format, components(frame), coefficients(frame)
    bottom, right = -frame.height % multiple, -frame.width % multiple
    height, width = frame.height + bottom, frame.width + right
    if rgb is None:
        rgb = torch.empty(1, 3, height, width)
    site_x, site_y = siting(k.chroma_location, format.log2_chroma_w, format.log2_chroma_h)
    library.run(
        "planes_to_rgb", planes, [rgb], (height, width),
        *_layout(frame, planes), site_y, site_x,
        1 / k.luma_scale, k.luma_offset / k.luma_scale, k.chroma_offset, 1 / k.chroma_scale,
        *k.from_chroma, *k.mean_chroma, bottom < frame.height and right < frame.width,
    )  # fmt: skip
    return rgb


def _taps(factor: int, offset: float) -> tuple[tuple[int, int], list[float]]:
    """Return the first offset and the number of :func:`vidnoise.color.chroma.taps`, and their weights, padded."""
    found = taps(factor, offset)
    weights = [weight for _, weight in found]
    return (found[0][0], len(found)), weights + [0.0] * (MOST_TAPS - len(found))


def apply_correction(
    library: Library, frame: Frame, clean: Tensor, noisy: Tensor | None = None, strength: float = 1.0
) -> Frame:
    """Add ``(clean - noisy) * strength`` to the source samples; arguments as for :func:`.planes_out.apply_correction`.

    Raises:
        FormatError: A picture is smaller than the frame.
    """
    check_covers(frame, clean=clean, noisy=noisy)
    format, k, made = frame.format, coefficients(frame), targets(frame)
    before, after = components(frame), components(frame, made)
    images = [image.float().contiguous() for image in (clean, clean if noisy is None else noisy)]
    site_x, site_y = siting(k.chroma_location, format.log2_chroma_w, format.log2_chroma_h)
    extent_y, weights_y = _taps(1 << format.log2_chroma_h, site_y)
    extent_x, weights_x = _taps(1 << format.log2_chroma_w, site_x)
    parameters: Iterable[float] = (
        *_layout(frame, before), *_layout(frame, after), *clean.shape[2:], strength, noisy is not None,
        *k.to_luma, k.luma_scale, *k.to_chroma, 1 << format.msb_shift,
        # Bits below a shifted sample are kept, so the largest code has them all set.
        (1 << (format.bit_depth + format.msb_shift)) - 1,
        *extent_y, *extent_x, *weights_y, *weights_x,
    )  # fmt: skip
    h, w = after[1].shape
    library.run("correct_planes", [*images, *before], after, (h, w), *parameters)
    return replace(frame, planes=made)
