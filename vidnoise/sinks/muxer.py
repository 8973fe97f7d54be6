"""Options of FFmpeg's muxers, for outputs that are read while they are written, and for .mp4 files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from vidnoise.errors import UsageError
from vidnoise.frame import StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.sinks.uncompressed import muxer_options as uncompressed_options

GROWING: dict[str, dict[str, str]] = {
    "matroska": {"cluster_time_limit": "500"},
    "mpegts": {}, "nut": {}, "flv": {}, "yuv4mpegpipe": {}, "rawvideo": {},
    "mp4": {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"},
    "mov": {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"},
}  # fmt: skip
"""Containers that can be read while they are written, with the muxer options that this requires."""

MOVIES = ("mp4", "mov", "ipod")
"""Containers with an index, which may be at either end of the file."""

_MAX_TIMESCALE = 10_000_000

_RECORDED_MOVIE = {
    "movflags": "hybrid_fragmented+delay_moov", "frag_duration": "2000000", "flush_packets": "1",
}  # fmt: skip
"""For recordings of live inputs: the draft can be read at any time, and becomes an ordinary file at the end."""

_INDEX_FIRST = ("mp4", "ipod")
_ORDINARY_SECONDS = 2 * 3600
"""Longest video whose index is moved to the beginning by default: moving takes as long as copying the file."""


def check_layout(format_name: str, path: str, *, grow: bool, faststart: bool | None) -> None:
    """Check that a container supports the layout that the user asked for.

    Args:
        format_name: FFmpeg's name of the container.
        path: The output, for messages.
        grow: Whether the file is to be readable while it is written.
        faststart: Whether its index is to come first.

    Raises:
        UsageError: The container does not support it.
    """
    if grow and format_name not in GROWING:
        raise UsageError(f"{path}: {format_name} files cannot be read while they grow; use .mkv, .ts or .mp4", "grow")
    if faststart and (format_name not in MOVIES or grow):
        raise UsageError(
            f"{path}: only whole .mp4, .m4v and .mov files have an index that can be put first", "faststart"
        )


def output_options(format_name: str, *, is_prompt: bool, is_live: bool) -> dict[str, str]:
    """Return muxer options for the way in which an output is used.

    Args:
        format_name: FFmpeg's name of the container.
        is_prompt: Whether each frame must be flushed at once.
        is_live: Whether the input is live.
    """
    options = uncompressed_options(format_name)
    if is_prompt:
        options |= {"flush_packets": "1", **GROWING.get(format_name, {})}
    if is_prompt and is_live:
        options["max_interleave_delta"] = "500000"  # gaps in the audio would delay the video by up to 10 s
    if is_live and not is_prompt and format_name in MOVIES:
        options |= _RECORDED_MOVIE
    return options


def wants_index_first(format_name: str, seconds: float | None) -> bool:
    """Whether a file should get its index first by default, so that it can be streamed.

    Args:
        format_name: FFmpeg's name of the container.
        seconds: Length of the video; None if unknown.
    """
    return format_name in _INDEX_FIRST and seconds is not None and seconds <= _ORDINARY_SECONDS


def movie_options(format_name: str, info: StreamInfo, copies: Passthrough) -> dict[str, str]:
    """Return the option for the timescale of .mp4 headers: exact for the start of every track, if possible."""
    if format_name not in MOVIES:
        return {}
    rates = [s.template.time_base.denominator for s in copies.streams if s.kind == "audio" and s.template is not None]
    exact = math.lcm(info.time_base.denominator, *rates)
    ticks = exact if exact <= _MAX_TIMESCALE else min(info.time_base.denominator, _MAX_TIMESCALE)
    return {"movie_timescale": str(ticks)}


def merge_options(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Merge sets of options: flags accumulate, for others the last value wins."""
    parts = list(parts)
    flags = [options["movflags"] for options in parts if "movflags" in options]
    merged = {name: value for options in parts for name, value in options.items()}
    return {**merged, "movflags": "+".join(flags)} if flags else merged
