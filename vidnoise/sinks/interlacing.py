"""Interlaced output: options of the encoder, and flags on the pictures."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import av.codec.codec
import av.filter

from vidnoise.frame import FieldOrder

_BY_FIELD = {"flags": "+ildct+ilme"}
_ENCODERS: dict[str, dict[str, str]] = {
    "libx264": _BY_FIELD, "libx264rgb": _BY_FIELD, "mpeg2video": _BY_FIELD, "mpeg4": _BY_FIELD, "prores_ks": _BY_FIELD,
    "ffv1": {}, "rawvideo": {},
}  # fmt: skip
"""Encoders that code fields separately, or losslessly, and flag the pictures; with their options for it."""


def codes_fields(encoder: str) -> bool:
    """Whether the named FFmpeg encoder produces video that decoders recognise as interlaced."""
    return encoder in _ENCODERS


def interlaced_options(encoder: str, order: FieldOrder, options: dict[str, str]) -> dict[str, str]:
    """Return ``options`` extended for interlaced pictures. They also set the field order in the container's header."""
    changed = {**options, **_ENCODERS.get(encoder, {}), "field_order": {"tff": "tt", "bff": "bb"}[order]}
    if encoder.startswith("libx264"):  # it defaults to top field first
        changed["x264-params"] = ":".join(filter(None, [options.get("x264-params"), f"{order}=1"]))
    return changed


class FieldMarker:
    """Flags pictures of one size and format as interlaced. Not thread-safe.

    Args:
        order: Which field comes first.
        width, height: Size of the pictures.
        pix_fmt: Pixel format of the pictures.
    """

    def __init__(self, order: FieldOrder, width: int, height: int, pix_fmt: str) -> None:
        # PyAV exposes these flags as read-only, but a filter can set them.
        self._graph = av.filter.Graph()
        begin = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(pix_fmt), time_base=Fraction(1, 25)
        )
        mark, end = self._graph.add("setfield", order), self._graph.add("buffersink")
        begin.link_to(mark)
        mark.link_to(end)
        self._graph.configure()

    def mark(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Return ``picture`` flagged as interlaced, without copying its samples."""
        self._graph.push(picture)
        return cast(av.VideoFrame, self._graph.pull())
