"""The description of an opened container: :class:`StreamInfo` of its video, and the streams that are copied."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import av.container
import av.error
import av.logging
import av.stream
from av.sidedata.sidedata import SideData

from vidnoise.frame import ColorInfo, FieldOrder, PixelFormat, StreamInfo
from vidnoise.frame.passthrough import CopiedStream, Passthrough

logger = logging.getLogger(__name__)

_IDENTITY = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def to_fraction(value: Any) -> Fraction | None:
    """Convert a rational of any PyAV version to a Fraction; None for unset and zero ones."""
    return Fraction(value.numerator, value.denominator) if value else None


def tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of a container's or stream's tags, with U+FFFD for bytes that are no UTF-8.

    PyAV replaces them by itself where it is asked to, and since version 19 has lone surrogates for them.
    """
    return {key: value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for key, value in metadata.items()}


_ELEMENTARY = ("h264", "hevc", "vvc", "evc", "cavsvideo", "m4v", "vc1", "mpegvideo", "av1", "obu")
"""Elementary streams, which have no timestamps; their headers give at most a rate."""

_DURATION_IS_END = ("matroska", "nut")
"""Containers whose headers give the time of the end, from zero, rather than the length."""

_HEADER_KNOWS_DURATION = ("matroska", "mp4", "avi", "flv", "asf", "nut", "ogg")

_DEFAULT_RATE = 25
"""Rate that FFmpeg assumes for elementary streams."""


def frame_rate(video: av.VideoStream) -> Fraction | None:
    """Return frames per second from the header or the first packets, or None if unknown."""
    average, guessed = to_fraction(video.average_rate), to_fraction(video.guessed_rate)
    own = to_fraction(video.codec_context.framerate) if video.codec_context is not None else None
    if own and average == _DEFAULT_RATE and video.container.format.name in _ELEMENTARY:
        return own
    if average and guessed and average > 2 * guessed:
        return guessed  # an average above the tick rate is wrong: some demuxers (DV) give each frame one tick
    return average or guessed


def total_seconds(container: av.container.InputContainer, video: av.VideoStream) -> Fraction | None:
    """Return the length of the video according to the header: the stream's own, or else the longest stream's."""
    if video.duration:
        return video.duration * (to_fraction(video.time_base) or Fraction(0))
    total = Fraction(container.duration, av.time_base) if container.duration else None
    tag = re.fullmatch(r"(\d{1,9}):(\d\d):(\d\d(?:\.\d{1,18})?)", video.metadata.get("DURATION", "").strip())
    if tag:
        total = int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3])
    if total is not None and any(name in container.format.name for name in _DURATION_IS_END):
        total -= Fraction(max(container.start_time or 0, 0), av.time_base)
    return total if total is None or total > 0 else None


def missing_seconds(container_format: str, total: Fraction, read: Fraction, frame: Fraction) -> float:
    """Return by how many seconds an input is shorter than its header says; 0 for a plausible difference.

    Args:
        container_format: FFmpeg's name of the container.
        total: Length according to the header, in seconds.
        read: End of the last packet, in seconds.
        frame: Duration of a frame, in seconds.
    """
    if not any(name in container_format for name in _HEADER_KNOWS_DURATION):
        return 0.0
    missing = float(total - read)
    if "flv" in container_format:  # its header counts from the first decoding time
        missing -= 4 * float(frame)
    return missing if missing > max(0.1, 0.01 * float(total)) else 0.0


def main_video(streams: Sequence[av.stream.Stream]) -> av.VideoStream | None:
    """Return the stream to denoise: among videos other than cover pictures, the default one, or else the first."""
    videos = [
        s for s in streams if isinstance(s, av.VideoStream) and not s.disposition & av.stream.Disposition.attached_pic
    ]
    marked = [s for s in videos if s.disposition & av.stream.Disposition.default]
    return (marked or videos or [None])[0]


def copied_streams(
    container: av.container.InputContainer,
    streams: Sequence[av.stream.Stream],
    video: av.VideoStream,
    details: str,
) -> tuple[CopiedStream, ...]:
    """Describe the ``streams`` of ``container`` other than ``video``.

    Templates live in a container of their own that is never written, so that they stay valid when the source is closed
    (a stream of a closed container points to freed memory).

    Args:
        container: The input.
        streams: The streams to describe.
        video: The stream to leave out.
        details: As :func:`libav_description` returns it.
    """
    template_container = av.open("templates", "w", format="null")
    chapters = _chapter_tracks(container, details)
    found = []
    for stream in streams:
        if stream.index == video.index or stream.index in chapters:
            continue
        name = stream.codec_context.name if stream.codec_context is not None else getattr(stream, "name", None)
        if stream.codec_context is not None:
            name = stream.codec_context.codec.canonical_name
        elif stream.type == "attachment":
            name = stream.metadata.get("filename") or stream.metadata.get("mimetype")
        try:
            template = template_container.add_stream_from_template(stream, opaque=True)
        except (ValueError, av.error.FFmpegError) as ex:
            logger.debug("no template for stream #%d: %s", stream.index, ex)
            template = None
        found.append(
            CopiedStream(
                index=stream.index,
                kind=stream.type,
                codec=name or "unknown",
                template=template,
                metadata=tags(stream.metadata),
                disposition=stream.disposition.value,
                is_cover=bool(stream.disposition & av.stream.Disposition.attached_pic),
            )
        )
    return tuple(found)


def side_data(picture: av.VideoFrame) -> Iterator[SideData]:
    """Iterate over the side data of a picture."""
    # Whether iterating gives keys or values depends on PyAV's version; numbers are the same in all. Past the last one
    # there is an IndexError, but len() may count kinds rather than items.
    found: Any = picture.side_data
    with contextlib.suppress(IndexError):
        for i in itertools.count():
            yield found[i]  # type: ignore[literal-required]


def display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """Return the nine elements of a picture's display matrix, or None if it is missing or the identity."""
    for item in side_data(picture):
        if item.type.name == "DISPLAYMATRIX":
            matrix = struct.unpack("=9i", bytes(item)[:36])
            return None if matrix == _IDENTITY else matrix
    return None


def hdr_metadata(picture: av.VideoFrame) -> dict[str, Any]:
    """Return the static HDR10 metadata of a picture as plain numbers; empty if it has none.

    ``mastering_display``: x and y of red, green, blue and white, then minimum and maximum luminance in cd/m².
    ``content_light``: MaxCLL and MaxFALL in cd/m².
    """
    found: dict[str, Any] = {}
    for item in side_data(picture):
        data = bytes(item)
        if item.type.name == "MASTERING_DISPLAY_METADATA" and len(data) >= 88:
            numbers = struct.unpack("=20i2i", data[:88])
            pairs = [numbers[i : i + 2] for i in range(0, 20, 2)]
            if numbers[20] and numbers[21] and all(d for _, d in pairs):
                found["mastering_display"] = tuple(Fraction(n, d) for n, d in pairs)
        elif item.type.name == "CONTENT_LIGHT_LEVEL" and len(data) >= 8:
            found["content_light"] = struct.unpack("=2I", data[:8])
    return found


_CHROMA_LOCATIONS = {"left": 1, "center": 2, "topleft": 3, "top": 4, "bottomleft": 5, "bottom": 6}


def libav_description(container: av.container.InputContainer) -> str:
    """Return libav's verbose description of an input, which contains details that PyAV does not expose.

    ``Stream #0:0: Video: hevc (Main 10), yuv420p10le(tv, bt2020nc/bt2020/smpte2084, progressive, topleft), ...``

    Call this only before anything is decoded: decoder threads that log meanwhile wait for the GIL, and PyAV holds the
    GIL while it waits for them when it frees a decoder, which is a deadlock.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.VERBOSE)
    av.logging.set_libav_level(av.logging.VERBOSE)
    try:
        return container.dumps_format()  # type: ignore[attr-defined]
    finally:
        av.logging.set_libav_level(av.logging.INFO)  # libav's own default
        av.logging.set_level(level)


def chroma_location(text: str, video: av.VideoStream) -> int:
    """Return the :attr:`ColorInfo.chroma_location` of ``video`` from the text of :func:`libav_description`."""
    found = re.search(rf"Stream #\d+:{video.index}\b[^\n]*?: Video: [^\n]*?{video.format.name}\(([^)]*)\)", text)
    words = [] if found is None else re.split(r"[,\s]+", found[1])
    return next((_CHROMA_LOCATIONS[word] for word in words if word in _CHROMA_LOCATIONS), 0)


def _chapter_tracks(container: av.container.InputContainer, details: str) -> set[int]:
    """Return the indices of tracks that hold titles of chapters (MP4 family), which are copied as chapters."""
    if not container.chapters() or "mp4" not in container.format.name:
        return set()
    found = re.findall(r"Stream #\d+:(\d+)[^\n]*?: Data: bin_data \(text /", details)
    return {int(index) for index in found}


def describe(
    container: av.container.InputContainer,
    video: av.VideoStream,
    first: av.VideoFrame,
    format: PixelFormat,
    color: ColorInfo,
    *,
    uri: str,
    others: tuple[CopiedStream, ...],
    chapters: tuple[dict[str, Any], ...],
    trimmed_seconds: float | None,
    is_trimmed: bool,
    field_order: FieldOrder | None,
    is_live: bool,
) -> StreamInfo:
    """Describe the input, as known before the first frame is handed out."""
    time_base = to_fraction(video.time_base) or Fraction(1, 90000)
    total = total_seconds(container, video)
    passthrough = Passthrough(
        uri=uri,
        container=container.format.name,
        streams=others,
        metadata=tags(container.metadata),
        video_metadata=tags(video.metadata),
        video_disposition=video.disposition.value,
        chapters=tuple({**chapter, "metadata": tags(chapter["metadata"])} for chapter in chapters),
        display_matrix=display_matrix(first),
        hdr=hdr_metadata(first),
    )
    return StreamInfo(
        width=first.width,
        height=first.height,
        format=format,
        time_base=time_base,
        rate=frame_rate(video),
        color=color,
        sample_aspect_ratio=to_fraction(video.sample_aspect_ratio),
        rotation=round(first.rotation) % 360,
        field_order=field_order,
        n_frames=(video.frames or None) if not is_trimmed else None,
        duration_seconds=trimmed_seconds if is_trimmed else None if total is None else float(total),
        is_live=is_live,
        codec=video.codec_context.codec.canonical_name,
        bit_rate=video.codec_context.bit_rate or container.bit_rate or None,
        passthrough=passthrough,
    )


def describe_part(
    info: StreamInfo, first: av.VideoFrame, format: PixelFormat, color: ColorInfo, aspect: Fraction | None
) -> StreamInfo:
    """Describe the part of a video that begins with the picture ``first``, of another size.

    Args:
        info: Description of the part before.
        first: First picture of the new part.
        format: Pixel format of ``first``.
        color: Colour tags of ``first``.
        aspect: Sample aspect ratio of ``first``.
    """
    copies = replace(info.passthrough, display_matrix=display_matrix(first), hdr=hdr_metadata(first), chapters=())
    return replace(
        info, width=first.width, height=first.height, format=format, n_frames=None, duration_seconds=None,
        color=color, rotation=round(first.rotation) % 360, sample_aspect_ratio=aspect, passthrough=copies,
    )  # fmt: skip
