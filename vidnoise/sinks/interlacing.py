"""Interlaced output: told to the encoder, marked on the pictures, and in the container."""

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
"""Encoders that keep the fields apart, or the samples as they are, and mark the pictures; and their options for it."""


def codes_fields(encoder: str) -> bool:
    """Whether an encoder, by FFmpeg's name, makes interlaced video that a decoder knows as such."""
    return encoder in _ENCODERS


def interlaced_options(encoder: str, order: FieldOrder, options: dict[str, str]) -> dict[str, str]:
    """``options`` of an encoder for interlaced pictures; the container's header gets the field order, too."""
    changed = {**options, **_ENCODERS.get(encoder, {}), "field_order": {"tff": "tt", "bff": "bb"}[order]}
    if encoder.startswith("libx264"):  # which takes it for top field first otherwise
        changed["x264-params"] = ":".join(filter(None, [options.get("x264-params"), f"{order}=1"]))
    return changed


class FieldMarker:
    """Marks pictures of one size and format as interlaced; passive, not thread-safe."""

    def __init__(self, order: FieldOrder, width: int, height: int, pix_fmt: str) -> None:
        # av shows the marks, but only filters can set them.
        self._graph = av.filter.Graph()
        begin = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(pix_fmt), time_base=Fraction(1, 25)
        )
        mark, end = self._graph.add("setfield", order), self._graph.add("buffersink")
        begin.link_to(mark)
        mark.link_to(end)
        self._graph.configure()

    def mark(self, picture: av.VideoFrame) -> av.VideoFrame:
        """``picture``, marked; its samples are not copied."""
        self._graph.push(picture)
        return cast(av.VideoFrame, self._graph.pull())
