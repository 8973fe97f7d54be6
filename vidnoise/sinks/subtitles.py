"""Conversion of text subtitles into the codec that a container supports."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import cast

import av
import av.container
import av.error
from av.codec.context import CodecContext
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

from vidnoise.frame.passthrough import CopiedStream

logger = logging.getLogger(__name__)

_TEXT = ("subrip", "webvtt", "mov_text", "ass", "ssa", "text")
_HELD = {
    "mp4": "mov_text", "mov": "mov_text", "ipod": "mov_text", "matroska": "subrip", "webm": "webvtt",
}  # fmt: skip
"""FFmpeg's name of a container to the text subtitle codec that it supports."""


def converted_codec(stream: CopiedStream, container_format: str) -> str | None:
    """Return the codec to convert ``stream`` to for a container, or None if it is not text or cannot be stored."""
    return _HELD.get(container_format) if stream.codec in _TEXT and stream.template is not None else None


class SubtitleConverter:
    """Decodes the packets of one text stream and encodes them again. Not thread-safe.

    Text, timing, italics, bold and underlines are preserved.

    Args:
        container: The output, before its header is written.
        template: The stream to decode (see ``CopiedStream.template``).
        codec: See :func:`converted_codec`.
    """

    def __init__(self, container: av.container.OutputContainer, template: SubtitleStream, codec: str) -> None:
        source = template.codec_context
        # The template's own context must not be used up: other outputs may need it.
        self._decoder = cast(SubtitleCodecContext, CodecContext.create(source.codec.name, "r"))
        if source.extradata:
            self._decoder.extradata = source.extradata
        self._decoder.open()
        self.stream = cast(SubtitleStream, container.add_stream(codec))
        self.stream.time_base = template.time_base or Fraction(1, 1000)
        self._encoder = self.stream.codec_context
        self._encoder.time_base = Fraction(1, 1000)
        self._encoder.subtitle_header = self._decoder.subtitle_header

    def packets(self, packet: av.Packet) -> list[av.Packet]:
        """Convert one packet; returns no packets for one that shows nothing."""
        try:
            subtitle = self._decoder.decode2(packet)
        except av.error.InvalidDataError:
            logger.warning("a damaged subtitle packet was left out")
            return []
        if subtitle is None or not len(subtitle):
            return []
        converted = av.Packet(bytes(self._encoder.encode_subtitle(subtitle)))
        converted.time_base = packet.time_base
        converted.pts = converted.dts = packet.pts
        converted.duration = packet.duration
        return [converted]
