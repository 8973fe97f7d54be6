"""Frames and stream information for writing to sinks."""

from __future__ import annotations

from fractions import Fraction

import torch

from vidnoise.frame import PIXEL_FORMATS, Frame, StreamInfo
from vidnoise.sinks import Sink

TICK = Fraction(1, 25)


def info_of(pix_fmt: str = "yuv420p", width: int = 64, height: int = 48, **more: object) -> StreamInfo:
    return StreamInfo(width, height, PIXEL_FORMATS[pix_fmt], TICK, Fraction(25), **more)


def frame_of(info: StreamInfo, index: int, level: float = 0.5, **more: object) -> Frame:
    """A frame of one colour with a little noise."""
    generator = torch.Generator().manual_seed(index)
    format = info.format
    planes = []
    for i in range(len(format.layout)):
        shape = format.plane_shape(i, info.height, info.width)
        top = (1 << format.bit_depth) - 1
        codes = (torch.rand(shape, generator=generator) * 0.1 + level) * top
        dtype = torch.uint8 if format.bytes_per_sample == 1 else torch.uint16
        planes.append((codes.clamp(0, top).to(torch.int32) << format.msb_shift).to(dtype))
    options: dict = {"pts": index, "duration": 1, "time_base": TICK, "index": index, **more}
    return Frame(tuple(planes), format, info.color, **options)


def write_all(sink: Sink, info: StreamInfo, count: int = 5) -> None:
    sink.open(info)
    for i in range(count):
        sink.write(frame_of(info, i))
    sink.close()
