"""Frames whose samples are compared."""

from __future__ import annotations

import torch

from support import tolerances
from vidnoise.frame import Frame


def assert_same_codes(found: Frame, expected: Frame) -> None:
    """The same samples, but for few that lie between two codes and are rounded either way."""
    step = 1 << found.format.msb_shift
    for a, b in zip(found.planes, expected.planes, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        apart = (a.cpu().to(torch.int32) - b.cpu().to(torch.int32)).abs()
        assert int(apart.max()) <= step
        assert float((apart > 0).float().mean()) <= tolerances.KERNEL_TIES
