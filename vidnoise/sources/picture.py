"""Decoded pictures as tensors: without a copy if the pixel format is supported, losslessly repacked otherwise."""

from __future__ import annotations

import logging

import av
from torch import Tensor

from vidnoise.errors import FormatError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, PixelFormat
from vidnoise.frame.av_planes import plane_views
from vidnoise.notices import Notify
from vidnoise.sources.hardware import DevicePlanes, is_on_gpu, sample_format

logger = logging.getLogger(__name__)

# Formats that swscale converts to a supported one by moving samples only (or, for packed RGB below 8 bits
# and palettes, by widening them reversibly).
_REPACKED = {
    "yuyv422": "yuv422p", "uyvy422": "yuv422p", "yvyu422": "yuv422p", "uyyvyy411": "yuv411p",
    "nv42": "yuv444p", "nv20le": "yuv422p10le", "y210le": "yuv422p10le", "y212le": "yuv422p12le",
    "xv30le": "yuv444p10le", "xv36le": "yuv444p12le", "vuyx": "yuv444p", "vuya": "yuva444p", "ayuv": "yuva444p",
    "p012le": "yuv420p12le", "p212le": "yuv422p12le", "p216le": "yuv422p16le",
    "p412le": "yuv444p12le", "p416le": "yuv444p16le",
    "pal8": "rgba", "monow": "gray", "monob": "gray",
    "rgb4_byte": "rgb24", "bgr4_byte": "rgb24", "rgb8": "rgb24", "bgr8": "rgb24",
    "rgb444le": "rgb24", "bgr444le": "rgb24", "rgb555le": "rgb24", "bgr555le": "rgb24",
    "rgb565le": "rgb24", "bgr565le": "rgb24",
    "x2rgb10le": "gbrp10le", "x2bgr10le": "gbrp10le",
}  # fmt: skip


def target_format(name: str) -> PixelFormat | None:
    """Return the format in which pictures of FFmpeg's format ``name`` are processed, or None if there is none."""
    if name in PIXEL_FORMATS:
        return PIXEL_FORMATS[name]
    if name in _REPACKED:
        return PIXEL_FORMATS.get(_REPACKED[name])
    if name.endswith("be"):
        return target_format(name[:-2] + "le")
    return None


class PictureReader:
    """Converts the pictures of one stream to planes. Not thread-safe.

    Args:
        uri: The input's name in messages.
        notify: Called if the pixel format changes.
    """

    def __init__(self, uri: str, notify: Notify = logger.log) -> None:
        self._uri = uri
        self._notify = notify
        self._source_name: str | None = None
        self._format: PixelFormat | None = None
        self._color = ColorInfo()
        self.chroma_location = 0
        """The stream's chroma location, which PyAV's pictures do not contain."""
        self._on_gpu = DevicePlanes()

    def format_of(self, picture: av.VideoFrame) -> PixelFormat:
        """Return the format in which ``picture`` is processed.

        Raises:
            FormatError: There is no lossless conversion to a supported format.
        """
        name = sample_format(picture)
        if name != self._source_name or self._format is None:
            format = target_format(name)
            if format is None:
                raise FormatError(
                    f"{self._uri}: pixel format {name} cannot be processed without loss; convert it first, for example "
                    f"with: ffmpeg -i INPUT -pix_fmt yuv444p16le -c:v ffv1 OUTPUT.mkv"
                )
            if format.name != name:
                self._notify(
                    logging.INFO, "%s: pixel format %s is processed as %s (same samples)", self._uri, name, format.name
                )
            self._source_name, self._format = name, format
        return self._format

    def read(self, picture: av.VideoFrame) -> tuple[PixelFormat, tuple[Tensor, ...]]:
        """Return the format and the planes of ``picture``."""
        format = self.format_of(picture)
        if is_on_gpu(picture):
            if sample_format(picture) != format.name:
                raise FormatError(
                    f'{self._uri}: pixel format {sample_format(picture)} cannot stay on the GPU; use hwaccel="none"'
                )
            return format, self._on_gpu.read(picture, format, self._uri)
        if picture.format.name != format.name:
            # Range and matrix are unchanged: samples are only rearranged.
            picture = picture.reformat(format=format.name)
        return format, plane_views(picture, format)

    def color_of(self, picture: av.VideoFrame, format: PixelFormat, codec: str | None) -> ColorInfo:
        """Return the colour tags of ``picture``."""
        color = ColorInfo(
            matrix=int(picture.colorspace),
            range=2 if format.name.startswith("yuvj") else int(picture.color_range),
            primaries=int(picture.color_primaries),
            transfer=int(picture.color_trc),
            # These two codecs define it as the centre.
            chroma_location=self.chroma_location or (2 if codec in ("mjpeg", "mpeg1video") else 0),
        )
        if color != self._color:
            self._color = color
        return self._color
