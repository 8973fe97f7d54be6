"""Conversion of frames to the network's input, and of its output back to their samples.

Done by :mod:`vidnoise.color`, or in one pass by :mod:`vidnoise.kernels` where there are kernels for the frame; the
results agree up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from vidnoise.color import apply_correction, to_rgb
from vidnoise.frame import Frame
from vidnoise.kernels import enabled, native_planes, takes
from vidnoise.kernels.library import kernels_in_use


class _Kernels(NamedTuple):
    """Functions in place of those of :mod:`vidnoise.color`."""

    to_rgb: Callable[..., Tensor]
    apply_correction: Callable[..., Frame]


def _kernels(frame: Frame) -> _Kernels | None:
    """Return the kernels for a frame, if there are any."""
    device = frame.planes[0].device
    if not takes(frame):
        return None
    if enabled(device):
        from vidnoise.kernels import planes_in, planes_out

        return _Kernels(planes_in.to_rgb, planes_out.apply_correction)
    library = kernels_in_use() if device.type == "cpu" else None
    if library is None:
        return None
    return _Kernels(partial(native_planes.to_rgb, library), partial(native_planes.apply_correction, library))


def extended(rgb: Tensor, multiple: int) -> Tensor:
    """Pad at the right and bottom to a multiple, by reflection; pictures too small for that repeat their border."""
    height, width = rgb.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return rgb
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(rgb, [0, right, 0, bottom], mode=mode)


def to_network(frame: Frame, multiple: int, out: Tensor | None = None) -> Tensor:
    """Convert a frame to the network's input.

    Args:
        frame: A frame of any format.
        multiple: Height and width are padded to multiples of this.
        out: Memory of the right size, which may be used for the result.

    Returns:
        ``(1, 3, H, W)`` float32 RGB, centred, see :func:`vidnoise.color.to_rgb`, without NaN and infinities.
    """
    if kernels := _kernels(frame):
        return kernels.to_rgb(frame, multiple, rgb=out)
    rgb = to_rgb(frame, centred=True)
    if frame.format.is_float:  # a NaN stays one in the output, but must not spread through the state
        rgb = rgb.nan_to_num(nan=0, posinf=1, neginf=0)
    return extended(rgb, multiple)


def from_network(frame: Frame, clean: Tensor, noisy: Tensor, strength: float) -> Frame:
    """Return ``frame`` with ``(clean - noisy) * strength`` added to its samples.

    Args:
        frame: The noisy frame.
        clean, noisy: ``(1, 3, H, W)``, padded as by :func:`to_network`.
        strength: Factor on the correction; 0 leaves the samples identical, bit for bit.
    """
    if kernels := _kernels(frame):
        return kernels.apply_correction(frame, clean, noisy, strength)
    return apply_correction(frame, difference(frame, clean, noisy, strength), centred=True)


def difference(frame: Frame, clean: Tensor, noisy: Tensor, strength: float) -> Tensor:
    """Return the correction alone, ``(1, 3, H, W)`` in the frame's own size; see :func:`from_network`."""
    return (clean - noisy)[..., : frame.height, : frame.width] * strength


def add_correction(frame: Frame, correction: Tensor) -> Frame:
    """Return ``frame`` with a correction of the same size added to its samples."""
    if kernels := _kernels(frame):
        return kernels.apply_correction(frame, correction)
    return apply_correction(frame, correction, centred=True)
