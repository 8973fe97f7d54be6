"""Storage of a picture in a file of some kind: sample format, encoder, and losses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import cast

import av
import av.error
from torch import Tensor

from vidnoise.color.colorimetry import resolve_color
from vidnoise.color.convert import convert
from vidnoise.errors import EncodeError, UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame, PixelFormat, StreamInfo
from vidnoise.frame.av_planes import plane_views
from vidnoise.opencv import cv2
from vidnoise.sinks.repack import canonical, components, is_lossless, repack

DEFAULT_QUALITY = 95
"""Default quality of JPEG and lossy WebP."""

_DEPTHS = {"bmp": (8,), "exr": (32,), "jpeg": (8,), "png": (8, 16), "tiff": (8, 16), "webp": (8,)}
"""Bits of a sample that a kind of file can have; 32 is float."""

_ENCODERS = {"bmp": "bmp", "exr": "exr", "jpeg": "libjpeg", "png": "png", "tiff": "tiff", "webp": "libwebp"}
_OPTIONS = {
    "exr": {"compression": "zip16"}, "png": {"pred": "mixed"}, "tiff": {"compression_algo": "deflate"},
}  # fmt: skip

_PACKED = {
    8: ("gray", "ya8", "rgb24", "rgba"), 16: ("gray16le", "ya16le", "rgb48le", "rgba64le"),
    32: ("grayf32le", "gbrapf32le", "gbrpf32le", "gbrapf32le"),
}  # fmt: skip
"""Formats by depth: gray, gray with alpha, RGB, RGB with alpha."""

_FULL = ColorInfo(matrix=0, range=2)
_JPEG = ColorInfo(matrix=5, range=2, chroma_location=2)
_WEBP = ColorInfo(matrix=5, range=1, chroma_location=2)

_LARGEST = {"jpeg": 65500, "webp": 16383}
"""Maximum width and height in pixels that the format or its encoder supports."""

_SAMPLING = {
    (0, 0): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, (1, 0): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    (1, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}  # fmt: skip
"""Formats by the base-2 logarithms of chroma subsampling, horizontal and vertical."""


@dataclass(frozen=True, slots=True)
class StillFormat:
    """Storage of pictures of one sample format in one kind of file."""

    kind: str
    encoder: str
    samples: PixelFormat
    """Format that frames are converted to."""
    color: ColorInfo
    is_lossless: bool
    """Whether this conversion only rearranges the samples."""
    quality: int | None = None
    """Quality of the encoder; None if it is lossless."""
    lost: list[str] = field(default_factory=list)
    """Descriptions of the properties of the samples that the file cannot hold."""

    def file_of(self, frame: Frame, threads: int = 0) -> bytes:
        """Encode a frame; returns the bytes of the file, without tags.

        Raises:
            EncodeError: The encoder rejects the picture.
        """
        if self.is_lossless:
            planes = repack(frame.planes, frame.format, self.samples)
        else:
            planes = convert(frame, self.samples, self.color).planes
        try:
            if self.kind == "jpeg":
                return self._jpeg(planes)
            return self._encoded(planes, frame.width, frame.height, threads)
        except (av.error.FFmpegError, cv2.error, ValueError) as ex:
            reason = getattr(ex, "strerror", None) or str(ex) or type(ex).__name__
            raise EncodeError(f"{self.kind.upper()} of {frame.width}x{frame.height}: {reason}") from ex

    def _jpeg(self, planes: tuple[Tensor, ...]) -> bytes:
        """Encode by libjpeg, whose scale of quality is the common one. It takes RGB only.

        Subsampled chroma is repeated before the conversion to RGB, so that libjpeg's averages restore it.
        """
        format = self.samples
        sampling = (format.log2_chroma_w, format.log2_chroma_h)
        if format.family == "yuv":
            height, width = planes[0].shape
            y, *chroma = planes
            full = [
                c.repeat_interleave(1 << sampling[0], 1).repeat_interleave(1 << sampling[1], 0)[:height, :width]
                for c in chroma
            ]
            frame = Frame((y, *full), PIXEL_FORMATS["yuv444p"], replace(self.color, chroma_location=0))
            planes = convert(frame, PIXEL_FORMATS["bgr24"], _FULL).planes
        options = [
            cv2.IMWRITE_JPEG_QUALITY, self.quality or DEFAULT_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING[sampling],
        ]  # fmt: skip
        return cv2.imencode(".jpg", planes[0].numpy(), options)[1].tobytes()

    def _encoded(self, planes: tuple[Tensor, ...], width: int, height: int, threads: int) -> bytes:
        picture = av.VideoFrame(width, height, self.samples.name)
        for view, plane in zip(plane_views(picture, self.samples), planes, strict=True):
            view.copy_(plane)
        context = cast(av.VideoCodecContext, av.CodecContext.create(self.encoder, "w"))
        names = [f.name for f in context.codec.video_formats or ()]
        name = self.samples.name
        if name not in names and name.endswith("le"):  # PNG has the other byte order
            name = name[:-2] + "be"
            picture = picture.reformat(format=name)
        context.width, context.height, context.pix_fmt = width, height, name
        context.time_base = Fraction(1)
        context.colorspace, context.color_range = self.color.matrix, self.color.range
        picture.colorspace, picture.color_range = self.color.matrix, self.color.range
        context.thread_count = threads
        context.options = dict(_OPTIONS.get(self.kind, {}))
        if self.kind == "webp":
            lossy = {"quality": str(self.quality)}
            context.options = lossy if self.quality is not None else {"lossless": "1", "quality": "75"}
        picture.pts = 0
        packets = [*context.encode(picture), *context.encode(None)]
        return b"".join(bytes(packet) for packet in packets)


def choose_still_format(
    kind: str, info: StreamInfo, *, quality: int | None = None, pix_fmt: str | None = None
) -> StillFormat:
    """Choose the storage of the pictures of an input.

    Args:
        kind: Kind of the file, see :data:`vidnoise.stills.names.KINDS`.
        info: The input.
        quality: Quality of JPEG and WebP, 1 to 100; None for :data:`DEFAULT_QUALITY`, except that WebP is lossless
            unless the input has subsampled chroma.
        pix_fmt: Pixel format that the user asked for, if any.

    Raises:
        UsageError: The kind of file does not support ``pix_fmt``.
        EncodeError: The picture is too large for it.
    """
    largest = _LARGEST.get(kind)
    if largest is not None and max(info.width, info.height) > largest:
        raise EncodeError(
            f"{info.width}x{info.height} is too large for {kind.upper()}, which ends at {largest} a side; use PNG"
        )
    source = canonical(info.format)
    depth = 32 if source.is_float else 8 if source.bit_depth <= 8 else 16
    most = max(_DEPTHS[kind])
    has_alpha = "a" in components(source)
    is_gray = source.family == "gray"
    lost: list[str] = []
    if depth > most:
        lost.append("float samples" if depth == 32 else "more than 8 bits")
    if has_alpha and kind == "jpeg":
        lost.append("transparency")
    held = min(d for d in _DEPTHS[kind] if d >= min(depth, most))
    names = _PACKED[held]
    samples = names[2 * (not is_gray) + has_alpha]
    color = _FULL
    is_subsampled = bool(source.log2_chroma_w or source.log2_chroma_h)
    is_lossy = kind == "jpeg" or (kind == "webp" and (quality is not None or is_subsampled))
    if kind == "bmp":
        samples = {"rgb24": "bgr24", "rgba": "bgra", "ya8": "bgra"}.get(samples, samples)
    elif kind == "jpeg":
        samples = "gray" if is_gray else _jpeg_samples(source)
        color = _JPEG if samples.startswith("yuv") else _FULL
    elif kind == "webp":
        samples = "bgra" if not is_lossy else "yuva420p" if has_alpha else "yuv420p"
        color = _FULL if not is_lossy else _WEBP
        if is_lossy and not is_gray and (source.log2_chroma_w, source.log2_chroma_h) < (1, 1):
            lost.append("chroma resolution")
    if pix_fmt is not None:
        samples = _asked(pix_fmt, kind, color)
        color = _JPEG if kind == "jpeg" and samples.startswith("yuv") else color if kind == "webp" else _FULL
        lost = [] if is_lossless(source, PIXEL_FORMATS[samples]) else [f"what {pix_fmt} has no room for"]
    target = PIXEL_FORMATS[samples]
    return StillFormat(
        kind, _ENCODERS[kind], target, color, is_lossless(source, target) and _is_alike(info, target, color),
        (quality or DEFAULT_QUALITY) if is_lossy else None, lost,
    )  # fmt: skip


def _asked(pix_fmt: str, kind: str, color: ColorInfo) -> str:
    name = pix_fmt.replace("yuvj", "yuv").removesuffix("be").removesuffix("le")
    if kind == "jpeg" and name in ("yuv444p", "rgb24"):
        return "bgr24"  # which libjpeg makes of it
    held = [n for depth in _DEPTHS[kind] for n in _PACKED[depth]]
    if kind == "jpeg":
        held = ["gray", "yuv420p", "yuv422p", "bgr24"]
    elif kind == "webp":
        held = ["bgra"] if color == _FULL else ["yuv420p", "yuva420p"]
    elif kind == "bmp":
        held = ["gray", "bgr24", "bgra"]
    found = [n for n in held if n.removesuffix("le") == name]
    if not found:
        raise UsageError(f"{kind.upper()} has no pix_fmt {pix_fmt} here; it has {', '.join(held)}", "pix_fmt")
    return found[0]


def _jpeg_samples(source: PixelFormat) -> str:
    """Return the name of the format whose chroma is as fine as that of the source, or finer."""
    if source.family == "yuv" and source.log2_chroma_w == 1:
        return "yuv420p" if source.log2_chroma_h else "yuv422p"
    return "bgr24"


def _is_alike(info: StreamInfo, target: PixelFormat, color: ColorInfo) -> bool:
    """Whether codes have the same meaning in the source and in the file."""
    source = resolve_color(info.color, info.format, info.height, info.width)
    if target.is_float or source.range != color.range:
        return target.is_float
    if target.family != "yuv":
        return True
    is_subsampled = bool(target.log2_chroma_w or target.log2_chroma_h)
    is_same_place = not is_subsampled or source.chroma_location == color.chroma_location
    return is_same_place and {5: 6}.get(source.matrix, source.matrix) == 6
