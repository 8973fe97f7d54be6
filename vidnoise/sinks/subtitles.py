"""Text subtitles in the one kind that a container holds, where it does not hold theirs."""

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
"""Containers, by FFmpeg's name, and the text subtitles that they hold."""


def converted_codec(stream: CopiedStream, container_format: str) -> str | None:
    """The codec into which ``stream`` can be turned for a container; None where it is no text or finds no place."""
    return _HELD.get(container_format) if stream.codec in _TEXT and stream.template is not None else None


class SubtitleConverter:
    """Decodes packets of one text stream and encodes them anew: text, times, italics, bold and underlines stay.

    Not thread-safe.

    Args:
        container: The output, before its header is written.
        template: The stream to decode (see ``CopiedStream.template``).
        codec: See :func:`converted_codec`.
    """

    def __init__(self, container: av.container.OutputContainer, template: SubtitleStream, codec: str) -> None:
        source = template.codec_context
        # The template's own context is kept as it is: other outputs may need it.
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
        """``packet`` in the output's codec; none for one that shows nothing."""
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
