"""Conversion between pictures of the Python API and frames.

The only module above sources and sinks that knows ``av`` and PIL; it imports either only when it receives one of their
pictures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from vidnoise.color.convert import convert
from vidnoise.errors import FormatError, UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame, PixelFormat
from vidnoise.options import SourceOptions
from vidnoise.stills.names import KINDS, is_still

if TYPE_CHECKING:
    import av
    from PIL import Image

    from vidnoise.sources.picture import PictureReader

    Picture = TypeVar("Picture", np.ndarray, Tensor, av.VideoFrame, Image.Image, Frame)
else:
    Picture = TypeVar("Picture")

Order = Literal["rgb", "bgr"]
"""Order of the channels of arrays and tensors; other kinds of pictures state their own."""

ALLOWED = (
    "frames may be numpy arrays (H, W, 3) or (H, W) gray, torch tensors (3, H, W) (each uint8, uint16 or float32), "
    "PIL images, av.VideoFrames or vidnoise.Frames"
)

ALLOWED_IMAGES = (
    "an image may be a numpy array (H, W, 3) colour, (H, W, 4) colour with alpha, (H, W) gray or (H, W, 2) gray with "
    "alpha, a torch tensor (3, H, W) (each uint8, uint16 or float32, but gray with alpha not as float), a PIL image, "
    "an av.VideoFrame, a vidnoise.Frame or a path"
)

MOST = 8.0
"""Brightest sample of a float picture whose white is 1: highlights of HDR lie above 1, but not far."""

_PIL_MODES = ("RGB", "L", "I;16")
_PIL_IMAGE_MODES = (*_PIL_MODES, "I;16L", "I;16B", "RGBA", "LA")
"""Modes of single images, which may have alpha."""

_WITH_ALPHA = {2: ("ya8", "ya16le", "rgbaf32le"), 4: ("rgba", "rgba64le", "rgbaf32le")}
"""Names of packed formats with alpha, by number of channels, then by depth: 8 bits, 16 bits, float."""
_DEPTHS = {torch.uint8: 0, torch.uint16: 1, torch.float32: 2}

_SUFFIXES = {torch.uint8: ("24", "", ""), torch.uint16: ("48le", "16le", "16le"), torch.float32: ("f32le",) * 3}
"""Suffixes of the names of packed RGB, gray and planar RGB formats, by sample type."""

_FULL = ColorInfo(matrix=0, range=2)

ToPicture = Callable[[Frame], Any]


class PictureAdapter:
    """Converts supported pictures to frames, and denoised frames back to pictures of the same kind.

    Args:
        order: Order of the channels of arrays and tensors.

    Raises:
        UsageError: There is no such order.
    """

    def __init__(self, order: Order = "rgb") -> None:
        if order not in get_args(Order):
            raise UsageError(f"order must be {' or '.join(get_args(Order))}, got {order!r}", "order")
        self._order: Order = order
        self._n = 0
        self._reader: PictureReader | None = None

    def frame(self, picture: Any) -> tuple[Frame, ToPicture]:
        """Make a frame, over the memory of ``picture`` if possible, and a function for the way back.

        Raises:
            FormatError: The kind, sample type or shape is not supported.
        """
        index, self._n = self._n, self._n + 1
        if isinstance(picture, Frame):
            device = picture.planes[0].device
            return picture, lambda frame: frame.to(device)
        if isinstance(picture, np.ndarray):
            return _from_array(picture, index, self._order), lambda frame: _to_array(frame, picture.dtype)
        if isinstance(picture, Tensor):
            device = picture.device
            return _from_tensor(picture, index, self._order), lambda frame: _to_tensor(frame, device, self._order)
        pil = sys.modules.get("PIL.Image")
        if pil is not None and isinstance(picture, pil.Image):
            array = _pil_array(picture, _PIL_MODES)
            return _from_array(array, index, "rgb"), lambda frame: _to_pil(frame, picture)
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


def owned(frame: Frame) -> Frame:
    """Return ``frame`` with copies of its planes, which are only valid for a while after a download."""
    return replace(frame, planes=tuple(plane.clone() for plane in frame.planes))


def is_one_picture(frames: object) -> bool:
    """Whether ``frames`` is a single picture, which may be iterable as well: by rows."""
    if isinstance(frames, np.ndarray):
        # (N, H, W) is gray video, but nobody has gray video that is four pixels wide.
        return frames.ndim < 3 or (frames.ndim == 3 and frames.shape[2] <= 4)
    if isinstance(frames, Tensor):
        return frames.ndim <= 3
    return not hasattr(frames, "__iter__") and not hasattr(frames, "__getitem__")


def check_several(frames: object) -> None:
    """Reject a single picture where several are expected, as its rows would pass for gray frames.

    Raises:
        FormatError: ``frames`` is a single picture, the name of a file, or not iterable.
    """
    if isinstance(frames, (str, bytes, os.PathLike)):
        raise FormatError(f"got the {type(frames).__name__} {frames!r} for frames; denoise_file(src, dst) reads files")
    if is_one_picture(frames):
        shape = f" {tuple(frames.shape)}" if isinstance(frames, (np.ndarray, Tensor)) else ""
        raise FormatError(
            f"got one {type(frames).__name__}{shape} where a video is wanted, picture by picture; for one picture use "
            "denoise([frame]), or denoise_image(frame)"
        )


def _from_array(array: np.ndarray, index: int, order: Order) -> Frame:
    is_gray = array.ndim == 2
    is_rgb = array.ndim == 3 and array.shape[2] == 3
    if not (is_gray or is_rgb):
        raise FormatError(f"got a numpy array {array.shape} of {array.dtype}; {ALLOWED}")
    plane = _plane(array, index, ALLOWED)
    packed, gray, _ = _SUFFIXES[plane.dtype]
    return Frame((plane,), PIXEL_FORMATS[f"gray{gray}" if is_gray else f"{order}{packed}"], _FULL, index=index)


def _plane(array: np.ndarray, index: int, allowed: str) -> Tensor:
    native = array.dtype.newbyteorder("=")
    if native not in (np.uint8, np.uint16, np.float32):
        raise FormatError(f"got a numpy array {array.shape} of {array.dtype}; {allowed}")
    if array.size == 0:
        raise FormatError(f"got an empty numpy array {array.shape}")
    # Torch requires contiguous, writable memory, although nothing writes to it.
    plane = torch.from_numpy(np.require(array, dtype=native, requirements=["C", "W"]))
    _check_range(plane, index)
    return plane


def _to_array(frame: Frame, dtype: np.dtype) -> np.ndarray:
    return frame.planes[0].cpu().numpy().astype(dtype)


def image_frame(image: Any, order: Order = "rgb") -> tuple[Frame, ToPicture]:
    """Make a frame of a single picture, and a function for the way back, like :class:`PictureAdapter`.

    Args:
        image: A picture that :class:`PictureAdapter` takes; an array with alpha, ``(H, W, 4)`` or ``(H, W, 2)``; a PIL
            image with alpha; or the path of a picture file, whose way back is to an array.
        order: Order of the channels of arrays and tensors, but for alpha, which is the last one.

    Raises:
        FormatError: The kind, sample type or shape is not supported.
        SourceError: The file cannot be read, or is not a picture.
        UsageError: There is no such order.
    """
    adapter = PictureAdapter(order)
    if isinstance(image, (str, os.PathLike)):
        return _from_file(image, order)
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(image, pil.Image):
        array = _pil_array(image, _PIL_IMAGE_MODES)
        return _with_alpha(array, "rgb") or _from_array(array, 0, "rgb"), lambda frame: _to_pil(frame, image)
    if isinstance(image, np.ndarray):
        frame = _with_alpha(image, order)
        if frame is not None:
            return frame, lambda clean: _to_array(clean, image.dtype)
    try:
        return adapter.frame(image)
    except FormatError as ex:
        raise FormatError(str(ex).replace(ALLOWED, ALLOWED_IMAGES)) from ex


def _with_alpha(array: np.ndarray, order: Order) -> Frame | None:
    """Make a frame of an array with alpha; None if there is no alpha, or no such format."""
    if array.ndim != 3 or array.shape[2] not in _WITH_ALPHA:
        return None
    plane = _plane(array, 0, ALLOWED_IMAGES)
    format = _alpha_format(array.shape[2], _DEPTHS[plane.dtype], order)
    if len(format.layout[0]) != array.shape[2]:  # there is no format of gray with alpha in float
        return None
    return Frame((plane,), format, _FULL)


def _alpha_format(channels: int, depth: int, order: Order) -> PixelFormat:
    return PIXEL_FORMATS[_WITH_ALPHA[channels][depth].replace("rgb", order)]


def _from_file(path: str | os.PathLike[str], order: Order) -> tuple[Frame, ToPicture]:
    from vidnoise.sources.stills import StillsSource

    text = os.fspath(path)
    if not is_still(text):
        raise FormatError(f"{text}: a path must be that of one picture file ({', '.join(sorted(KINDS))})")
    with StillsSource(text, SourceOptions()) as source:
        (frame,) = source
    return frame, lambda clean: _as_array(clean, order)


def _as_array(frame: Frame, order: Order) -> np.ndarray:
    format = frame.format
    has_alpha = any("a" in names for names in format.layout)
    if format.family == "gray" and not has_alpha:
        return frame.planes[0].numpy().copy()
    depth = 2 if format.is_float else int(format.bit_depth > 8)
    if has_alpha:
        target = _alpha_format(2 if format.family == "gray" else 4, depth, order)
    else:
        target = PIXEL_FORMATS[f"{order}{list(_SUFFIXES.values())[depth][0]}"]
    return convert(frame, target, _FULL).planes[0].numpy()


def _from_tensor(tensor: Tensor, index: int, order: Order) -> Frame:
    if tensor.dtype not in _SUFFIXES or tensor.ndim != 3 or tensor.shape[0] != 3:
        raise FormatError(f"got a torch tensor {tuple(tensor.shape)} of {tensor.dtype}; {ALLOWED}")
    if tensor.numel() == 0:
        raise FormatError(f"got an empty torch tensor {tuple(tensor.shape)}")
    _check_range(tensor, index)
    red, green, blue = _reordered(tensor.detach(), order)
    return Frame((green, blue, red), PIXEL_FORMATS[f"gbrp{_SUFFIXES[tensor.dtype][2]}"], _FULL, index=index)


def _to_tensor(frame: Frame, device: torch.device, order: Order) -> Tensor:
    green, blue, red = frame.planes
    return torch.stack(_reordered((red, green, blue), order)).to(device)


def _reordered(channels: Iterable[Tensor], order: Order) -> tuple[Tensor, ...]:
    return tuple(channels)[:: -1 if order == "bgr" else 1]


def _check_range(samples: Tensor, index: int) -> None:
    """Check that the white of float samples is 1, on the first picture only.

    Raises:
        FormatError: The first picture is of floats, but its white is not 1.
    """
    if index or not samples.is_floating_point():
        return
    most = float(samples.detach().nan_to_num(nan=0, posinf=0, neginf=0).max())
    if most > MOST:
        raise FormatError(
            f"got float32 samples up to {most:g}, but float pictures have their white at 1: divide them by theirs "
            "(255 or 65535), or give uint8 or uint16 as it is"
        )


def _pil_array(image: Image.Image, modes: Sequence[str]) -> np.ndarray:
    """Return the samples of a PIL image.

    Raises:
        FormatError: The image is of none of the ``modes``.
    """
    if image.mode not in modes:
        has_alpha = image.mode in ("PA", "La", "RGBa") or "transparency" in image.info
        mode = "RGBA" if has_alpha and "RGBA" in modes else "RGB"
        raise FormatError(
            f"got a PIL image of mode {image.mode}, of which {', '.join(modes)} are supported; use "
            f'image.convert("{mode}"), or convert("L") for gray'
        )
    return np.asarray(image)


def _to_pil(frame: Frame, like: Image.Image) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(frame.planes[0].cpu().numpy().copy())  # some modes would share the memory
    image.info = dict(like.info)  # colour profile, Exif, resolution
    return image


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
