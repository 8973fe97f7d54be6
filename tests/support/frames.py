"""Frames of any pixel format, filled with random samples."""

from __future__ import annotations

import torch

from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame

DTYPES = {1: torch.uint8, 2: torch.uint16, 4: torch.float32}


def make_frame(name: str, height: int, width: int, seed: int = 0, color: ColorInfo | None = None) -> Frame:
    """Random samples over the whole range of the code, in rows with padding as FFmpeg has them."""
    format = PIXEL_FORMATS[name]
    generator = torch.Generator().manual_seed(seed)
    planes = []
    for i in range(len(format.layout)):
        shape = format.plane_shape(i, height, width)
        padded = (shape[0], shape[1] + 3, *shape[2:])
        if format.is_float:
            samples = torch.rand(padded, generator=generator) * 1.5 - 0.25
        else:
            samples = torch.randint(0, 1 << format.bit_depth, padded, generator=generator, dtype=torch.int32)
            samples = (samples << format.msb_shift).to(DTYPES[format.bytes_per_sample])
        planes.append(samples[:, : shape[1]])
    return Frame(tuple(planes), format, color or ColorInfo(), pts=7)
