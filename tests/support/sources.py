"""The contract of every source."""

from __future__ import annotations

import itertools

import pytest
import torch

from vidnoise.errors import SourceError
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.sources import Source


def check_contract(source: Source) -> list[Frame]:
    """What every source promises; returns its frames."""
    info = source.info
    assert isinstance(source, Source)
    assert info.time_base > 0
    assert info.format == PIXEL_FORMATS[info.format.name]
    frames = []
    for frame in source:
        assert (frame.height, frame.width) == (info.height, info.width)
        assert frame.format == info.format
        assert frame.time_base == info.time_base
        for i, plane in enumerate(frame.planes):
            assert tuple(plane.shape) == frame.format.plane_shape(i, frame.height, frame.width)
            assert plane.dtype == (torch.uint8 if frame.format.bytes_per_sample == 1 else torch.uint16)
        frames.append(frame)
    indices = [f.index for f in frames]
    assert indices == sorted(set(indices))
    assert all(a.pts < b.pts for a, b in itertools.pairwise(frames))
    assert not any(f.discontinuity for f in frames[1:])
    assert isinstance(source.trailing_packets, tuple)
    source.close()
    source.close()
    with pytest.raises(SourceError, match="only once"):
        iter(source)
    return frames
