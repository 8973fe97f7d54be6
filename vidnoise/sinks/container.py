"""Video files of any container and codec that libav writes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av
from av.codec.context import ThreadType

from vidnoise.errors import EncodeError, FormatError, SinkOpenError, UsageError
from vidnoise.frame import PIXEL_FORMATS, Frame, Packet, StreamInfo
from vidnoise.passthrough import Passthrough
from vidnoise.sinks.audio import check_audio_option
from vidnoise.sinks.codecs import (
    CODECS,
    default_codecs,
    encoder_options,
    find_encoder,
    needs_fixed_quantiser,
    rgb_encoder,
    takes_size,
)
from vidnoise.sinks.capability import holds_video
from vidnoise.sinks.copies import CopiedStreams
from vidnoise.sinks.hdr import hdr_options
from vidnoise.sinks.output_file import PartFile
from vidnoise.sinks.picture import FormatChoice, PictureWriter, choose_format
from vidnoise.sinks.repack import is_lossless

logger = logging.getLogger(__name__)

_BUFFER_SIZE = 1 << 20

_DEAD_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Tags that tell of the input's muxer, not of the video."""

_DEAD_VIDEO_TAGS = ("encoder", "duration", "bps", "number_of_frames", "number_of_bytes", "_statistics_")
"""Beginnings of tags (in lower case) that tell of the input's encoded stream."""


class ContainerSink:
    """Encodes frames into a file; see :func:`vidnoise.sinks.open_sink` for the arguments.

    The file is written as ``<name>.part`` and renamed by :meth:`close`. Only one thread may use it.
    """

    def __init__(
        self,
        path: str,
        *,
        overwrite: bool = False,
        codec: str | None = None,
        crf: float | None = None,
        preset: str | None = None,
        pix_fmt: str | None = None,
        threads: int = 0,
        audio: str = "copy",
    ) -> None:
        self.path = path
        self._overwrite = overwrite
        self._codec_name = codec
        self._crf = crf
        self._preset = preset
        self._pix_fmt = pix_fmt
        self._threads = threads
        self._audio = audio
        self._file: PartFile | None = None
        self._container: av.container.OutputContainer | None = None
        self._n_written = 0
        self._last_pts: int | None = None
        self._n_mended = 0
        self._durations: dict[int, int] = {}
        check_audio_option(audio)
        if threads < 0:
            raise UsageError(f"threads must be 0 (automatic) or more, got {threads}")
        self._check_path()
        self._format_name, self._container_codec = _container_format(path)
        if codec is not None:
            encoder = find_encoder(codec)
            encoder_options(encoder, crf, preset)
            if not holds_video(self._format_name, encoder):
                raise UsageError(f"{path}: {self._format_name} cannot hold codec {codec}; use another one, or .mkv")
        if pix_fmt is not None:
            _check_pix_fmt(pix_fmt)

    def _check_path(self) -> None:
        path = self.path
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path):
            raise SinkOpenError(f"{path}: is a directory", path)
        if not os.path.isdir(folder):
            raise SinkOpenError(f"{path}: there is no directory {folder}", path)
        if os.path.exists(path) and not self._overwrite:
            raise SinkOpenError(f"{path}: exists already; allow overwriting (-y) or choose another name", path)

    def open(self, info: StreamInfo) -> None:
        """Create ``<name>.part`` and write its header.

        Raises:
            SinkOpenError: The file cannot be created, is the input, or cannot hold the input's sound.
            FormatError: The encoder does not take such pictures.
        """
        copies = info.passthrough if isinstance(info.passthrough, Passthrough) else Passthrough()
        self._check_path()
        self._check_not_input(copies.uri)
        encoder, choice = self._choose(info)
        options = self._options(encoder, copies)
        try:
            self._file = PartFile(self.path)
        except OSError as ex:
            raise SinkOpenError(f"{self.path}: cannot be created: {ex.strerror or ex}", self.path) from ex
        try:
            self._container = av.open(self._file, "w", format=self._format_name, buffer_size=_BUFFER_SIZE)
            self._add_video(self._container, encoder, choice, options, info, copies)
            self._copies = CopiedStreams(self._container, copies.streams, audio=self._audio, uri=self.path)
            self._container.metadata.update(
                {k: v for k, v in copies.metadata.items() if k.lower() not in _DEAD_TAGS and v}
            )
            chapters = [dict(c) for c in copies.chapters if c.get("time_base")]
            if chapters:
                self._container.set_chapters(chapters)
            self._container.start_encoding()
        except BaseException as ex:
            self.abort()
            if isinstance(ex, (av.error.FFmpegError, OSError, ValueError)) and not isinstance(
                ex, (SinkOpenError, FormatError)
            ):
                raise SinkOpenError(
                    f"{self.path}: cannot begin {self._format_name} with {encoder.name} ({choice.name}, "
                    f"{info.width}x{info.height}): {self._reason(ex)}",
                    self.path,
                ) from ex
            raise

    def _check_not_input(self, uri: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if uri and os.path.exists(self.path) and os.path.samefile(uri, self.path):
                raise SinkOpenError(f"{self.path}: is the input itself; choose another name", self.path)

    def _choose(self, info: StreamInfo) -> tuple[av.codec.Codec, FormatChoice]:
        """The encoder and the pixel format, with a message where anything changes."""
        if self._codec_name is not None:
            encoder = rgb_encoder(find_encoder(self._codec_name), info.format)
            choice = self._choose_format(info, encoder)
            if choice is None:
                raise FormatError(
                    f"{self.path}: {encoder.name} takes no {info.width}x{info.height} pictures of format "
                    f"{info.format.name}; use codec ffv1 or vp9, or pix_fmt yuv444p"
                )
        else:
            encoder, choice = self._choose_default(info)
        source = info.format.name
        if not choice.is_lossless:
            logger.warning(
                "%s: %s cannot hold %s; converting to %s, which loses %s",
                self.path, encoder.name, source, choice.name, choice.loss,
            )  # fmt: skip
        elif choice.name != source:
            logger.info("%s: %s is stored as %s (same samples)", self.path, source, choice.name)
        return encoder, choice

    def _choose_default(self, info: StreamInfo) -> tuple[av.codec.Codec, FormatChoice]:
        found: list[tuple[str, av.codec.Codec, FormatChoice]] = []
        names = default_codecs(info.codec, self._container_codec)
        for name in names:
            try:
                encoder = rgb_encoder(find_encoder(name), info.format)
                encoder_options(encoder, self._crf, self._preset)
            except UsageError:
                continue
            choice = self._choose_format(info, encoder) if holds_video(self._format_name, encoder) else None
            if choice is not None:
                found.append((name, encoder, choice))
        if not found:
            raise FormatError(f"{self.path}: nothing that {self._format_name} holds takes such video; write an .mkv")
        name, encoder, choice = next((f for f in found if f[2].is_lossless), found[0])
        if name != info.codec:
            logger.info("%s: encoding as %s (the input is %s)", self.path, name, info.codec or "not encoded")
        return encoder, choice

    def _choose_format(self, info: StreamInfo, encoder: av.codec.Codec) -> FormatChoice | None:
        if self._pix_fmt is None:
            return choose_format(info, encoder)
        return _forced_format(info, encoder, self._pix_fmt)

    def _options(self, encoder: av.codec.Codec, copies: Passthrough) -> dict[str, str]:
        options = encoder_options(encoder, self._crf, self._preset)
        with_hdr = hdr_options(encoder.name, copies.hdr, options)
        if with_hdr is None:
            logger.warning("%s: %s cannot carry the HDR mastering metadata of the input", self.path, encoder.name)
            return options
        return with_hdr

    def _add_video(
        self,
        container: av.container.OutputContainer,
        encoder: av.codec.Codec,
        choice: FormatChoice,
        options: dict[str, str],
        info: StreamInfo,
        copies: Passthrough,
    ) -> None:
        self._writer = PictureWriter(info, choice)
        color = self._writer.color
        has_free_times = bool(container.format.flags & av.format.Flags.variable_fps.value)
        rate = info.rate
        self._time_base = info.time_base
        if not has_free_times:
            # One tick a frame: such containers (AVI) know a constant rate only.
            rate = rate or Fraction(25)
            self._time_base = 1 / rate
        stream = container.add_stream(encoder.name, rate=rate or 25, options=options, time_base=self._time_base)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = info.width, info.height, choice.name
        if rate is None:
            context.framerate = Fraction(0, 1)  # unknown, rather than a guess in the file's header
        # Tags on frames do not reach the file: they must be on the context before it opens.
        context.colorspace, context.color_range = color.matrix, color.range
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        context.thread_count = self._threads
        context.thread_type = ThreadType.AUTO
        if not has_free_times:
            context.max_b_frames = 0  # no presentation times to reorder by
        if needs_fixed_quantiser(encoder, options):
            context.qscale = True
            context.global_quality = 2
        if encoder.canonical_name == "hevc" and container.format.name in ("mp4", "mov", "ipod"):
            context.codec_tag = "hvc1"  # Apple's players know HEVC under this name only
        if copies.display_matrix is not None:
            stream.set_display_matrix(copies.display_matrix)
        elif info.rotation:
            stream.set_display_rotation(info.rotation)
        stream.metadata.update(
            {k: v for k, v in copies.video_metadata.items() if not k.lower().startswith(_DEAD_VIDEO_TAGS)}
        )
        if copies.video_disposition:
            stream.disposition = copies.video_disposition
        self._stream = stream
        self._nominal_duration = max(1, round(1 / (rate or Fraction(25)) / self._time_base))

    def write(self, frame: Frame) -> None:
        """Encode ``frame`` and mux the packets that ride on it.

        Raises:
            EncodeError: Encoding or writing failed; the unfinished file is gone.
            FormatError: The frame is of another size or format than the output.
        """
        with self._failing_cleanly():
            container = self._opened()
            self._copies.mux(frame.packets)
            picture = self._writer.picture(frame)
            picture.pts, duration = self._time(frame)
            picture.time_base = self._time_base
            picture.duration = duration
            self._durations[picture.pts] = duration
            container.mux(self._timed(self._stream.encode(picture)))
            self._n_written += 1

    def _time(self, frame: Frame) -> tuple[int, int]:
        """Presentation time and duration of ``frame`` in the encoder's ticks; times always go up."""
        scale = frame.time_base / self._time_base
        duration = round(frame.duration * scale) if frame.duration else 0
        if frame.pts is not None:
            pts = round(frame.pts * scale)
        else:
            pts = 0 if self._last_pts is None else self._last_pts + (duration or self._nominal_duration)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
            self._n_mended += 1
        self._last_pts = pts
        return pts, max(duration, 0)

    def _timed(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """``packets`` with the durations that some encoders forget, the last frame's above all."""
        for packet in packets:
            duration = self._durations.pop(packet.pts, 0) if packet.pts is not None else 0
            if duration:
                packet.duration = duration
            yield packet

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Finish the file and give it its final name.

        Raises:
            EncodeError: Encoding or writing failed, or no frame was ever written; no file is left behind.
        """
        if self._container is None or self._file is None:
            return
        with self._failing_cleanly():
            if self._n_written == 0:
                raise EncodeError(f"{self.path}: no frame was written, so no file", self.path)
            container = self._container
            self._copies.mux(trailing_packets)
            container.mux(self._timed(self._stream.encode(None)))
            self._copies.finish()
            container.close()
            self._container = None
            self._file.finish()
            self._file = None
        if self._n_mended:
            logger.warning("%s: %d time stamps did not go up and were mended", self.path, self._n_mended)

    def abort(self) -> None:
        """Throw the unfinished file away."""
        container, self._container = self._container, None
        file, self._file = self._file, None
        if container is not None:
            # The trailer goes into a file that is about to vanish, but libav frees its memory on the way.
            with contextlib.suppress(Exception):
                container.close()
        if file is not None:
            file.discard()

    def _opened(self) -> av.container.OutputContainer:
        if self._container is None:
            raise EncodeError(f"{self.path}: the output is not open", self.path)
        return self._container

    @contextlib.contextmanager
    def _failing_cleanly(self) -> Iterator[None]:
        try:
            yield
        except (EncodeError, FormatError):
            self.abort()
            raise
        except (av.error.FFmpegError, OSError, ValueError) as ex:
            message = f"{self.path}: writing failed: {self._reason(ex)}"
            self.abort()
            raise EncodeError(message, self.path) from ex
        except BaseException:
            self.abort()
            raise

    def _reason(self, error: BaseException) -> str:
        if self._file is not None and self._file.error is not None:
            error = self._file.error
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return str(text).splitlines()[0]


def _container_format(path: str) -> tuple[str, str]:
    """FFmpeg's name of the container that the extension stands for, and the codec it likes best.

    Raises:
        FormatError: The extension stands for none, or for one without video.
    """
    extension = os.path.splitext(path)[1]
    hint = "use .mp4, .mkv, .mov, .webm, .avi or .ts"
    if not extension:
        raise FormatError(f"{path}: has no extension that would tell the container; {hint}")
    try:
        # Nothing is created before the header is written.
        probe = av.open("probe" + extension.lower(), "w")
    except (ValueError, av.error.FFmpegError) as ex:
        raise FormatError(f"{path}: {extension} is no known video container; {hint}") from ex
    codec = probe.default_video_codec
    if codec in ("none", "wrapped_avframe") or probe.format.no_file or probe.format.name in ("mp3", "flac", "image2"):
        raise FormatError(f"{path}: {extension} is no container for encoded video; {hint}")
    return probe.format.name, codec


def _check_pix_fmt(name: str) -> None:
    try:
        av.VideoFormat(name)
    except (ValueError, av.error.FFmpegError) as ex:
        raise UsageError(f"unknown pixel format {name!r}; yuv420p, yuv420p10le and yuv444p are common ones") from ex


def _forced_format(info: StreamInfo, encoder: av.codec.Codec, name: str) -> FormatChoice | None:
    """The format that the user asked for.

    Raises:
        UsageError: The encoder does not take it.
    """
    names = [f.name for f in encoder.video_formats or ()]
    if names and name not in names:
        raise UsageError(f"{encoder.name} does not take pix_fmt {name}; it takes {', '.join(names)}")
    target = PIXEL_FORMATS.get(name)
    if target is not None and not takes_size(encoder, target, info.width, info.height):
        return None
    if target is not None and is_lossless(info.format, target):
        return FormatChoice(name, True)
    return FormatChoice(name, False, "what that format has no room for")


__all__ = ["CODECS", "ContainerSink"]
