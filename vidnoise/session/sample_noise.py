"""Conversion of a known sigma, that of the stored samples, to levels in the network's channels."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from vidnoise.color import component, to_rgb
from vidnoise.color.colorimetry import resolve_color
from vidnoise.frame import ColorInfo, Frame, PixelFormat
from vidnoise.model.luma_chroma import rgb_to_bands

SIZE = 32
"""Height and width of the picture in which single samples are changed: more than the reach of upsampled chroma."""
CELL = 4
"""Period in pixels of everything that depends on the position of a sample."""


def sample_noise(frame: Frame) -> tuple[float, ...]:
    """Return the noise levels in the network's channels for white noise of one 8-bit step in all samples.

    Args:
        frame: A frame, for its format and colours.

    Returns:
        Six numbers in [0, 1] units in the order of the network's levels: luma and two chroma channels in the low-pass
        band, then in the details. For RGB, all are 1/255. For gray, luma is sqrt 3 times that of the samples, and
        chroma is 0.
    """
    return _sample_noise(frame.format, resolve_color(frame.color, frame.format, frame.height, frame.width))


@lru_cache(maxsize=256)
def _sample_noise(format: PixelFormat, color: ColorInfo) -> tuple[float, ...]:
    # The conversion is linear, so the energies that single samples contribute to the bands add up.
    step = format.step_of_8_bits
    swing = 32
    dtype = {1: torch.uint8, 2: torch.uint16, 4: torch.float32}[format.bytes_per_sample]
    level = 64 * step
    shapes = [format.plane_shape(i, SIZE, SIZE) for i in range(len(format.layout))]
    energy = torch.zeros(6)
    flat = Frame(tuple(torch.full(shape, level).to(dtype) for shape in shapes), format, color)
    before = to_rgb(flat, centred=True)
    for name in sorted({name for components in format.layout for name in components} - set("ax")):
        height, width = component(flat.planes, format, name).shape
        down, across = SIZE // height, SIZE // width
        for i in range(CELL // down):
            for j in range(CELL // across):
                changed = replace(flat, planes=tuple(plane.clone() for plane in flat.planes))
                component(changed.planes, format, name)[height // 2 + i, width // 2 + j] = level + swing * step
                bands = rgb_to_bands(to_rgb(changed, centred=True) - before)[0] / swing
                low, *details = bands.square().sum((1, 2)).split(3)
                energy += torch.cat([low, torch.stack(details).mean(0)])
    return tuple((energy / (CELL / 2) ** 2).sqrt().tolist())
