"""Pictures as the users of the Python API have them, to frames and back.

The only place above sources and sinks that knows ``av``, and it imports it only when it is handed an ``av`` picture.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vidnoise.color.convert import convert
from vidnoise.errors import FormatError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.options import SourceOptions
from vidnoise.stills.names import KINDS, is_one_picture

if TYPE_CHECKING:
    import av

    from vidnoise.sources.picture import PictureReader

ALLOWED = (
    "frames may be numpy arrays (H, W, 3) RGB or (H, W) gray, torch tensors (3, H, W) RGB "
    "(each uint8, uint16 or float32), av.VideoFrames or vidnoise.Frames"
)

ALLOWED_IMAGES = (
    "an image may be a numpy array (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) gray or (H, W, 2) gray with alpha, a torch "
    "tensor (3, H, W) RGB (each uint8, uint16 or float32, but gray with alpha not as float), a PIL image, an "
    "av.VideoFrame, a vidnoise.Frame or a path"
)

_WITH_ALPHA = {2: ("ya8", "ya16le", "rgbaf32le"), 4: ("rgba", "rgba64le", "rgbaf32le")}
"""By channels, then by depth: 8 bits, 16 bits, float."""
_DEPTHS = {torch.uint8: 0, torch.uint16: 1, torch.float32: 2}
_PILLOW_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I;16L", "I;16B")

_SUFFIXES = {torch.uint8: ("24", "", ""), torch.uint16: ("48le", "16le", "16le"), torch.float32: ("f32le",) * 3}
"""By sample type: endings of the names of packed RGB, gray and planar RGB formats."""

_FULL = ColorInfo(matrix=0, range=2)

Restore = Callable[[Frame], Any]


class PictureAdapter:
    """Turns any supported picture into a frame, and gives back what turns the denoised frame into its like."""

    def __init__(self) -> None:
        self._n = 0
        self._reader: PictureReader | None = None

    def frame(self, picture: Any) -> tuple[Frame, Restore]:
        """A frame over the memory of ``picture`` where that is possible, and the way back.

        Raises:
            FormatError: It is of no supported kind, sample type or shape.
        """
        index, self._n = self._n, self._n + 1
        if isinstance(picture, Frame):
            return picture, _owned
        if isinstance(picture, np.ndarray):
            return _from_array(picture, index), lambda frame: _to_array(frame, picture.dtype)
        if isinstance(picture, Tensor):
            device = picture.device
            return _from_tensor(picture, index), lambda frame: _to_tensor(frame, device)
        av = sys.modules.get("av")  # nobody has an av picture without having imported av
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
    if not (is_gray or is_rgb):
        raise FormatError(f"got a numpy array {array.shape} of {array.dtype}; {ALLOWED}")
    plane = _plane(array, ALLOWED)
    packed, gray, _ = _SUFFIXES[plane.dtype]
    return Frame((plane,), PIXEL_FORMATS[f"gray{gray}" if is_gray else f"rgb{packed}"], _FULL, index=index)


def _plane(array: np.ndarray, allowed: str) -> Tensor:
    native = array.dtype.newbyteorder("=")
    if native not in (np.uint8, np.uint16, np.float32):
        raise FormatError(f"got a numpy array {array.shape} of {array.dtype}; {allowed}")
    if array.size == 0:
        raise FormatError(f"got an empty numpy array {array.shape}")
    # Torch wants memory that goes forward and may be written to, although nobody writes.
    return torch.from_numpy(np.require(array, dtype=native, requirements=["C", "W"]))


def _to_array(frame: Frame, dtype: np.dtype) -> np.ndarray:
    return frame.planes[0].cpu().numpy().astype(dtype)


def image_frame(image: Any) -> tuple[Frame, Restore]:
    """A frame of a single picture, and what turns the denoised frame into its like: as :class:`PictureAdapter`.

    Args:
        image: What that takes, an array with alpha ``(H, W, 4)`` or ``(H, W, 2)``, a ``PIL.Image.Image``, or the path
            of a picture file, whose like is an array.

    Raises:
        FormatError: It is of no supported kind, sample type or shape.
        SourceError: The file cannot be read, or is no picture.
    """
    if isinstance(image, (str, os.PathLike)):
        return _from_file(image)
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] in _WITH_ALPHA:
        plane = _plane(image, ALLOWED_IMAGES)
        format = PIXEL_FORMATS[_WITH_ALPHA[image.shape[2]][_DEPTHS[plane.dtype]]]
        if image.shape[2] == len(format.layout[0]):  # there is no format of gray with alpha in float
            return Frame((plane,), format, _FULL), lambda frame: _to_array(frame, image.dtype)
    pillow = sys.modules.get("PIL.Image")  # as with av
    if pillow is not None and isinstance(image, pillow.Image):
        return _from_pillow(image, pillow)
    try:
        return PictureAdapter().frame(image)
    except FormatError as ex:
        raise FormatError(str(ex).replace(ALLOWED, ALLOWED_IMAGES)) from ex


def _from_file(path: str | os.PathLike[str]) -> tuple[Frame, Restore]:
    from vidnoise.sources.stills import StillsSource

    text = os.fspath(path)
    if not is_one_picture(text):
        raise FormatError(f"{text}: a path must be that of one picture file ({', '.join(sorted(KINDS))})")
    with contextlib.closing(StillsSource(text, SourceOptions())) as source:
        (frame,) = source
    return frame, _as_array


def _as_array(frame: Frame) -> np.ndarray:
    format = frame.format
    has_alpha = any("a" in names for names in format.layout)
    if format.family == "gray" and not has_alpha:
        return frame.planes[0].numpy().copy()
    depth = 2 if format.is_float else int(format.bit_depth > 8)
    if has_alpha:
        name = _WITH_ALPHA[2 if format.family == "gray" else 4][depth]
    else:
        name = f"rgb{list(_SUFFIXES.values())[depth][0]}"
    return convert(frame, PIXEL_FORMATS[name], _FULL).planes[0].numpy()


def _from_pillow(image: Any, pillow: Any) -> tuple[Frame, Restore]:
    if image.mode not in _PILLOW_MODES:
        hint = "RGBA" if image.mode in ("PA", "La", "RGBa") or "transparency" in image.info else "RGB"
        raise FormatError(f'got a PIL image of mode {image.mode}; convert it first, with image.convert("{hint}")')
    array = np.array(image).astype(np.uint16 if image.mode.startswith("I;16") else np.uint8)
    frame, _ = image_frame(array)

    def restore(clean: Frame) -> Any:
        samples = _to_array(clean, array.dtype)
        restored = pillow.fromarray(samples)
        restored.info = dict(image.info)
        return restored

    return frame, restore


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
    """``frame`` with planes of its own: those that come out of a transfer are only lent."""
    return replace(frame, planes=tuple(plane.clone() for plane in frame.planes))


def _to_av(frame: Frame, like: av.VideoFrame) -> av.VideoFrame:
    import av

    from vidnoise.frame.av_planes import plane_views

    picture = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for view, plane in zip(plane_views(picture, frame.format), frame.planes, strict=True):
        view.copy_(plane)
    picture.colorspace, picture.color_range = like.colorspace, like.color_range
    if like.format.name != frame.format.name:
        picture = picture.reformat(format=like.format.name)  # back into its own order of samples
        picture.colorspace, picture.color_range = like.colorspace, like.color_range
    picture.color_primaries, picture.color_trc = like.color_primaries, like.color_trc
    picture.pts = like.pts
    if like.time_base is not None:
        picture.time_base = like.time_base
    if like.duration:
        picture.duration = like.duration
    return picture
