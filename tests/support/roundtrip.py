"""Files copied by sources and sinks, pictures untouched, and what is in them."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import av.stream
import numpy as np
import torch

from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.sinks import open_sink
from vidnoise.sources import open_source


def through(source: str | os.PathLike[str], target: Path, *, read: dict | None = None, **options: object) -> Path:
    """Copy ``source`` to ``target``, pictures untouched."""
    reader = open_source(source, threads=1, **(read or {}))
    sink = open_sink(target, threads=1, **options)
    sink.open(reader.info)
    for frame in reader:
        sink.write(frame)
    sink.close(reader.trailing_packets)
    return target


def times(path: Path | str) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [f.pts * Fraction(f.time_base) for f in container.decode(video=0)]


def random_frames(pix_fmt: str, width: int, height: int, count: int) -> list[Frame]:
    format = PIXEL_FORMATS[pix_fmt]
    generator = torch.Generator().manual_seed(3)
    frames = []
    for i in range(count):
        planes = []
        for k in range(len(format.layout)):
            codes = torch.randint(0, 1 << format.bit_depth, format.plane_shape(k, height, width), generator=generator)
            dtype = torch.uint8 if format.bytes_per_sample == 1 else torch.uint16
            planes.append((codes << format.msb_shift).to(dtype))
        frames.append(Frame(tuple(planes), format, pts=i, duration=1, time_base=Fraction(1, 25), index=i))
    return frames


def component_planes(frame: Frame) -> dict[str, np.ndarray]:
    """Samples by component ("y", "u", ...), shifted down to the lowest bits."""
    found = {}
    for names, plane in zip(frame.format.layout, frame.planes, strict=True):
        for i, name in enumerate(names):
            if name != "x":
                samples = (plane if plane.ndim == 2 else plane[..., i]).numpy()
                found[name] = samples >> frame.format.msb_shift
    return found


def packets(path: Path | str, kind: str) -> list[list[bytes]]:
    """Payloads of the packets of each stream of a kind."""
    with av.open(str(path)) as container:
        found: dict[int, list[bytes]] = {s.index: [] for s in container.streams if s.type == kind}
        for packet in container.demux():
            if packet.stream_index in found and packet.size:
                found[packet.stream_index].append(bytes(packet))
        return list(found.values())


def starts(path: Path) -> dict[str, Fraction]:
    """Time of the first packet of each kind."""
    found: dict[str, Fraction] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                time = packet.pts * Fraction(packet.time_base)
                found[packet.stream.type] = min(time, found.get(packet.stream.type, time))
    return found
