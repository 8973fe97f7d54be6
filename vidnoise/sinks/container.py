"""Video files of any container and codec that libav writes."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import av
import av.codec.codec
import av.container
import av.error

from vidnoise.disk import Draft, check_free, same_place
from vidnoise.errors import EncodeError, FormatError, ReaderClosedError, SinkOpenError, UsageError
from vidnoise.frame import Frame, Packet, StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.locking import Lock
from vidnoise.notices import Notify
from vidnoise.options import SinkOptions
from vidnoise.sinks.aspect import PLACEHOLDER_ROTATION, Changes, HeaderWriter, header_changes
from vidnoise.sinks.capability import container_format, holds_video, named_format
from vidnoise.sinks.codecs import CODECS, encoder_options, find_encoder, takes_captions, what_it_needs
from vidnoise.sinks.copies import CopiedStreams
from vidnoise.sinks.encoder_choice import EncoderChoice
from vidnoise.sinks.first_time import FirstTime
from vidnoise.sinks.muxer import GROWING, MOVIES, joined_options, movie_options, output_options, wants_index_first
from vidnoise.sinks.output_file import GrowingFile, Output
from vidnoise.sinks.picture import FormatChoice, PictureWriter, check_pix_fmt, output_color
from vidnoise.sinks.scheduling import scheduling_kept
from vidnoise.sinks.tags import (
    HOLDS_NO_TAGS,
    container_tags,
    holds_aspect,
    timecode_as_tag,
    warn_of_chroma_location,
    warn_of_shape,
)
from vidnoise.sinks.uncompressed import check_no_encoder_options, is_uncompressed, warn_of_losses
from vidnoise.sinks.video_stream import VideoStreamWriter
from vidnoise.stills.loops import loop_options
from vidnoise.text import shown

logger = logging.getLogger(__name__)

_BUFFER_SIZE = 1 << 20


class ContainerSink:
    """Encodes frames into a file; see :func:`vidnoise.sinks.open_sink` for the arguments.

    The file is written as ``<name>.<token>.part`` and renamed by :meth:`close`. Only one thread may use it. Sinks that
    write elsewhere change where the bytes go (:meth:`_check_path`, :meth:`_create`), and nothing else.
    """

    default_format: str | None = None
    """Container where none is asked for; None takes the path's extension."""
    is_prompt = False
    """Whether each frame goes out at once, because someone is waiting for it."""
    is_live = False
    """Whether someone watches: the encoder then holds nothing back."""
    writes_bytes = True
    """Whether the file passes through our hands."""

    def __init__(self, path: str, options: SinkOptions) -> None:
        self.path = path
        codec, crf, preset, pix_fmt = options.codec, options.crf, options.preset, options.pix_fmt
        self._faststart = options.faststart
        self._overwrite = options.overwrite
        self._threads = options.threads
        self._audio = options.audio
        self._quality = options.quality
        self._grow = options.grow
        self._file: Output | None = None
        self._lock: Lock | None = None
        self._is_live_input = False
        self._container: av.container.OutputContainer | None = None
        self._n_written = 0
        self._check_path()
        format = options.format or self.default_format
        if options.grow:
            self.is_prompt = True
        self._format_name, container_codec = (
            container_format(path) if format is None else named_format(format, self.name)
        )
        if options.grow and self._format_name not in GROWING:
            raise UsageError(
                f"{path}: {self._format_name} files cannot be read while they grow; use .mkv, .ts or .mp4", "grow"
            )
        self._first_time = FirstTime(self._format_name, self.name)
        if options.faststart and (self._format_name not in MOVIES or options.grow):
            raise UsageError(
                f"{path}: only whole .mp4, .m4v and .mov files have an index that can be put first", "faststart"
            )
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

    @property
    def name(self) -> str:
        """The output, for messages."""
        return shown(self.path)

    def _create(self) -> Output:
        self._take_lock()
        return GrowingFile(self.path, overwrite=self._overwrite) if self._grow else Draft(self.path)

    def _take_lock(self) -> None:
        if self._lock is None:
            self._lock = Lock(self.path)

    def _release_lock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _open_container(self, file: Any, options: dict[str, str]) -> av.container.OutputContainer:
        return av.open(file, "w", format=self._format_name, container_options=options, buffer_size=_BUFFER_SIZE)

    def _muxer_options(self, is_live: bool) -> dict[str, str]:
        return output_options(self._format_name, is_prompt=self.is_prompt, is_live=is_live)

    def _puts_index_first(self, info: StreamInfo) -> bool:
        """Whether an .mp4 can be played while it is fetched; its data is moved once for that when it is whole."""
        if self._faststart is not None or not self.writes_bytes or self.is_prompt or info.is_live:
            return bool(self._faststart)
        return wants_index_first(self._format_name, info.duration_seconds)

    def _check_path(self) -> None:
        check_free(self.path, overwrite=self._overwrite)

    def open(self, info: StreamInfo) -> None:
        """Create the draft and write its header.

        Raises:
            SinkOpenError: The file cannot be created, is the input, or cannot hold the input's sound.
            FormatError: The encoder does not take such pictures.
        """
        self._open(info, logger.log)

    def _open(self, info: StreamInfo, notify: Notify) -> None:
        """:meth:`open`, with what a user should know of the output told to ``notify``."""
        copies = timecode_as_tag(info.passthrough, self._format_name, self.name, notify)
        self._check_path()
        self._check_not_input(copies.uri)
        self._is_live_input = info.is_live
        encoder, choice, options = self._encoding(info, copies, notify)
        aspect = self._aspect_in_header(info, encoder, notify)
        location = output_color(info, choice.name).chroma_location
        if self._quality is not None:
            notify(logging.WARNING, "%s: quality is that of pictures; videos have crf", self.name)
        if copies.tags is not None and copies.tags.names():
            notify(logging.WARNING, "%s: has no place for %s of pictures", self.name, ", ".join(copies.tags.names()))
        warn_of_chroma_location(self._format_name, encoder, choice.name, location, self.name, notify)
        try:
            self._file = self._create()
        except (SinkOpenError, UsageError):
            self._release_lock()
            raise
        except OSError as ex:
            self._release_lock()
            raise SinkOpenError(f"{self.name}: cannot be created: {ex.strerror or ex}", self.path) from ex
        try:
            tags, tag_options = container_tags(copies.metadata, self._format_name, self.name, notify)
            told = [tag_options, self._muxer_options(info.is_live), movie_options(self._format_name, info, copies)]
            told.append(loop_options(self._format_name, copies.plays))
            if self._puts_index_first(info):
                # libav reads what it has written once more, by this name.
                self._file.name = os.path.abspath(self._file.part_path)  # type: ignore[attr-defined]
                told.append({"movflags": "faststart"})
            muxer_options = joined_options(told)
            target: Any = self._file
            shape = info
            if aspect:
                target = HeaderWriter(self._file, aspect)
                if self._format_name != "yuv4mpegpipe":
                    shape = replace(info, rotation=PLACEHOLDER_ROTATION)
                    muxer_options["write_crc32"] = "0"  # which would be that of the header before
            container = self._open_container(target, muxer_options)
            self._container = container
            self._writer = PictureWriter(info, choice, takes_captions=takes_captions(encoder))
            self._video = VideoStreamWriter(
                container, encoder, choice.name, options, shape, copies, color=self._writer.color,
                threads=self._threads, notify=notify,
            )  # fmt: skip
            if is_uncompressed(self._format_name):
                warn_of_losses(self._format_name, copies, self._writer.color, tags, self.name, notify)
                copies = replace(copies, streams=(), chapters=())
            self._copies = CopiedStreams(container, copies.streams, audio=self._audio, uri=self.name, notify=notify)
            container.metadata.update(tags)
            chapters = [dict(c) for c in copies.chapters if c.get("time_base")]
            if chapters and self._format_name in HOLDS_NO_TAGS:
                notify(logging.WARNING, "%s: %s has no place for chapters", self.name, self._format_name)
            elif chapters:
                container.set_chapters(cast(Any, chapters))
            with scheduling_kept():
                container.start_encoding()
        except BaseException as ex:
            is_closed = self._is_reader_gone(ex)
            self.abort()
            if is_closed:
                raise ReaderClosedError(f"{self.name}: {_what_reader_did(ex)}", self.path) from ex
            if isinstance(ex, (av.error.FFmpegError, OSError, ValueError)) and not isinstance(
                ex, (SinkOpenError, FormatError)
            ):
                raise SinkOpenError(
                    f"{self.name}: cannot begin {self._format_name} with {encoder.name} ({choice.name}, "
                    f"{info.width}x{info.height}): {self._reason(ex)}{what_it_needs(encoder.name)}",
                    self.name,
                ) from ex
            raise

    def _aspect_in_header(self, info: StreamInfo, encoder: av.codec.Codec, notify: Notify) -> Changes:
        """What :class:`HeaderWriter` has to do for the aspect ratio, with a message where the shape gets lost."""
        is_held = holds_aspect(self._format_name, encoder.canonical_name)
        changes = header_changes(self._format_name, info) if self.writes_bytes and not is_held else ()
        warn_of_shape(self._format_name, encoder, info, self.name, notify, holds_aspect=is_held or bool(changes))
        return changes

    def _encoding(
        self, info: StreamInfo, copies: Passthrough, notify: Notify
    ) -> tuple[av.codec.Codec, FormatChoice, dict[str, str]]:
        """The encoder, the pixel format, and the encoder's options."""
        encoder, choice = self._encoder.choose(info, is_live=self.is_live, notify=notify)
        is_watched = self.is_live or (self.is_prompt and info.is_live)
        options = self._encoder.options(encoder, copies, info, holds_nothing_back=is_watched, notify=notify)
        return encoder, choice, options

    def plan(self, info: StreamInfo) -> tuple[str, str]:
        """Names of the encoder and the pixel format that :meth:`open` would choose, with the same messages.

        Raises:
            FormatError: The encoder does not take such pictures.
        """
        encoder, choice = self._encoder.choose(info, is_live=self.is_live)
        return encoder.name, choice.name

    def _check_not_input(self, uri: str) -> None:
        if uri and os.path.exists(uri) and same_place(uri, self.path):
            raise SinkOpenError(f"{self.name}: is the input itself; choose another name", self.path)

    def write(self, frame: Frame) -> None:
        """Encode ``frame`` and mux the packets that ride on it.

        Raises:
            EncodeError: Encoding or writing failed; the unfinished file is gone, unless it was recorded from a live
                input: then it stays under the name in the message.
            FormatError: The frame is of another size or format than the output.
        """
        with self._failing_cleanly():
            if self._container is None:
                raise EncodeError(f"{self.name}: the output is not open", self.path)
            if self._n_written == 0:
                self._first_time.begin(frame, has_free_times=self._video.has_free_times)
            frame = self._first_time.place(frame)
            self._copies.mux(frame.packets)
            self._video.write(frame, self._writer.picture(frame))
            self._n_written += 1

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Finish the file and give it its final name.

        Raises:
            EncodeError: No frame was ever written, and no file is left behind; or encoding or writing failed, and what
                was written stays under the name in the message: at the end, work is not thrown away.
        """
        if self._container is None or self._file is None:
            return
        if self._n_written == 0:
            self.abort()
            raise EncodeError(f"{self.name}: no frame was written, so no file", self.path)
        with self._failing_cleanly(keeps=True):
            self._copies.mux(self._first_time.place_packets(trailing_packets))
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
        self._video.warn_of_moved_times(self.name)

    def is_ready(self) -> bool:
        """Whether :meth:`open` has to wait for nobody."""
        return True

    def stop(self) -> None:
        """The run is to end: a reader that takes nothing is waited for no longer. Any thread may call this."""
        stop = getattr(self._file, "stop", None)
        if stop is not None:
            stop()

    def leave(self) -> bool:
        """See :class:`vidnoise.sinks.Sink`: where the bytes pass through our hands, waits end by themselves."""
        return False

    def abort(self) -> None:
        """Throw the unfinished file away."""
        self._close_container()
        file, self._file = self._file, None
        if file is not None:
            file.discard()
        self._release_lock()

    def _close_container(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            # Nobody needs the trailer any more, but libav frees its memory on the way.
            with contextlib.suppress(Exception):
                container.close()

    def _leave(self) -> str:
        """As :meth:`abort`, but what was written stays; returns where, for the end of a message."""
        self._close_container()
        file, self._file = self._file, None
        self._release_lock()
        assert file is not None
        file.let_go()
        return f"; what was written stays as {file.part_path}{self._how_to_finish(file.part_path)}"

    def _how_to_finish(self, part: str) -> str:
        if self._format_name in MOVIES and not self._is_live_input:
            return ": its index is missing; untrunc makes one, with a finished file of the same kind beside it"
        if is_uncompressed(self._format_name):
            return ", whole up to there"
        return f"; to finish it: ffmpeg -i {shlex.quote(part)} -map 0 -c copy {shlex.quote(self.path)}"

    @contextlib.contextmanager
    def _failing_cleanly(self, *, keeps: bool = False) -> Iterator[None]:
        """Errors of libav and the disk become ours, and the file is thrown away; or it ``keeps`` what was written.

        What was recorded of a live input is kept in any case: it will not come again.
        """
        keeps = (keeps or self._is_live_input) and self._n_written > 0
        try:
            yield
        except (EncodeError, FormatError):
            self.abort()
            raise
        except (av.error.FFmpegError, OSError, ValueError) as ex:
            is_closed = self._is_reader_gone(ex)
            message = f"{self.name}: writing failed: {self._reason(ex)}"
            if keeps and isinstance(self._file, Draft):
                message += self._leave()
            else:
                self.abort()
            if is_closed:
                raise ReaderClosedError(f"{self.name}: {_what_reader_did(ex)}", self.path) from ex
            raise EncodeError(message, self.path) from ex
        except Exception:
            self.abort()
            raise
        # Ctrl-C is no failure: whoever catches it may still close the file, which then holds what came so far.

    def _is_reader_gone(self, error: BaseException) -> bool:
        return False

    def _reason(self, error: BaseException) -> str:
        if self._file is not None and self._file.error is not None:
            error = self._file.error
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return str(text).splitlines()[0]


def _what_reader_did(error: BaseException) -> str:
    return "its reader takes nothing any more" if isinstance(error, TimeoutError) else "its reader has closed it"


__all__ = ["CODECS", "ContainerSink"]
