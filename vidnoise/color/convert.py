"""The same picture in another pixel format, for outputs that cannot hold its own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vidnoise.color.samples import apply_correction, component, gray_codes, to_rgb
from vidnoise.frame import ColorInfo, Frame, PixelFormat


def convert(frame: Frame, format: PixelFormat, color: ColorInfo) -> Frame:
    """Convert a frame by way of R'G'B' in float32, each sample rounded once.

    Args:
        frame: A frame of any format.
        format: The target. Without colour, it takes the mean of R, G and B; without alpha, that is left out. Alpha that
            ``frame`` lacks is opaque.
        color: The target's matrix, range and chroma location.

    Returns:
        The frame with new planes. Integer samples are clamped to their codes; float ones are not.
    """
    types = {1: torch.uint8, 2: torch.uint16, 4: torch.float32}
    kind = types[format.bytes_per_sample]
    shapes = [format.plane_shape(i, frame.height, frame.width) for i in range(len(format.layout))]
    black = replace(frame, planes=tuple(torch.zeros(s, dtype=kind) for s in shapes), format=format, color=color)
    codes = gray_codes(black, 0.0)
    opaque = 1.0 if format.is_float else float((1 << format.bit_depth) - 1 << format.msb_shift)
    for plane, names in zip(black.planes, format.layout, strict=True):
        for i, name in enumerate(names):
            samples = plane if len(names) == 1 else plane[..., i]
            if name == "a":
                samples.copy_(_alpha(frame, opaque))
            else:
                samples.fill_(int(codes.get(name, opaque)) if not format.is_float else codes.get(name, opaque))
    return apply_correction(black, to_rgb(frame))


def _alpha(frame: Frame, top: float) -> Tensor:
    """Alpha from 0 to ``top``, whole numbers unless that is 1."""
    format = frame.format
    if not any("a" in names for names in format.layout):
        return torch.tensor(top)
    alpha = component(frame.planes, format, "a").float()
    if not format.is_float:
        alpha = alpha / ((1 << format.bit_depth) - 1)
    alpha = alpha.mul(top)
    return alpha if top == 1.0 else alpha.round_().clamp_(0, top)
