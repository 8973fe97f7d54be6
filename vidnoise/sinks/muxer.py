"""What FFmpeg's muxers are told: for outputs that are read while they are written, and for .mp4 files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from vidnoise.frame import StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.sinks.uncompressed import muxer_options as uncompressed_options

GROWING: dict[str, dict[str, str]] = {
    "matroska": {"cluster_time_limit": "500"},
    "mpegts": {}, "nut": {}, "flv": {}, "yuv4mpegpipe": {}, "rawvideo": {},
    "mp4": {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"},
    "mov": {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"},
}  # fmt: skip
"""Containers that can be read while they are written, and what their muxers have to be told for it."""

MOVIES = ("mp4", "mov", "ipod")
"""Containers with an index, which may lie at either end."""

_MOST_TICKS = 10_000_000

_RECORDED_MOVIE = {
    "movflags": "hybrid_fragmented+delay_moov", "frag_duration": "2000000", "flush_packets": "1",
}  # fmt: skip
"""For what will not come again: the draft can be read at any moment, and becomes a plain file at the end."""

_INDEX_FIRST = ("mp4", "ipod")
_ORDINARY_SECONDS = 2 * 3600
"""Length up to which a file's data is moved for its index unasked: it takes as long as copying the file."""


def output_options(format_name: str, *, is_prompt: bool, is_live: bool) -> dict[str, str]:
    """Options for how an output is used.

    Args:
        format_name: FFmpeg's name of the container.
        is_prompt: Whether each frame goes out at once.
        is_live: Whether the input does.
    """
    options = uncompressed_options(format_name)
    if is_prompt:
        options |= {"flush_packets": "1", **GROWING.get(format_name, {})}
    if is_prompt and is_live:
        options["max_interleave_delta"] = "500000"  # or silent sound would hold the pictures back for 10 s
    if is_live and not is_prompt and format_name in MOVIES:
        options |= _RECORDED_MOVIE
    return options


def wants_index_first(format_name: str, seconds: float | None) -> bool:
    """Whether a file so long is made playable while it is fetched, though nobody asked: its data is moved for that."""
    return format_name in _INDEX_FIRST and seconds is not None and seconds <= _ORDINARY_SECONDS


def movie_options(format_name: str, info: StreamInfo, copies: Passthrough) -> dict[str, str]:
    """Ticks a second in which .mp4 files say when a track begins: exact for each of them, if that can be."""
    if format_name not in MOVIES:
        return {}
    rates = [s.template.time_base.denominator for s in copies.streams if s.kind == "audio" and s.template is not None]
    exact = math.lcm(info.time_base.denominator, *rates)
    ticks = exact if exact <= _MOST_TICKS else min(info.time_base.denominator, _MOST_TICKS)
    return {"movie_timescale": str(ticks)}


def joined_options(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """All options together; flags add up, and of others the last one holds."""
    parts = list(parts)
    flags = [options["movflags"] for options in parts if "movflags" in options]
    joined = {name: value for options in parts for name, value in options.items()}
    return {**joined, "movflags": "+".join(flags)} if flags else joined
