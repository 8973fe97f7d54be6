"""Codecs and streams that a container can hold, determined by trying libav's muxer in memory."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import av.codec.codec
import av.container
import av.error
import av.stream

from vidnoise.errors import FormatError, UsageError
from vidnoise.frame.passthrough import FORMAT_NAMES, CopiedStream
from vidnoise.sinks.audio import known_layout
from vidnoise.sinks.scheduling import preserve_scheduling
from vidnoise.sinks.stamps import Stamps, copy_of

logger = logging.getLogger(__name__)

_NEEDS_VIDEO = ("mxf", "gxf")
"""Muxers that cannot be tried without a video stream."""

_NEEDS_HEADERS = ("h264", "hevc")
"""Codecs whose parameter sets some muxers require, which a trial does not have."""

_OGG = {"video": frozenset({"theora", "vp8"}), "audio": frozenset({"vorbis", "opus", "flac", "speex"})}

_READABLE: dict[str, dict[str, frozenset[str]]] = {
    "mpegts": {
        "video": frozenset({"mpeg1video", "mpeg2video", "mpeg4", "h264", "hevc", "vvc"}),
        "audio": frozenset({"mp1", "mp2", "mp3", "aac", "aac_latm", "ac3", "eac3", "dts", "truehd", "opus", "s302m"}),
        "subtitle": frozenset({"dvb_subtitle", "dvb_teletext"}),
        "data": frozenset({"klv", "scte_35", "timed_id3"}),
    },
    "mpeg": {
        "video": frozenset({"mpeg1video", "mpeg2video", "h264"}),
        "audio": frozenset({"mp1", "mp2", "mp3", "ac3", "dts", "pcm_dvd"}),
        "subtitle": frozenset({"dvd_subtitle"}),
        "data": frozenset(),
    },
    # Ogg's muxer rejects other codecs, including H.264, only once it sees the encoder's header, when it is too late
    # to choose another.
    "ogg": _OGG,
    "ogv": _OGG,
}
"""Codecs that can be read back from these containers; their muxers accept any codec, as private data."""


def _is_no_video_file(probe: av.container.OutputContainer) -> bool:
    return probe.default_video_codec == "none" or probe.format.no_file or probe.format.name in ("mp3", "flac", "image2")


_CRASHING = ("avif",)
"""Muxers that crash the process when they are probed (FFmpeg 8)."""


def container_format(path: str) -> tuple[str, str]:
    """Return FFmpeg's name of the container for a file extension, and its default video codec.

    Raises:
        FormatError: The extension stands for none, or for one without video.
    """
    extension = os.path.splitext(path)[1]
    if extension.lower() == ".y4m":
        return "yuv4mpegpipe", "rawvideo"
    hint = "use .mp4, .mkv, .mov, .webm, .avi or .ts"
    if extension.lower().lstrip(".") in _CRASHING:
        raise FormatError(f"{path}: {extension} holds pictures, and cannot be written here; {hint}")
    if not extension:
        raise FormatError(f"{path}: has no extension that would tell the container; {hint}")
    try:
        # Nothing is created before the header is written.
        probe = av.open("probe" + extension.lower(), "w")
    except (ValueError, av.error.FFmpegError) as ex:
        raise FormatError(f"{path}: {extension} is no known video container; {hint}") from ex
    codec = probe.default_video_codec
    if codec == "wrapped_avframe" or _is_no_video_file(probe):
        raise FormatError(f"{path}: {extension} is no container for encoded video; {hint}")
    return probe.format.name, codec


_SELF_OPENING = {"rtsp": "h264", "hls": "h264", "v4l2": "rawvideo"}
"""Muxers that open their outputs themselves, and so cannot be tried, with their default codecs."""

_SELF_OPENING_HOLD = ("h264", "hevc")


def named_format(name: str, uri: str) -> tuple[str, str]:
    """Return FFmpeg's name of the container that users call ``name``, and its default video codec.

    Raises:
        UsageError: There is none of that name, or it holds no video.
    """
    if name in _SELF_OPENING:
        return name, _SELF_OPENING[name]
    if name in _CRASHING:
        raise UsageError(f"{uri}: format {name} cannot be written here; use y4m, mkv, ts or nut", "format")
    try:
        # Nothing is created before the header is written.
        probe = av.open(io.BytesIO(), "w", format=FORMAT_NAMES.get(name, name))
    except (ValueError, av.error.FFmpegError) as ex:
        raise UsageError(f"{uri}: unknown format {name!r}; use y4m, raw, mkv, ts, nut, mp4 ...", "format") from ex
    if _is_no_video_file(probe):
        raise UsageError(
            f"{uri}: format {name} holds no video that could be written here; use y4m, mkv, ts or nut", "format"
        )
    return probe.format.name, probe.default_video_codec


def _is_readable(container_format: str, kind: str, codec: str) -> bool:
    table = _READABLE.get(container_format)
    return table is None or codec in table.get(kind, ())


def _try(
    container_format: str,
    add: Callable[[av.container.OutputContainer], Any],
    *,
    header: bool,
    packet: av.Packet | None = None,
) -> str:
    """Try to mux a stream, and a packet up to the trailer; returns the reason for a refusal, or an empty string."""
    trial = av.open(io.BytesIO(), "w", format=container_format)
    try:
        stream = add(trial)
        if header:
            with preserve_scheduling():
                trial.start_encoding()
        if header and packet is not None:
            Stamps(trial, stream).rescale(packet)
            trial.mux_one(packet)
            trial.close()
    except (av.error.FFmpegError, ValueError, OSError) as ex:
        return str(ex) or type(ex).__name__
    finally:
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            trial.close()
    return ""


_ALPHA_LOST: dict[str, tuple[str, ...]] = {
    "libx265": ("yuva",), "libvpx": ("yuva",), "libvpx-vp9": ("yuva", "gbra"),
}  # fmt: skip
"""Encoders, and prefixes of pixel formats whose alpha channel they drop, or reject too late (tested)."""

_VP9_ALPHA = ("matroska", "webm")
"""Containers that can store the alpha channel of VP9, which is a stream of its own."""


def encoder_formats(encoder: av.codec.Codec, container_format: str) -> tuple[str, ...]:
    """Return the pixel formats whose samples ``encoder`` and the container preserve; empty if unknown."""
    lost = _ALPHA_LOST.get(encoder.name, ())
    names = [f.name for f in encoder.video_formats or ()]
    is_kept = encoder.name == "libvpx-vp9" and container_format in _VP9_ALPHA
    return tuple(n for n in names if not n.startswith(lost) or (is_kept and n == "yuva420p"))


def add_copy(container: av.container.OutputContainer, stream: CopiedStream) -> av.stream.Stream:
    """Add a stream to ``container`` for copies of the packets of ``stream``."""
    output = container.add_stream_from_template(stream.template, opaque=True)
    if isinstance(output, av.AudioStream):
        # Tape captures specify the number of channels but no layout, which the .mp4 muxer rejects when it writes its
        # trailer.
        output.codec_context.layout = known_layout(output.codec_context.layout)
    return output


def _sample(stream: CopiedStream) -> av.Packet | None:
    """Make up a packet for ``stream`` where that is possible (silence, for PCM); otherwise return None."""
    if not stream.codec.startswith("pcm_"):
        return None
    packet = av.Packet(bytes(24 * max(1, stream.template.codec_context.layout.nb_channels)))
    packet.pts = packet.dts = 0
    packet.duration, packet.time_base = 1, stream.template.time_base
    return packet


_NEEDS_SEVERAL_PACKETS = ("eac3", "truehd", "mlp")
"""Codecs whose first packet alone may not contain everything that a muxer needs."""


def refusal(container_format: str, stream: CopiedStream, packet: av.Packet) -> str:
    """Return why a container rejects the first packet of a stream, or its trailer after it; empty if it does not."""
    if container_format in _NEEDS_VIDEO or container_format in _SELF_OPENING or stream.codec in _NEEDS_SEVERAL_PACKETS:
        return ""
    return _try(container_format, lambda trial: add_copy(trial, stream), header=True, packet=copy_of(packet))


_HOLDS_COVERS = ("mp4", "ipod")
"""Containers in which FFmpeg stores a cover picture as such; in others it would become a video stream."""


def holds_copy(container_format: str, stream: CopiedStream) -> bool:
    """Whether packets of ``stream`` can be copied into a container and read back as what they are."""
    if stream.kind == "attachment":
        return container_format == "matroska" and stream.template is not None
    if stream.is_cover and container_format not in _HOLDS_COVERS:
        return False
    if stream.kind == "data" and stream.codec in ("none", "unknown"):  # would become an unknown track
        return False
    if stream.template is None or not _is_readable(container_format, stream.kind, stream.codec):
        return False
    if container_format in _SELF_OPENING:
        return stream.codec in ("aac", "mp3", "opus", "ac3") and not (
            container_format == "hls" and stream.codec == "opus"
        )
    error = _try(
        container_format,
        lambda trial: add_copy(trial, stream),
        header=container_format not in _NEEDS_VIDEO,
        packet=_sample(stream),
    )
    if error:
        logger.debug("%s cannot hold %s: %s", container_format, stream, error)
    return not error


def holds_video(container_format: str, encoder: av.codec.Codec) -> bool:
    """Whether a container can hold the output of ``encoder``."""
    name = encoder.canonical_name
    if container_format in _SELF_OPENING:
        return name in _SELF_OPENING_HOLD
    if not _is_readable(container_format, "video", name):
        return False

    def add(trial: av.container.OutputContainer) -> None:
        trial.add_mux_stream(name, rate=25, width=64, height=64, time_base=Fraction(1, 25))

    return not _try(container_format, add, header=name not in _NEEDS_HEADERS and container_format not in _NEEDS_VIDEO)
