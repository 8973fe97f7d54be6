"""Encoding and muxing into any container and codec that libav writes."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import av
import av.codec.codec
import av.container
import av.error

from vidnoise.disk import Draft
from vidnoise.errors import EncodeError, FormatError, ReaderClosedError, SinkOpenError, UsageError
from vidnoise.frame import Frame, Packet, StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.locking import Lock
from vidnoise.notices import Notify
from vidnoise.options import SinkOptions
from vidnoise.sinks.aspect import PLACEHOLDER_ROTATION, Changes, HeaderWriter, header_changes
from vidnoise.sinks.capability import container_format, holds_video, named_format
from vidnoise.sinks.codecs import CODECS, encoder_options, find_encoder, hardware_hint, writes_captions
from vidnoise.sinks.copies import CopiedStreams, copy_chapters
from vidnoise.sinks.destination import Destination, Output
from vidnoise.sinks.encoder_choice import EncoderChoice
from vidnoise.sinks.muxer import MOVIES, check_layout, merge_options, movie_options, wants_index_first
from vidnoise.sinks.picture import FormatChoice, PictureWriter, check_pix_fmt, output_color
from vidnoise.sinks.protocol import FinishedAfterUse
from vidnoise.sinks.scheduling import preserve_scheduling
from vidnoise.sinks.start_offset import StartOffset
from vidnoise.sinks.tags import (
    container_tags,
    holds_aspect,
    timecode_as_tag,
    warn_of_chroma_location,
    warn_of_shape,
)
from vidnoise.sinks.uncompressed import check_no_encoder_options, is_uncompressed, warn_of_losses
from vidnoise.sinks.video_stream import VideoStreamWriter
from vidnoise.stills.loops import loop_options

logger = logging.getLogger(__name__)

_BUFFER_SIZE = 1 << 20


class ContainerSink(FinishedAfterUse):
    """Encodes frames and muxes them into a container; see :func:`vidnoise.sinks.open_sink` for the options.

    Not thread-safe, except for :meth:`stop`.

    Args:
        destination: Where the bytes go. A file is written under a temporary name and renamed by :meth:`close`.
        options: The options of an output.

    Raises:
        SinkOpenError: The destination cannot be written to.
        FormatError: The extension belongs to no video container.
        UsageError: An unknown codec, or options that do not go together.
    """

    def __init__(self, destination: Destination, options: SinkOptions) -> None:
        self.destination = destination
        self.path = path = destination.path
        codec, crf, preset, pix_fmt = options.codec, options.crf, options.preset, options.pix_fmt
        self._faststart = options.faststart
        self._overwrite = options.overwrite
        self._threads = options.threads
        self._audio = options.audio
        self._quality = options.quality
        self._file: Output | None = None
        self._lock: Lock | None = None
        self._is_live_input = False
        self._container: av.container.OutputContainer | None = None
        self._n_written = 0
        destination.check()
        format = options.format or destination.default_format
        self._format_name, container_codec = (
            container_format(path) if format is None else named_format(format, self.name)
        )
        check_layout(self._format_name, path, grow=options.grow, faststart=options.faststart)
        self._start_offset = StartOffset(self._format_name, self.name)
        if is_uncompressed(self._format_name):
            check_no_encoder_options(self._format_name, codec, crf, preset)
            codec = "rawvideo"
        elif codec is not None:
            encoder = find_encoder(codec)
            encoder_options(encoder, crf, preset)
            if not holds_video(self._format_name, encoder):
                raise UsageError(
                    f"{path}: {self._format_name} cannot hold codec {codec}; use another one, or .mkv", "codec"
                )
        if pix_fmt is not None:
            check_pix_fmt(pix_fmt)
        self._encoder = EncoderChoice(
            self.name, self._format_name, container_codec, codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt
        )
        destination.is_ready()  # holds on to the waiting reader of a FIFO while the model is loaded

    @property
    def name(self) -> str:
        """The output's name in messages."""
        return self.destination.name

    def _take_lock(self) -> None:
        if self._lock is None and self.destination.is_exclusive:
            self._lock = Lock(self.path)

    def _release(self) -> None:
        """Release the lock, and what else is held for the output."""
        self.destination.abort()
        self._release_lock()

    def _release_lock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _open_container(self, file: Any, options: dict[str, str]) -> av.container.OutputContainer:
        address = self.destination.address
        if address is not None:
            return av.open(address, "w", format=self._format_name, container_options=options)
        return av.open(file, "w", format=self._format_name, container_options=options, buffer_size=_BUFFER_SIZE)

    def _puts_index_first(self, info: StreamInfo) -> bool:
        """Whether to move the index of an .mp4 file to its beginning at the end, so that it can be streamed."""
        destination = self.destination
        if self._faststart is not None or destination.address is not None or destination.is_prompt or info.is_live:
            return bool(self._faststart)
        return wants_index_first(self._format_name, info.duration_seconds)

    def open(self, info: StreamInfo) -> None:
        """Create the output and write its header.

        Raises:
            SinkOpenError: The output cannot be created, is the input, or cannot hold the input's audio.
            FormatError: The encoder does not support such pictures.
        """
        self._open(info, logger.log)

    def _open(self, info: StreamInfo, notify: Notify) -> None:
        """Open the output, reporting what it cannot keep of the input to ``notify``."""
        copies = timecode_as_tag(info.passthrough, self._format_name, self.name, notify)
        self.destination.check()
        self.destination.check_not_input(copies.uri)
        self._is_live_input = info.is_live
        encoder, choice, options = self._encoding(info, copies, notify)
        aspect = self._aspect_in_header(info, encoder, notify)
        location = output_color(info, choice.name).chroma_location
        if self._quality is not None:
            notify(logging.WARNING, "%s: quality applies to pictures; use crf for videos", self.name)
        if copies.tags is not None and copies.tags.names():
            notify(logging.WARNING, "%s: has no place for %s of pictures", self.name, ", ".join(copies.tags.names()))
        warn_of_chroma_location(self._format_name, encoder, choice.name, location, self.name, notify)
        try:
            self._take_lock()
            self._file = self.destination.create(self._format_name)
        except (SinkOpenError, UsageError):
            self._release()
            raise
        except OSError as ex:
            self._release()
            raise SinkOpenError(f"{self.name}: cannot be created: {ex.strerror or ex}", self.path) from ex
        try:
            tags, tag_options = container_tags(copies.metadata, self._format_name, self.name, notify)
            option_sets = [
                tag_options,
                self.destination.muxer_options(self._format_name, is_live=info.is_live),
                movie_options(self._format_name, info, copies),
                loop_options(self._format_name, copies.plays),
            ]
            if self._puts_index_first(info):
                # libav reopens the file under this name to move its data.
                self._file.name = os.path.abspath(self._file.part_path)  # type: ignore[attr-defined]
                option_sets.append({"movflags": "faststart"})
            muxer_options = merge_options(option_sets)
            target: Any = self._file
            shape = info
            if aspect:
                target = HeaderWriter(self._file, aspect)
                if self._format_name != "yuv4mpegpipe":
                    shape = replace(info, rotation=PLACEHOLDER_ROTATION)
                    muxer_options["write_crc32"] = "0"  # it would be the checksum of the unchanged header
            container = self._open_container(target, muxer_options)
            self._container = container
            self._writer = PictureWriter(info, choice, writes_captions=writes_captions(encoder))
            self._video = VideoStreamWriter(
                container, encoder, choice.name, options, shape, copies, color=self._writer.color,
                threads=self._threads, notify=notify,
            )  # fmt: skip
            if is_uncompressed(self._format_name):
                warn_of_losses(self._format_name, copies, self._writer.color, tags, self.name, notify)
                copies = replace(copies, streams=(), chapters=())
            self._copies = CopiedStreams(container, copies.streams, audio=self._audio, uri=self.name, notify=notify)
            container.metadata.update(tags)
            copy_chapters(container, copies.chapters, uri=self.name, notify=notify)
            with preserve_scheduling():
                container.start_encoding()
            set_to = ", ".join(f"{key} {value}" for key, value in options.items())
            notify(
                logging.INFO, "%s: encoder %s (%s), %s%s", self.name, encoder.name, self._encoder.reason(info),
                choice.name, f", {set_to}" if set_to else "",
            )  # fmt: skip
        except BaseException as ex:
            is_reader_gone = self._is_reader_gone(ex)
            self.abort()
            if is_reader_gone:
                raise ReaderClosedError(f"{self.name}: {_what_reader_did(ex)}", self.path) from ex
            if isinstance(ex, (av.error.FFmpegError, OSError, ValueError)) and not isinstance(
                ex, (SinkOpenError, FormatError)
            ):
                raise SinkOpenError(
                    f"{self.name}: cannot begin {self._format_name} with {encoder.name} ({choice.name}, "
                    f"{info.width}x{info.height}): {self._reason(ex)}{hardware_hint(encoder.name)}",
                    self.name,
                ) from ex
            raise

    def _aspect_in_header(self, info: StreamInfo, encoder: av.codec.Codec, notify: Notify) -> Changes:
        """Return the changes to the header that store the aspect ratio; warn if it cannot be stored."""
        is_held = holds_aspect(self._format_name, encoder.canonical_name)
        changes = header_changes(self._format_name, info) if self.destination.address is None and not is_held else ()
        warn_of_shape(self._format_name, encoder, info, self.name, notify, holds_aspect=is_held or bool(changes))
        return changes

    def _encoding(
        self, info: StreamInfo, copies: Passthrough, notify: Notify
    ) -> tuple[av.codec.Codec, FormatChoice, dict[str, str]]:
        """Choose the encoder, the pixel format, and the encoder's options."""
        is_watched = self.destination.is_watched(info)
        encoder, choice = self._encoder.choose(info, is_live=is_watched, notify=notify)
        low_latency = is_watched or (self.destination.is_prompt and info.is_live)
        options = self._encoder.options(encoder, copies, info, low_latency=low_latency, notify=notify)
        return encoder, choice, options

    def plan(self, info: StreamInfo) -> tuple[str, str]:
        """Return the names of the encoder and the pixel format that :meth:`open` would choose, with its warnings.

        Raises:
            FormatError: The encoder does not support such pictures.
        """
        encoder, choice = self._encoder.choose(info, is_live=self.destination.is_watched(info))
        return encoder.name, choice.name

    def write(self, frame: Frame) -> None:
        """Encode ``frame`` and mux the packets attached to it.

        Raises:
            EncodeError: Encoding or writing failed. The unfinished file is removed; a recording of a live input is
                kept under the name in the message.
            FormatError: The frame differs in size or pixel format from the output.
        """
        with self._cleaning_up():
            if self._container is None:
                raise EncodeError(f"{self.name}: the output is not open", self.path)
            if self._n_written == 0:
                self._start_offset.set_from(frame, has_free_times=self._video.has_free_times)
            frame = self._start_offset.rebase(frame)
            self._copies.mux(frame.packets)
            self._video.write(frame, self._writer.picture(frame))
            self._n_written += 1

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Finish the output and give it its final name.

        Raises:
            EncodeError: No frame was ever written, and no file is left behind; or encoding or writing failed, and
                what was written is kept under the name in the message.
        """
        if self._container is None or self._file is None:
            return
        if self._n_written == 0:
            self.abort()
            raise EncodeError(f"{self.name}: no frame was written, so no file", self.path)
        with self._cleaning_up(keeps_file=True):
            self._copies.mux(self._start_offset.rebase_packets(trailing_packets))
            self._video.finish()
            self._copies.finish()
            self._container.close()
            self._container = None
            self._file.seal()
        file, self._file = self._file, None
        try:
            file.publish(overwrite=self._overwrite)
        except OSError as ex:  # hours of work are not thrown away for a name
            raise EncodeError(
                f"{self.name}: the video is complete, but stays as {file.part_path}: {ex.strerror or ex}", self.path
            ) from ex
        finally:
            self._release_lock()
        self._video.warn_of_shifted_times(self.name)
        self.destination.finish()

    def is_ready(self) -> bool:
        """Whether :meth:`open` would return without waiting for a reader."""
        return self.destination.is_ready()

    def stop(self) -> None:
        """Stop waiting for a reader that takes nothing: the run is ending. Thread-safe."""
        self.destination.stop()
        stop = getattr(self._file, "stop", None)
        if stop is not None:
            stop()

    def abandon(self) -> bool:
        """Abandon the output if its peer has stalled; see :meth:`vidnoise.sinks.Sink.abandon`."""
        if not self.destination.gives_up(self._n_written):
            return False
        self._container = self._file = None  # in use by the thread that is left behind
        return True

    def abort(self) -> None:
        """Discard the unfinished output."""
        self._close_container()
        file, self._file = self._file, None
        if file is not None:
            file.discard()
        self._release()

    def _close_container(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            # The trailer is not needed, but writing it is how libav frees its memory.
            with contextlib.suppress(Exception):
                container.close()

    def _keep_draft(self) -> str:
        """Close the output but keep what was written; returns the end of an error message that says where."""
        self._close_container()
        file, self._file = self._file, None
        self._release()
        assert file is not None
        file.release()
        return f"; what was written stays as {file.part_path}{self._how_to_finish(file.part_path)}"

    def _how_to_finish(self, part: str) -> str:
        if self._format_name in MOVIES and not self._is_live_input:
            return ": its index is missing; untrunc makes one, with a finished file of the same kind beside it"
        if is_uncompressed(self._format_name):
            return ", whole up to there"
        return f"; to finish it: ffmpeg -i {shlex.quote(part)} -map 0 -c copy {shlex.quote(self.path)}"

    @contextlib.contextmanager
    def _cleaning_up(self, *, keeps_file: bool = False) -> Iterator[None]:
        """Translate errors of libav and the disk into :class:`EncodeError`, and abort the output.

        A recording of a live input is always kept, since it cannot be made again. Ctrl-C does not abort: whoever
        catches it may still close the file, which then holds everything so far.

        Args:
            keeps_file: Whether to keep what was written to a file.
        """
        keeps_file = (keeps_file or self._is_live_input) and self._n_written > 0
        try:
            yield
        except (EncodeError, FormatError):
            self.abort()
            raise
        except (av.error.FFmpegError, OSError, ValueError) as ex:
            is_reader_gone = self._is_reader_gone(ex)
            message = f"{self.name}: writing failed: {self._reason(ex)}"
            if keeps_file and isinstance(self._file, Draft):
                message += self._keep_draft()
            else:
                self.abort()
            if is_reader_gone:
                raise ReaderClosedError(f"{self.name}: {_what_reader_did(ex)}", self.path) from ex
            raise EncodeError(message, self.path) from ex
        except Exception:
            self.abort()
            raise

    def _cause(self, error: BaseException) -> BaseException:
        """Return the error of the file, if there was one, as libav passes on less of it."""
        return error if self._file is None else self._file.error or error

    def _is_reader_gone(self, error: BaseException) -> bool:
        return self.destination.is_reader_gone(self._cause(error))

    def _reason(self, error: BaseException) -> str:
        cause = self._cause(error)
        text = self.destination.explanation(cause) or getattr(cause, "strerror", None) or str(cause)
        return str(text or type(cause).__name__).splitlines()[0]


def _what_reader_did(error: BaseException) -> str:
    return "its reader takes nothing any more" if isinstance(error, TimeoutError) else "its reader has closed it"


__all__ = ["CODECS", "ContainerSink"]
