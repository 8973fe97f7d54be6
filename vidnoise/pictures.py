"""Conversion between pictures of the Python API and frames.

The only module above sources and sinks that knows ``av``; it imports ``av`` only when it receives an ``av`` picture.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vidnoise.errors import FormatError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame

if TYPE_CHECKING:
    import av

    from vidnoise.sources.picture import PictureReader

ALLOWED = (
    "frames may be numpy arrays (H, W, 3) RGB or (H, W) gray, torch tensors (3, H, W) RGB "
    "(each uint8, uint16 or float32), av.VideoFrames or vidnoise.Frames"
)

_SUFFIXES = {torch.uint8: ("24", "", ""), torch.uint16: ("48le", "16le", "16le"), torch.float32: ("f32le",) * 3}
"""Suffixes of the names of packed RGB, gray and planar RGB formats, by sample type."""

_FULL = ColorInfo(matrix=0, range=2)

ToPicture = Callable[[Frame], Any]


class PictureAdapter:
    """Converts supported pictures to frames, and denoised frames back to pictures of the same kind."""

    def __init__(self) -> None:
        self._n = 0
        self._reader: PictureReader | None = None

    def frame(self, picture: Any) -> tuple[Frame, ToPicture]:
        """Make a frame, over the memory of ``picture`` if possible, and a function for the way back.

        Raises:
            FormatError: The kind, sample type or shape is not supported.
        """
        index, self._n = self._n, self._n + 1
        if isinstance(picture, Frame):
            return picture, _owned
        if isinstance(picture, np.ndarray):
            return _from_array(picture, index), lambda frame: _to_array(frame, picture.dtype)
        if isinstance(picture, Tensor):
            device = picture.device
            return _from_tensor(picture, index), lambda frame: _to_tensor(frame, device)
        av = sys.modules.get("av")  # an av picture implies that av is imported
        if av is not None and isinstance(picture, av.VideoFrame):
            return self._from_av(picture, index), lambda frame: _to_av(frame, picture)
        raise FormatError(f"got a {type(picture).__module__}.{type(picture).__qualname__}; {ALLOWED}")

    def _from_av(self, picture: av.VideoFrame, index: int) -> Frame:
        from vidnoise.sources.picture import PictureReader

        self._reader = self._reader or PictureReader("frame")
        format, planes = self._reader.read(picture)
        color = self._reader.color_of(picture, format, None)
        if picture.pts is None or not picture.time_base:
            return Frame(planes, format, color, index=index)
        return Frame(planes, format, color, pts=picture.pts, time_base=Fraction(picture.time_base), index=index)


def _from_array(array: np.ndarray, index: int) -> Frame:
    is_gray = array.ndim == 2
    is_rgb = array.ndim == 3 and array.shape[2] == 3
    native = array.dtype.newbyteorder("=")
    if native not in (np.uint8, np.uint16, np.float32) or not (is_gray or is_rgb):
        raise FormatError(f"got a numpy array {array.shape} of {array.dtype}; {ALLOWED}")
    if array.size == 0:
        raise FormatError(f"got an empty numpy array {array.shape}")
    # Torch requires contiguous, writable memory, although nothing writes to it.
    plane = torch.from_numpy(np.require(array, dtype=native, requirements=["C", "W"]))
    packed, gray, _ = _SUFFIXES[plane.dtype]
    return Frame((plane,), PIXEL_FORMATS[f"gray{gray}" if is_gray else f"rgb{packed}"], _FULL, index=index)


def _to_array(frame: Frame, dtype: np.dtype) -> np.ndarray:
    return frame.planes[0].cpu().numpy().astype(dtype)


def _from_tensor(tensor: Tensor, index: int) -> Frame:
    if tensor.dtype not in _SUFFIXES or tensor.ndim != 3 or tensor.shape[0] != 3:
        raise FormatError(f"got a torch tensor {tuple(tensor.shape)} of {tensor.dtype}; {ALLOWED}")
    if tensor.numel() == 0:
        raise FormatError(f"got an empty torch tensor {tuple(tensor.shape)}")
    red, green, blue = tensor.detach()
    return Frame((green, blue, red), PIXEL_FORMATS[f"gbrp{_SUFFIXES[tensor.dtype][2]}"], _FULL, index=index)


def _to_tensor(frame: Frame, device: torch.device) -> Tensor:
    green, blue, red = frame.planes
    return torch.stack((red, green, blue)).to(device)


def _owned(frame: Frame) -> Frame:
    """Return ``frame`` with copies of its planes, which are only valid for a while after a download."""
    return replace(frame, planes=tuple(plane.clone() for plane in frame.planes))


def _to_av(frame: Frame, like: av.VideoFrame) -> av.VideoFrame:
    import av

    from vidnoise.frame.av_planes import plane_views

    picture = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for view, plane in zip(plane_views(picture, frame.format), frame.planes, strict=True):
        view.copy_(plane)
    picture.colorspace, picture.color_range = like.colorspace, like.color_range
    if like.format.name != frame.format.name:
        picture = picture.reformat(format=like.format.name)  # back to the original order of samples
        picture.colorspace, picture.color_range = like.colorspace, like.color_range
    picture.color_primaries, picture.color_trc = like.color_primaries, like.color_trc
    picture.pts = like.pts
    if like.time_base is not None:
        picture.time_base = like.time_base
    if like.duration:
        picture.duration = like.duration
    return picture
