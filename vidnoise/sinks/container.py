"""Video files of any container and codec that libav writes."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import av
import av.codec.codec
import av.container
import av.error

from vidnoise.disk import Draft, check_free, same_place
from vidnoise.errors import EncodeError, FormatError, ReaderClosedError, SinkOpenError, UsageError
from vidnoise.frame import PIXEL_FORMATS, Frame, Packet, StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.locking import Lock
from vidnoise.options import SinkOptions
from vidnoise.sinks.aspect import PLACEHOLDER_ROTATION, Changes, HeaderWriter, header_changes
from vidnoise.sinks.capability import container_format, holds_video, named_format
from vidnoise.sinks.codecs import CODECS, encoder_options, find_encoder, takes_captions, what_it_needs
from vidnoise.sinks.copies import CopiedStreams
from vidnoise.sinks.encoder_choice import EncoderChoice
from vidnoise.sinks.output_file import GrowingFile, Output
from vidnoise.sinks.picture import FormatChoice, PictureWriter, check_pix_fmt, output_color
from vidnoise.sinks.scheduling import scheduling_kept
from vidnoise.sinks.tags import (
    CHROMA_LOCATIONS,
    HOLDS_NO_TAGS,
    container_tags,
    holds_aspect,
    holds_chroma_location,
    holds_rotation,
    timecode_as_tag,
)
from vidnoise.sinks.uncompressed import check_no_encoder_options, is_uncompressed, warn_of_losses
from vidnoise.sinks.uncompressed import muxer_options as uncompressed_options
from vidnoise.sinks.video_stream import VideoStreamWriter
from vidnoise.text import shown

logger = logging.getLogger(__name__)

_BUFFER_SIZE = 1 << 20

GROWING: dict[str, dict[str, str]] = {
    "matroska": {"cluster_time_limit": "500"},
    "mpegts": {}, "nut": {}, "flv": {}, "yuv4mpegpipe": {}, "rawvideo": {},
    "mp4": {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"},
    "mov": {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"},
}  # fmt: skip
"""Containers that can be read while they are written, and what their muxers have to be told for it."""

_MOVIES = ("mp4", "mov", "ipod")
_MOST_TICKS = 10_000_000

_RECORDED_MOVIE = {
    "movflags": "hybrid_fragmented+delay_moov", "frag_duration": "2000000", "flush_packets": "1",
}  # fmt: skip
"""For what will not come again: the draft can be read at any moment, and becomes a plain file at the end."""

_INDEX_FIRST = ("mp4", "ipod")
_ORDINARY_SECONDS = 2 * 3600
"""Length up to which a file's data is moved for its index unasked: it takes as long as copying the file."""

_LATE_SECONDS = 60
"""Containers that know a constant rate only would fill the time before a first frame later than that with nothing."""

_LAST_START_SECONDS = {"mpegts": Fraction(2**33, 90_000) - 60}
"""Containers whose clock begins anew after so long (26.5 hours), so that no first frame can be later. Readers take one
in the last minute for what comes before zero."""

_MOVED_SECONDS = 0.005
"""Beyond what rounding to a container's ticks does."""


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
        self._origin = Fraction(0)
        """Seconds that are taken off all times."""
        self._overwrite = options.overwrite
        self._threads = options.threads
        self._audio = options.audio
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
        if options.faststart and (self._format_name not in _MOVIES or options.grow):
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
        options = uncompressed_options(self._format_name)
        if self.is_prompt:
            options |= {"flush_packets": "1", **GROWING.get(self._format_name, {})}
        if self.is_prompt and is_live:
            options["max_interleave_delta"] = "500000"  # or silent sound would hold the pictures back for 10 s
        if is_live and not self.is_prompt and self._format_name in _MOVIES:
            options |= _RECORDED_MOVIE
        return options

    def _puts_index_first(self, info: StreamInfo) -> bool:
        """Whether an .mp4 can be played while it is fetched; its data is moved once for that when it is whole."""
        if self._faststart is not None or not self.writes_bytes or self.is_prompt or info.is_live:
            return bool(self._faststart)
        seconds = info.duration_seconds
        return self._format_name in _INDEX_FIRST and seconds is not None and seconds <= _ORDINARY_SECONDS

    def _check_path(self) -> None:
        check_free(self.path, overwrite=self._overwrite)

    def open(self, info: StreamInfo) -> None:
        """Create the draft and write its header.

        Raises:
            SinkOpenError: The file cannot be created, is the input, or cannot hold the input's sound.
            FormatError: The encoder does not take such pictures.
        """
        copies = info.passthrough if isinstance(info.passthrough, Passthrough) else Passthrough()
        copies = timecode_as_tag(copies, self._format_name, self.name)
        self._check_path()
        self._check_not_input(copies.uri)
        self._is_live_input = info.is_live
        encoder, choice, options = self._encoding(info, copies)
        aspect = self._aspect_in_header(info, encoder)
        self._say_chroma_location(output_color(info, choice.name).chroma_location, encoder, choice.name)
        try:
            self._file = self._create()
        except (SinkOpenError, UsageError):
            self._release_lock()
            raise
        except OSError as ex:
            self._release_lock()
            raise SinkOpenError(f"{self.name}: cannot be created: {ex.strerror or ex}", self.path) from ex
        try:
            tags, muxer_options = container_tags(copies.metadata, self._format_name, self.name)
            more = self._muxer_options(info.is_live)
            if self._puts_index_first(info):
                # libav reads what it has written once more, by this name.
                self._file.name = os.path.abspath(self._file.part_path)  # type: ignore[attr-defined]
                more = {**more, "movflags": "+".join(filter(None, [more.get("movflags"), "faststart"]))}
            flags = [options["movflags"] for options in (muxer_options, more) if "movflags" in options]
            muxer_options |= more
            if flags:
                muxer_options["movflags"] = "+".join(flags)
            if self._format_name in _MOVIES:
                muxer_options["movie_timescale"] = str(_movie_timescale(info, copies))
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
                container, encoder, choice.name, options, shape, copies, color=self._writer.color, threads=self._threads
            )
            if is_uncompressed(self._format_name):
                warn_of_losses(self._format_name, copies, self._writer.color, tags, self.name)
                copies = replace(copies, streams=(), chapters=())
            self._copies = CopiedStreams(container, copies.streams, audio=self._audio, uri=self.name)
            container.metadata.update(tags)
            chapters = [dict(c) for c in copies.chapters if c.get("time_base")]
            if chapters and self._format_name in HOLDS_NO_TAGS:
                logger.warning("%s: %s has no place for chapters", self.name, self._format_name)
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

    def _aspect_in_header(self, info: StreamInfo, encoder: av.codec.Codec) -> Changes:
        """What :class:`HeaderWriter` has to do for the aspect ratio, with a message where the shape gets lost."""
        is_held = holds_aspect(self._format_name, encoder.canonical_name)
        changes = header_changes(self._format_name, info) if self.writes_bytes and not is_held else ()
        lost = []
        if info.rotation and not holds_rotation(self._format_name):
            lost.append(f"rotation by {info.rotation} degrees")
        if info.sample_aspect_ratio not in (None, 1) and not is_held and not changes:
            lost.append(f"sample aspect ratio {info.sample_aspect_ratio}")
        if lost:
            logger.warning(
                "%s: %s with %s has no place for the %s; an .mp4 file has",
                self.name, self._format_name, encoder.name, " and the ".join(lost),
            )  # fmt: skip
        return changes

    def _say_chroma_location(self, location: int, encoder: av.codec.Codec, pix_fmt: str) -> None:
        format = PIXEL_FORMATS.get(pix_fmt)
        is_8_bit = format is not None and format.bit_depth == 8
        if not holds_chroma_location(self._format_name, encoder.canonical_name, location, is_8_bit=is_8_bit):
            logger.warning(
                "%s: %s with %s has no place for the chroma location (%s); H.264 and HEVC have one",
                self.name, self._format_name, encoder.name, CHROMA_LOCATIONS[location],
            )  # fmt: skip

    def _encoding(self, info: StreamInfo, copies: Passthrough) -> tuple[av.codec.Codec, FormatChoice, dict[str, str]]:
        """The encoder, the pixel format, and the encoder's options."""
        encoder, choice = self._encoder.choose(info, is_live=self.is_live)
        is_watched = self.is_live or (self.is_prompt and info.is_live)
        return encoder, choice, self._encoder.options(encoder, copies, info, holds_nothing_back=is_watched)

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
            frame = self._from_zero(frame)
            self._copies.mux(frame.packets)
            self._video.write(frame, self._writer.picture(frame))
            self._n_written += 1

    def _from_zero(self, frame: Frame) -> Frame:
        """``frame`` with its packets on a clock that begins with the first one, where it would begin too late."""
        if self._n_written == 0 and frame.pts is not None and not is_uncompressed(self._format_name):
            begin = frame.pts * frame.time_base
            latest = _LAST_START_SECONDS.get(self._format_name, None if self._video.has_free_times else _LATE_SECONDS)
            if latest is not None and begin > latest:
                self._origin = begin
                logger.warning(
                    "%s: the first frame is at %.3f s; %s cannot begin so late, so the output begins at 0",
                    self.name, begin, self._format_name,
                )  # fmt: skip
        if not self._origin:
            return frame
        pts = None if frame.pts is None else frame.pts - round(self._origin / frame.time_base)
        return replace(frame, pts=pts, packets=_moved(frame.packets, self._origin))

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
            self._copies.mux(_moved(trailing_packets, self._origin))
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
        if self._video.most_moved > _MOVED_SECONDS:
            logger.warning(
                "%s: %s knows a constant frame rate only; frames were moved by up to %.3f s. Write an .mp4 or .mkv",
                self.name, self._format_name, self._video.most_moved,
            )  # fmt: skip
        elif self._video.n_mended:
            logger.warning("%s: %d time stamps did not go up and were mended", self.name, self._video.n_mended)

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
        if self._format_name in _MOVIES and not self._is_live_input:
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


def _moved(packets: Sequence[Packet], origin: Fraction) -> tuple[Packet, ...]:
    """Packets whose times are ``origin`` seconds earlier; changed in place."""
    for packet in packets if origin else ():
        data = packet.data
        ticks = round(origin / Fraction(data.time_base))
        data.pts = None if data.pts is None else data.pts - ticks
        data.dts = None if data.dts is None else data.dts - ticks
    return tuple(packets)


def _movie_timescale(info: StreamInfo, copies: Passthrough) -> int:
    """Ticks a second in which .mp4 files say when a track begins: exact for each of them, if that can be."""
    rates = [s.template.time_base.denominator for s in copies.streams if s.kind == "audio" and s.template is not None]
    exact = math.lcm(info.time_base.denominator, *rates)
    return exact if exact <= _MOST_TICKS else min(info.time_base.denominator, _MOST_TICKS)


__all__ = ["CODECS", "ContainerSink"]
