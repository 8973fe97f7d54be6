"""Streams that are copied alongside the video: whether the container can hold them, and muxing them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import av
import av.codec.codec
import av.container
import av.error
import av.stream

from vidnoise.errors import EncodeError, SinkOpenError
from vidnoise.frame import Packet
from vidnoise.frame.passthrough import CopiedStream
from vidnoise.notices import Notify
from vidnoise.sinks.audio import AUDIO_ENCODERS, AudioReencoder
from vidnoise.sinks.capability import add_copy, holds_copy, refusal
from vidnoise.sinks.stamps import Stamps
from vidnoise.sinks.subtitles import SubtitleConverter, converted_codec
from vidnoise.sinks.tags import HOLDS_NO_TAGS, stream_tags

logger = logging.getLogger(__name__)

_COVERS = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png")}
"""Codec of a cover picture to its file extension and MIME type."""


def can_decode(stream: CopiedStream) -> bool:
    """Whether this build of FFmpeg can decode ``stream``."""
    if stream.template is None or stream.template.codec_context is None:
        return False
    try:
        av.codec.codec.Codec(stream.codec, "r")
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def copy_chapters(
    container: av.container.OutputContainer, chapters: Iterable[Mapping[str, Any]], *, uri: str, notify: Notify
) -> None:
    """Set the chapters of an output; those without a time base have no times.

    Args:
        container: The output, before its header is written.
        chapters: The chapters of the source.
        uri: The output's name in messages.
        notify: Called if the container cannot store chapters.
    """
    timed = [dict(chapter) for chapter in chapters if chapter.get("time_base")]
    if timed and container.format.name in HOLDS_NO_TAGS:
        notify(logging.WARNING, "%s: %s has no place for chapters", uri, container.format.name)
    elif timed:
        container.set_chapters(cast(Any, timed))


class CopiedStreams:
    """The streams of one output other than the video. Not thread-safe.

    Args:
        container: The output, before its header is written.
        streams: The streams of the source other than the video.
        audio: ``copy``, ``none``, or an encoder's name.
        uri: The output's name in messages.
        notify: Called for streams that are left out or converted.

    Raises:
        SinkOpenError: An audio stream does not fit; audio is never dropped unless asked for.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        streams: Sequence[CopiedStream],
        *,
        audio: str,
        uri: str,
        notify: Notify = logger.log,
    ) -> None:
        self._container = container
        self._outputs: dict[int, av.stream.Stream] = {}
        self._reencoders: dict[int, AudioReencoder] = {}
        self._converters: dict[int, SubtitleConverter] = {}
        self._copied: dict[int, CopiedStream] = {}
        self._untried: set[int] = set()
        self._stamps: dict[int, Stamps] = {}
        self._uri = uri
        name = container.format.name
        for stream in streams:
            if stream.kind == "audio":
                number = [s.index for s in streams if s.kind == "audio"].index(stream.index)
                self._add_audio(stream, audio, uri, number, notify)
            elif name == "matroska" and stream.picture and stream.codec in _COVERS:
                self._attach(stream)
            elif holds_copy(name, stream):
                self._add(stream, notify)
            elif converted_codec(stream, name):
                self._add_converted(stream, uri, notify)
            else:
                remedy = "" if name == "matroska" else "; an .mkv file holds most kinds"
                notify(logging.WARNING, "%s: %s is left out: %s cannot hold it%s", uri, stream, name, remedy)

    def _add(self, stream: CopiedStream, notify: Notify) -> None:
        output = add_copy(self._container, stream)
        self._tag(output, stream, notify)
        self._outputs[stream.index] = output
        self._copied[stream.index] = stream
        self._untried.add(stream.index)
        if stream.kind != "video" or stream.is_cover:
            notify(logging.INFO, "%s: %s is copied", self._uri, stream)
        else:
            notify(logging.WARNING, "%s is copied as it is, not denoised", stream)

    def _attach(self, stream: CopiedStream) -> None:
        """Store a cover picture the way Matroska does: as an attachment of a standard name."""
        extension, mime_type = _COVERS[stream.codec]
        self._container.add_attachment(f"cover.{extension}", mime_type, stream.picture)

    def _add_converted(self, stream: CopiedStream, uri: str, notify: Notify) -> None:
        codec = converted_codec(stream, self._container.format.name)
        assert codec is not None
        converter = SubtitleConverter(self._container, stream.template, codec)
        self._tag(converter.stream, stream, notify)
        self._converters[stream.index] = converter
        lost = "; styles and positions are lost" if stream.codec in ("ass", "ssa") else ""
        notify(logging.WARNING, "%s: %s becomes %s: its text and times are kept%s", uri, stream, codec, lost)

    def _add_audio(self, stream: CopiedStream, audio: str, uri: str, number: int, notify: Notify) -> None:
        if audio == "none":
            notify(logging.INFO, "%s is left out, as asked", stream)
            return
        name = self._container.format.name
        if not can_decode(stream) and (audio in AUDIO_ENCODERS or not holds_copy(name, stream)):
            raise SinkOpenError(
                f"{uri}: FFmpeg can neither decode {stream} nor copy it into {name}; "
                f'leave it out: tracks="-a:{number}"',
                uri,
            )
        if audio in AUDIO_ENCODERS and stream.codec != audio:
            try:
                reencoder = AudioReencoder(self._container, stream.template, audio)
            except (av.error.FFmpegError, ValueError, OSError) as ex:
                raise SinkOpenError(f"{uri}: {stream} cannot be encoded as {audio} in {name}: {ex}", uri) from ex
            self._tag(reencoder.stream, stream, notify)
            self._reencoders[stream.index] = reencoder
            notify(logging.INFO, "%s: %s is encoded as %s, as asked", uri, stream, audio)
        elif holds_copy(name, stream):
            self._add(stream, notify)
        else:
            raise SinkOpenError(f"{uri}: {name} cannot hold {stream}; {_remedy(name)}", uri)

    def _tag(self, output: av.stream.Stream, stream: CopiedStream, notify: Notify) -> None:
        output.metadata.update(stream_tags(stream.metadata, self._container.format.name, str(stream), notify))
        output.disposition = av.stream.Disposition(stream.disposition)

    def mux(self, packets: Sequence[Packet]) -> None:
        """Mux packets of the source; those of streams that were left out are dropped."""
        for packet in packets:
            index = packet.stream_index
            if index in self._reencoders:
                reencoder = self._reencoders[index]
                self._mux(reencoder.packets(packet.data), reencoder.stream)
            elif index in self._converters:
                converter = self._converters[index]
                self._mux(converter.packets(packet.data), converter.stream)
            elif index in self._outputs and self._is_accepted(packet):
                self._mux((packet.data,), self._outputs[index])

    def finish(self) -> None:
        """Flush the audio encoders, and report repaired timestamps."""
        for reencoder in self._reencoders.values():
            self._mux(reencoder.packets(None), reencoder.stream)
        n_repaired = sum(stamps.n_repaired for stamps in self._stamps.values())
        if n_repaired:
            logger.warning("%d time stamps of copied packets ran backwards and were mended", n_repaired)

    def _is_accepted(self, packet: Packet) -> bool:
        """Try the first packet of a stream, so that the muxer does not reject it at the end, after all the work.

        Raises:
            EncodeError: The muxer rejects audio, which is never dropped unless asked for.
        """
        if packet.stream_index not in self._untried:
            return True
        self._untried.discard(packet.stream_index)
        stream, name = self._copied[packet.stream_index], self._container.format.name
        reason = refusal(name, stream, packet.data)
        if not reason:
            return True
        if stream.kind == "audio":
            raise EncodeError(f"{self._uri}: {name} does not take {stream} ({reason}); {_remedy(name)}", self._uri)
        logger.warning("%s: %s is left out: %s does not take it (%s)", self._uri, stream, name, reason)
        del self._outputs[packet.stream_index]
        return False

    def _mux(self, packets: Iterable[av.Packet], output: av.stream.Stream) -> None:
        stamps = self._stamps.get(output.index)
        if stamps is None:
            stamps = self._stamps[output.index] = Stamps(self._container, output)
        for packet in packets:
            stamps.rescale(packet)
            self._container.mux_one(packet)


def _remedy(name: str) -> str:
    """Return the end of an error message: how to deal with audio that a container cannot hold."""
    codec = "opus" if name == "webm" else "aac"
    return f"write an .mkv file, or re-encode the sound (audio {codec}), or leave it out (audio none)"
