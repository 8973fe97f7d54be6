"""The encoded video stream of an output: tags, timestamps and packets."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import cast

import av
import av.codec.codec
import av.container
import av.format
import av.stream
from av.codec.context import ThreadType
from av.video.frame import PictureType

from vidnoise.frame import ColorInfo, Frame, StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.notices import Notify
from vidnoise.sinks.codecs import needs_fixed_quantiser
from vidnoise.sinks.scheduling import preserve_scheduling
from vidnoise.sinks.stamps import Stamps
from vidnoise.sinks.tags import CHROMA_LOCATIONS, stream_tags
from vidnoise.sinks.uncompressed import is_uncompressed

logger = logging.getLogger(__name__)

_ENCODING_TAGS = ("encoder", "duration", "bps", "number_of_frames", "number_of_bytes", "_statistics_", "alpha_mode")
"""Prefixes of tags, in lower case, that describe the input's encoded stream rather than the video."""


_REPEATS_HEADERS = ("mpegts", "h264", "rtsp", "hls")
"""Containers in which every key frame comes with all headers that a decoder needs."""

_MAX_DELAY = 1024
"""Maximum number of frames that any encoder buffers."""


_FREE_TIMES = ("ipod", "3gp", "3g2", "f4v", "ismv", "psp")
"""Relatives of .mp4 that have variable frame rates although libav does not flag them so."""

_WITHOUT_EDITS = ("f4v", "ismv")
"""Relatives of .mp4 without edit lists: they cannot express that the first picture decoded is not the first shown."""


_WITHOUT_GAPS = ("mpeg", "vob", "dvd", "svcd", "vcd")
"""Containers of constant rate that cannot skip a frame either: they store a time only now and then."""

_MOVED_SECONDS = 0.005
"""Shift of a frame, in seconds, that rounding to a container's ticks does not explain."""


def has_free_times(container: av.container.OutputContainer) -> bool:
    """Whether a container stores a time for each frame, rather than a constant rate."""
    return container.format.name in _FREE_TIMES or bool(container.format.flags & av.format.Flags.variable_fps.value)


class VideoStreamWriter:
    """Encodes pictures and muxes the packets. Not thread-safe.

    Args:
        container: The output, before its header is written.
        encoder: The encoder.
        pix_fmt: Pixel format of the pictures passed to :meth:`write`.
        options: Options of the encoder.
        info: The source's description of the video.
        copies: Metadata to copy.
        color: Colour tags of the output.
        threads: Encoder threads; 0 lets the encoder choose.
        deliver: Receives the packets; by default they are muxed into ``container``.
        last_pts: Time of the frame before the first one, if another writer wrote it, in the encoder's ticks.
        notify: Called for tags that the container cannot store.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        encoder: av.codec.codec.Codec,
        pix_fmt: str,
        options: dict[str, str],
        info: StreamInfo,
        copies: Passthrough,
        *,
        color: ColorInfo,
        threads: int,
        deliver: Callable[[av.Packet], None] | None = None,
        last_pts: int | None = None,
        notify: Notify = logger.log,
    ) -> None:
        self._container = container
        self._deliver = deliver or self.mux_encoded
        self.n_repaired = 0
        """Number of frames whose time had to be moved after that of the previous frame."""
        self.max_shift = Fraction(0)
        """Largest shift of a frame, in seconds, onto the grid of a container of constant rate."""
        self.last_pts = last_pts
        """Time of the last frame, in the encoder's ticks."""
        self._durations: dict[int, int] = {}
        self.has_free_times = has_free_times(container)
        self._is_untimed = is_uncompressed(container.format.name)
        """Whether the container stores no times: a frame's number implies its time."""
        self._n_written = 0
        self._first_seconds: Fraction | None = None
        rate = info.rate
        # The source's time base: with the default of one tick per frame, variable rates would be rounded away.
        self._time_base = info.time_base
        if not self.has_free_times:
            # Such containers (AVI) store only a constant rate.
            rate = rate or Fraction(25)
            self._time_base = 1 / rate
        if color.chroma_location:
            options = {**options, "chroma_sample_location": CHROMA_LOCATIONS[color.chroma_location]}
        stream = cast(
            av.VideoStream,
            container.add_stream(encoder.name, rate=rate or 25, options=options, time_base=self._time_base),
        )
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = info.width, info.height, pix_fmt
        if rate is None:
            context.framerate = Fraction(0, 1)  # written as unknown rather than as a guess
        # Tags on frames do not reach the file: they must be set on the context before it opens.
        context.colorspace, context.color_range = color.matrix, color.range
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        context.thread_count = threads
        context.thread_type = ThreadType.AUTO
        if not self.has_free_times or container.format.name in _WITHOUT_EDITS:
            context.max_b_frames = 0  # without presentation times there is no reordering
        if not self._is_untimed and needs_fixed_quantiser(encoder, options):
            context.qscale = True
            context.global_quality = 2
        if encoder.canonical_name == "hevc" and container.format.name in ("mp4", "mov", "ipod"):
            context.codec_tag = "hvc1"  # Apple's players support HEVC only under this tag
        if copies.display_matrix is not None:
            stream.set_display_matrix(copies.display_matrix)
        elif info.rotation:
            stream.set_display_rotation(info.rotation)
        tags = {k: v for k, v in copies.video_metadata.items() if not k.lower().startswith(_ENCODING_TAGS)}
        stream.metadata.update(stream_tags(tags, container.format.name, "the video", notify))
        if copies.video_disposition:
            stream.disposition = av.stream.Disposition(copies.video_disposition)
        self._stream = stream
        self._stamps = Stamps(container, stream)
        self._aspect = info.sample_aspect_ratio
        # An encoder with lookahead would apply the new ratio to pictures that still have the old one.
        is_prompt = encoder.name == "libx264" and options.get("tune") == "zerolatency"
        self._can_change_aspect = is_prompt and container.format.name in _REPEATS_HEADERS
        self._nominal_duration = max(1, round(1 / (rate or Fraction(25)) / self._time_base))

    def write(self, frame: Frame, picture: av.VideoFrame) -> None:
        """Encode ``picture``, made from ``frame``, at the frame's time."""
        self._update_aspect(frame, picture)
        picture.pts, picture.duration = self._time(frame)
        picture.time_base = self._time_base
        self._durations[picture.pts] = picture.duration
        opening = contextlib.nullcontext() if self._stream.codec_context.is_open else preserve_scheduling()
        with opening:
            packets = self._stream.encode(picture)
        self._mux(packets)

    def _update_aspect(self, frame: Frame, picture: av.VideoFrame) -> None:
        """Apply a change of the sample aspect ratio, as broadcasts have them, if the container supports it."""
        now = frame.sample_aspect_ratio
        if now is None or now == self._aspect:
            return
        was, self._aspect = self._aspect, now
        if was is None:
            return
        if self._can_change_aspect:
            self._stream.codec_context.sample_aspect_ratio = now
            picture.pict_type = PictureType.I
        logger.warning(
            "at %.3f s the input's sample aspect ratio changes from %s to %s; the output %s",
            float(frame.seconds or 0), was, now,
            "follows" if self._can_change_aspect else "goes on with the first",
        )  # fmt: skip

    def finish(self) -> None:
        """Flush the encoder."""
        self._mux(self._stream.encode(None))

    @property
    def headers(self) -> bytes:
        """Headers (extradata) that a decoder needs before the first packet; empty if packets contain them."""
        return bytes(self._stream.codec_context.extradata or b"")

    def mux_encoded(self, packet: av.Packet) -> None:
        """Mux an encoded packet, possibly from another writer with equal settings; times are in its time base."""
        self._stamps.rescale(packet)
        self._container.mux_one(packet)

    def warn_of_shifted_times(self, uri: str) -> None:
        """Warn about timestamps that were changed.

        Args:
            uri: The output's name in messages.
        """
        if self.max_shift > _MOVED_SECONDS:
            logger.warning(
                "%s: %s knows a constant frame rate only; frames were moved by up to %.3f s. Write an .mp4 or .mkv",
                uri, self._container.format.name, self.max_shift,
            )  # fmt: skip
        elif self.n_repaired:
            logger.warning("%s: %d time stamps did not go up and were mended", uri, self.n_repaired)

    def _time(self, frame: Frame) -> tuple[int, int]:
        """Return the time and duration of ``frame`` in the encoder's ticks; times always increase."""
        if self._is_untimed:
            return self._frame_number(frame), 1
        scale = frame.time_base / self._time_base
        duration = max(round(frame.duration * scale), 0) if frame.duration else 0
        if frame.pts is not None:
            pts = round(frame.pts * scale)
        else:
            pts = 0 if self.last_pts is None else self.last_pts + (duration or self._nominal_duration)
        if self.last_pts is not None and pts <= self.last_pts:
            pts = self.last_pts + 1
            self.n_repaired += 1
        if frame.seconds is not None and not self.has_free_times:
            shift = abs(pts * self._time_base - frame.seconds)
            if self._container.format.name in _WITHOUT_GAPS and self.last_pts is not None:
                shift = max(shift, (pts - self.last_pts - 1) * self._time_base)
            self.max_shift = max(self.max_shift, shift)
        self.last_pts = pts
        return pts, duration

    def _frame_number(self, frame: Frame) -> int:
        number = self._n_written
        self._n_written += 1
        seconds = frame.seconds
        if seconds is not None:
            if self._first_seconds is None:
                self._first_seconds = seconds - number * self._time_base
            self.max_shift = max(self.max_shift, abs(number * self._time_base + self._first_seconds - seconds))
        return number

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        for packet in packets:
            # Some encoders drop durations, and that of the last frame would be lost.
            duration = self._durations.pop(packet.pts, 0) if packet.pts is not None else 0
            if duration:
                packet.duration = duration
            self._deliver(packet)
        while len(self._durations) > _MAX_DELAY:  # for encoders that change timestamps
            del self._durations[next(iter(self._durations))]
