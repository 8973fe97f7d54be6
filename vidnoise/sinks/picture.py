"""Conversion of frames into pictures for an encoder, in a pixel format that it accepts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import av
import av.codec.codec
import av.error
import av.filter

from vidnoise.errors import FormatError, UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame, PixelFormat, StreamInfo
from vidnoise.frame.av_planes import plane_views
from vidnoise.sinks.codecs import takes_size
from vidnoise.sinks.interlacing import FieldMarker
from vidnoise.sinks.repack import canonical, components, is_lossless, lossless_target, repack

logger = logging.getLogger(__name__)

PALETTE = "pal8"
"""Pixel format with a palette of 256 colours for each picture."""

_DEVICE_FORMATS = ("cuda", "vaapi", "qsv", "d3d11", "d3d12", "vulkan", "videotoolbox", "mediacodec", "drm_prime", "amf")


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """The pixel format to encode in, and whether it holds the source's samples unchanged."""

    name: str
    is_lossless: bool
    loss: str = ""
    """Description of what is lost, for messages."""


def choose_format(info: StreamInfo, codec: av.codec.Codec, allowed: Sequence[str]) -> FormatChoice | None:
    """Choose the pixel format closest to the source's.

    Args:
        info: The video.
        codec: The encoder.
        allowed: Formats to choose from; empty if unknown.

    Returns:
        The format, or None if the encoder supports none of them at this size.
    """
    if not allowed:  # unknown: opening the encoder will tell whether it supports the source's format
        return FormatChoice(canonical(info.format).name, True)

    def fits(name: str) -> bool:
        format = PIXEL_FORMATS.get(name)
        return format is None or takes_size(codec, format, info.width, info.height)

    names = [n for n in allowed if not n.startswith(_DEVICE_FORMATS) and fits(n)]
    if not names:
        return None
    target = lossless_target(info.format, names)
    if target is not None:
        return FormatChoice(target.name, True)
    known = [PIXEL_FORMATS[n] for n in names if n in PIXEL_FORMATS]
    known = [f for f in known if not f.name.startswith("yuvj")] or known  # the same formats exist under a modern name
    others = [n for n in names if n not in PIXEL_FORMATS]
    if not known or (others and info.format.family != "gray" and all(f.family == "gray" for f in known)):
        if PALETTE in others:
            return FormatChoice(PALETTE, False, "all but 256 colours of a picture")
        return FormatChoice(others[0], False, "colours")
    best = min(known, key=lambda target: [weight for weight, _ in _losses(info.format, target)])
    words = [text for weight, text in _losses(info.format, best) if weight > 0 and text]
    return FormatChoice(best.name, False, " and ".join(words) or "nothing but rounding")


def playable_format(info: StreamInfo, allowed: Sequence[str], codec: av.codec.Codec) -> FormatChoice | None:
    """Choose 4:2:0 for an RGB source in a file meant for players, most of which support nothing else.

    Returns:
        The format, or None if the source is not RGB or the encoder does not support 4:2:0 at this size.
    """
    name = "yuv420p" if info.format.bit_depth <= 8 or "yuv420p10le" not in allowed else "yuv420p10le"
    if info.format.family != "rgb" or name not in allowed:
        return None
    if not takes_size(codec, PIXEL_FORMATS[name], info.width, info.height):
        return None
    return FormatChoice(name, False, "chroma resolution and the colour model, as most players show nothing else")


def _losses(source: PixelFormat, target: PixelFormat) -> list[tuple[int, str]]:
    """List what converting ``source`` to ``target`` loses, worst first, as an amount and a description."""
    source, target = canonical(source), canonical(target)
    return [
        (int(target.family == "gray" != source.family), "all colour"),
        (int("a" in components(source) - components(target)), "transparency"),
        (_added_subsampling(source, target), "chroma resolution"),
        (max(source.bit_depth - target.bit_depth, 0), "bit depth"),
        (int(source.family != target.family), "the colour model"),
        # Not losses, but tie-breakers: prefer nothing larger than needed.
        (abs(_subsampling(target) - _subsampling(source)), ""),
        (abs(target.bit_depth - source.bit_depth), ""),
        (int("a" in components(target) - components(source)), ""),
    ]


def _subsampling(format: PixelFormat) -> int:
    return format.log2_chroma_w + format.log2_chroma_h


def _added_subsampling(source: PixelFormat, target: PixelFormat) -> int:
    across = max(target.log2_chroma_w - source.log2_chroma_w, 0)
    return across + max(target.log2_chroma_h - source.log2_chroma_h, 0)


def check_pix_fmt(name: str) -> None:
    try:
        av.VideoFormat(name)
    except (ValueError, av.error.FFmpegError) as ex:
        raise UsageError(
            f"unknown pixel format {name!r}; yuv420p, yuv420p10le and yuv444p are common ones", "pix_fmt"
        ) from ex


def forced_format(
    info: StreamInfo, encoder: av.codec.Codec, name: str, allowed: Sequence[str], holder: str
) -> FormatChoice | None:
    """Return the pixel format that the user asked for.

    Args:
        info: The video.
        encoder: The encoder.
        name: FFmpeg's name of the format.
        allowed: Supported formats; empty if unknown.
        holder: Name of the encoder or container that restricts the format, for messages.

    Returns:
        The format, or None if the encoder does not support it at this size.

    Raises:
        UsageError: The format is not among those ``allowed``.
    """
    if allowed and name not in allowed:
        raise UsageError(f"{holder} does not take pix_fmt {name}; it takes {', '.join(allowed)}", "pix_fmt")
    target = PIXEL_FORMATS.get(name)
    if target is not None and not takes_size(encoder, target, info.width, info.height):
        return None
    if target is not None and is_lossless(info.format, target):
        return FormatChoice(name, True)
    return FormatChoice(name, False, "what that format has no room for")


def output_color(info: StreamInfo, target_name: str) -> ColorInfo:
    """Return the colour tags of the output: the source's, unless its colour model changes."""
    target = PIXEL_FORMATS.get(target_name)
    source = canonical(info.format)
    color = replace(info.color, range=2) if info.format.name.startswith("yuvj") else info.color
    if target is None or not (target.log2_chroma_w or target.log2_chroma_h):
        color = replace(color, chroma_location=0)
    if target is not None and target.name.startswith("yuvj"):
        color = replace(color, range=2)
    if target is None or target.family == source.family or source.family == "gray":
        return color
    if target.family == "rgb":
        return replace(color, matrix=0, range=2)
    from vidnoise.color.colorimetry import (
        resolve_color,  # imported late: rarely needed
    )

    resolved = resolve_color(ColorInfo(range=1), target, info.height, info.width)
    # Codes 5 and 6 both mean BT.601, but ProRes supports only 6.
    return replace(color, matrix=6 if resolved.matrix == 5 else resolved.matrix, range=1)


class PaletteConverter:
    """Converts pictures of one size and format to :data:`PALETTE`. Not thread-safe.

    Args:
        first: A picture of that size and format.
    """

    def __init__(self, first: av.VideoFrame) -> None:
        self._graph = av.filter.Graph()
        begin = self._graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=Fraction(1, 25)
        )
        split, end = self._graph.add("split"), self._graph.add("buffersink")
        make = self._graph.add("palettegen", "stats_mode=single:reserve_transparent=1")
        use = self._graph.add("paletteuse", "new=1:dither=none")
        begin.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(make, 1, 0)
        make.link_to(use, 0, 1)
        use.link_to(end)
        self._graph.configure()
        self._n = 0

    def convert(self, picture: av.VideoFrame) -> av.VideoFrame:
        picture.pts, picture.time_base = self._n, Fraction(1, 25)
        self._n += 1
        self._graph.push(picture)
        return cast(av.VideoFrame, self._graph.pull())


def _copy_of(picture: av.VideoFrame) -> av.VideoFrame:
    """Copy a picture and its side data: another output, or the decoder, may still need the original."""
    graph = av.filter.Graph()
    begin = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 25)
    )
    end = graph.add("buffersink")
    begin.link_to(end)
    graph.configure()
    graph.push(picture)
    return cast(av.VideoFrame, graph.pull())


class PictureWriter:
    """Makes the pictures of one stream. Not thread-safe.

    The samples are copied once: encoders with frame threads keep a picture for longer than the frame's planes are
    valid (they may be slots of a ring), and libav requires its own alignment and padding.

    Args:
        info: The video.
        choice: The pixel format of the pictures.
        writes_captions: Whether the encoder writes closed captions attached to pictures.
    """

    def __init__(self, info: StreamInfo, choice: FormatChoice, *, writes_captions: bool = False) -> None:
        self._info = info
        self._writes_captions = writes_captions
        self._has_lost_captions = False
        self._choice = choice
        self._format: PixelFormat = canonical(info.format)
        if choice.is_lossless and choice.name in PIXEL_FORMATS:
            self._format = PIXEL_FORMATS[choice.name]
        self.color = output_color(info, choice.name)
        order = info.field_order
        self._palette: PaletteConverter | None = None
        self._fields = FieldMarker(order, info.width, info.height, choice.name) if order else None
        self._last_color = info.color

    def picture(self, frame: Frame) -> av.VideoFrame:
        """Return ``frame`` as a picture in the chosen format, without a timestamp.

        Raises:
            FormatError: The frame differs in size or pixel format from the output.
        """
        info = self._info
        if (frame.height, frame.width) != (info.height, info.width) or frame.format != info.format:
            raise FormatError(
                f"frame {frame.index} is {frame.width}x{frame.height} {frame.format.name}, but the output was begun "
                f"with {info.width}x{info.height} {info.format.name}"
            )
        if frame.color != self._last_color:
            self._report_color_change(frame)
        planes = repack(frame.planes, frame.format, self._format)
        picture = self._new_picture(frame)
        for view, plane in zip(plane_views(picture, self._format), planes, strict=True):
            view.copy_(plane)
        if not self._choice.is_lossless and self._format.name != self._choice.name:
            picture = self._convert(picture) if self._fields is None else self._convert_fields(picture)
        # Most encoders read the tags from their context, ProRes from the picture.
        color = self.color
        picture.colorspace, picture.color_range = color.matrix, color.range
        picture.color_primaries, picture.color_trc = color.primaries, color.transfer
        return picture if self._fields is None else self._fields.mark(picture)

    def _report_color_change(self, frame: Frame) -> None:
        """Warn that the colour tags change: broadcasts do so, but an output has one set of tags."""
        was, now, first = self._last_color, frame.color, self._info.color
        self._last_color = now
        for name in ("matrix", "range", "primaries", "transfer"):
            if getattr(now, name) != getattr(was, name):
                logger.warning(
                    "at %.3f s the input's colour %s changes from %d to %d (H.273); the output goes on saying %d",
                    float(frame.seconds or 0), name, getattr(was, name), getattr(now, name),
                    getattr(first, name),
                )  # fmt: skip

    def _new_picture(self, frame: Frame) -> av.VideoFrame:
        """Return an empty picture; it has the captions of ``frame``, if the encoder writes them."""
        info, source = self._info, frame.side_data
        if isinstance(source, av.VideoFrame):
            is_alike = (source.width, source.height, source.format.name) == (info.width, info.height, self._format.name)
            if self._writes_captions and is_alike and self._format.name == self._choice.name:
                picture = _copy_of(source)
                picture.make_writable()
                picture.pict_type = 0  # otherwise the encoder copies the picture type of the source
                return picture
            if not self._has_lost_captions:
                self._has_lost_captions = True
                logger.warning("the closed captions inside the pictures are not carried over (frame %d)", frame.index)
        return av.VideoFrame(info.width, info.height, self._format.name)

    def _convert_fields(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Convert an interlaced picture, without averaging lines of different fields."""
        target = PIXEL_FORMATS.get(self._choice.name)
        if target is None or picture.height % (2 << max(target.log2_chroma_h, self._format.log2_chroma_h)):
            return self._convert(picture)
        woven = av.VideoFrame(picture.width, picture.height, target.name)
        for parity in (0, 1):
            field = av.VideoFrame(picture.width, picture.height // 2, self._format.name)
            for lines, plane in zip(*(plane_views(p, self._format) for p in (field, picture)), strict=True):
                lines.copy_(plane[parity::2])
            for plane, lines in zip(*(plane_views(p, target) for p in (woven, self._convert(field))), strict=True):
                plane[parity::2].copy_(lines)
        return woven

    def _convert(self, picture: av.VideoFrame) -> av.VideoFrame:
        if self._choice.name == PALETTE:
            self._palette = self._palette or PaletteConverter(picture)
            return self._palette.convert(picture)
        from vidnoise.color.colorimetry import resolve_color

        info = self._info
        source = resolve_color(info.color, self._format, info.height, info.width)
        # swscale's codes: RGB has no matrix (the other side's counts), and 5 stands for both BT.601 codes.
        matrices = [m for m in (source.matrix, self.color.matrix) if m not in (0, 2)] or [1]
        matrices = [5 if m == 6 else m for m in matrices]
        return picture.reformat(
            format=self._choice.name,
            src_colorspace=matrices[0],
            dst_colorspace=matrices[-1],
            src_color_range=source.range,
            dst_color_range=self.color.range or source.range,
        )
