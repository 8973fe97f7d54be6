"""Streams that are copied beside the video: what the output's container can hold, and muxing them in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import av
import av.codec.codec
import av.container
import av.error
import av.stream

from vidnoise.errors import SinkOpenError
from vidnoise.frame import Packet
from vidnoise.passthrough import CopiedStream
from vidnoise.sinks.audio import AUDIO_ENCODERS, AudioReencoder
from vidnoise.sinks.capability import holds_copy
from vidnoise.sinks.subtitles import SubtitleConverter, converted_codec
from vidnoise.sinks.tags import stream_tags

logger = logging.getLogger(__name__)

_COVERS = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png")}
"""Codec of a cover picture to the extension and type of its file."""


def can_decode(stream: CopiedStream) -> bool:
    """Whether there is a decoder for it here."""
    if stream.template is None or stream.template.codec_context is None:
        return False
    try:
        av.codec.codec.Codec(stream.codec, "r")
    except (ValueError, av.error.FFmpegError):
        return False
    return True


class CopiedStreams:
    """The other streams of one output. Not thread-safe.

    Args:
        container: The output, before its header is written.
        streams: What the source has beside the video.
        audio: ``copy``, ``none``, or an encoder's name.
        uri: The output, for messages.

    Raises:
        SinkOpenError: An audio stream does not fit; nothing of the sound is ever dropped unasked.
    """

    def __init__(
        self, container: av.container.OutputContainer, streams: Sequence[CopiedStream], *, audio: str, uri: str
    ) -> None:
        self._container = container
        self._outputs: dict[int, av.stream.Stream] = {}
        self._reencoders: dict[int, AudioReencoder] = {}
        self._converters: dict[int, SubtitleConverter] = {}
        self._next_dts: dict[int, int] = {}
        self._n_mended = 0
        name = container.format.name
        for stream in streams:
            if stream.kind == "audio":
                number = [s.index for s in streams if s.kind == "audio"].index(stream.index)
                self._add_audio(stream, audio, uri, number)
            elif name == "matroska" and stream.picture and stream.codec in _COVERS:
                self._attach(stream)
            elif holds_copy(name, stream):
                self._add(stream)
            elif converted_codec(stream, name):
                self._add_converted(stream, uri)
            else:
                remedy = "" if name == "matroska" else "; an .mkv file holds most kinds"
                logger.warning("%s: %s is left out: %s cannot hold it%s", uri, stream, name, remedy)

    def _add(self, stream: CopiedStream) -> None:
        output = self._container.add_stream_from_template(stream.template, opaque=True)
        self._tag(output, stream)
        self._outputs[stream.index] = output
        if stream.kind == "video" and not stream.is_cover:
            logger.warning("%s is copied as it is, not denoised", stream)

    def _attach(self, stream: CopiedStream) -> None:
        """Matroska's cover pictures are attachments of this name."""
        extension, mime_type = _COVERS[stream.codec]
        self._container.add_attachment(f"cover.{extension}", mime_type, stream.picture)

    def _add_converted(self, stream: CopiedStream, uri: str) -> None:
        codec = converted_codec(stream, self._container.format.name)
        assert codec is not None
        converter = SubtitleConverter(self._container, stream.template, codec)
        self._tag(converter.stream, stream)
        self._converters[stream.index] = converter
        lost = "; styles and positions are lost" if stream.codec in ("ass", "ssa") else ""
        logger.warning("%s: %s becomes %s: its text and times are kept%s", uri, stream, codec, lost)

    def _add_audio(self, stream: CopiedStream, audio: str, uri: str, number: int) -> None:
        if audio == "none":
            logger.info("%s is left out, as asked", stream)
            return
        name = self._container.format.name
        if not can_decode(stream) and (audio in AUDIO_ENCODERS or not holds_copy(name, stream)):
            raise SinkOpenError(
                f"{uri}: FFmpeg can neither decode {stream} nor copy it into {name}; "
                f"leave it out: --tracks=-a:{number}",
                uri,
            )
        if audio in AUDIO_ENCODERS and stream.codec != audio:
            try:
                reencoder = AudioReencoder(self._container, stream.template, audio)
            except (av.error.FFmpegError, ValueError, OSError) as ex:
                raise SinkOpenError(f"{uri}: {stream} cannot be encoded as {audio} in {name}: {ex}", uri) from ex
            self._tag(reencoder.stream, stream)
            self._reencoders[stream.index] = reencoder
        elif holds_copy(name, stream):
            self._add(stream)
        else:
            remedy = "opus" if name == "webm" else "aac"
            raise SinkOpenError(
                f"{uri}: {name} cannot hold {stream}; write an .mkv file, or re-encode the sound (audio {remedy}), "
                f"or leave it out (audio none)",
                uri,
            )

    def _tag(self, output: av.stream.Stream, stream: CopiedStream) -> None:
        output.metadata.update(stream_tags(stream.metadata, self._container.format.name, str(stream)))
        output.disposition = av.stream.Disposition(stream.disposition)

    def mux(self, packets: Sequence[Packet]) -> None:
        """Write packets that the source handed over; those of streams left out are dropped."""
        for packet in packets:
            if packet.stream_index in self._reencoders:
                self._container.mux(self._reencoders[packet.stream_index].packets(packet.data))
            elif packet.stream_index in self._converters:
                converter = self._converters[packet.stream_index]
                for converted in converter.packets(packet.data):
                    self._mux_copy(converted, converter.stream)
            elif packet.stream_index in self._outputs:
                self._mux_copy(packet.data, self._outputs[packet.stream_index])

    def finish(self) -> None:
        """Write what the audio encoders still hold."""
        for reencoder in self._reencoders.values():
            self._container.mux(reencoder.packets(None))
        if self._n_mended:
            logger.warning("%d time stamps of copied packets ran backwards and were mended", self._n_mended)

    def _mux_copy(self, packet: av.Packet, output: av.stream.Stream) -> None:
        """Muxers refuse missing and backward decoding times, which real files have after damage."""
        low = self._next_dts.get(output.index)
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None:
            dts = low or 0
        elif low is not None and dts < low:
            dts = low
            self._n_mended += 1
        packet.dts = dts
        packet.pts = dts if packet.pts is None or packet.pts < dts else packet.pts
        step = 0 if output.type in ("subtitle", "data") else 1
        self._next_dts[output.index] = dts + step
        packet.stream = output
        self._container.mux_one(packet)
