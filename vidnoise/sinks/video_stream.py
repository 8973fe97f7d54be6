"""The encoded video stream of an output: its tags, its clock, its packets."""

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
from vidnoise.sinks.scheduling import scheduling_kept
from vidnoise.sinks.stamps import Stamps
from vidnoise.sinks.tags import CHROMA_LOCATIONS, stream_tags
from vidnoise.sinks.uncompressed import is_uncompressed

logger = logging.getLogger(__name__)

_DEAD_TAGS = ("encoder", "duration", "bps", "number_of_frames", "number_of_bytes", "_statistics_", "alpha_mode")
"""Beginnings of tags (in lower case) that tell of the input's encoded stream, not of the video."""


_TOLD_AGAIN = ("mpegts", "h264", "rtsp", "hls")
"""Containers in which each key frame comes with all that a decoder has to know."""

_MAX_DELAY = 1024
"""No encoder holds back more frames than this."""


_FREE_TIMES = ("ipod", "3gp", "3g2", "f4v", "ismv", "psp")
"""Brothers of .mp4, of which libav only says nothing of the kind."""

_WITHOUT_EDITS = ("f4v", "ismv")
"""Those of them that cannot say that the first picture in order of decoding is not the first to be shown."""


_WITHOUT_GAPS = ("mpeg", "vob", "dvd", "svcd", "vcd")
"""Containers of a constant rate that cannot leave a frame out either: only now and then they say what time it is."""

_MOVED_SECONDS = 0.005
"""Beyond what rounding to a container's ticks does."""


def has_free_times(container: av.container.OutputContainer) -> bool:
    """Whether frames may be shown at any time, or only on the grid of a constant rate."""
    return container.format.name in _FREE_TIMES or bool(container.format.flags & av.format.Flags.variable_fps.value)


class VideoStreamWriter:
    """Encodes pictures and muxes the packets. Not thread-safe.

    Args:
        container: The output, before its header is written.
        encoder: The encoder.
        pix_fmt: Pixel format of the pictures that :meth:`write` gets.
        options: Of the encoder.
        info: What the source says of the video.
        copies: Tags to be carried over.
        color: Colour tags of the output.
        threads: Encoder threads; 0 lets it choose.
        deliver: Takes the packets; by default they go into ``container``.
        last_pts: Time of the frame before the first one, where another writer had it.
        notify: Told of tags that the container cannot hold.
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
        self.n_mended = 0
        """Frames whose time did not come after the one before."""
        self.most_moved = Fraction(0)
        """Seconds by which the grid of a container that knows a constant rate only moved a frame's time at most."""
        self.last_pts = last_pts
        """Of the last frame, in the encoder's ticks."""
        self._durations: dict[int, int] = {}
        self.has_free_times = has_free_times(container)
        self._is_counted = is_uncompressed(container.format.name)
        """Nothing tells the time but the number of the frame."""
        self._n_written = 0
        self._first_seconds: Fraction | None = None
        rate = info.rate
        # The source's own clock: with the default of one tick a frame, variable rates would be rounded away.
        self._time_base = info.time_base
        if not self.has_free_times:
            # Such containers (AVI) know a constant rate only.
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
            context.framerate = Fraction(0, 1)  # unknown, rather than a guess in the file's header
        # Tags on frames do not reach the file: they must be on the context before it opens.
        context.colorspace, context.color_range = color.matrix, color.range
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        context.thread_count = threads
        context.thread_type = ThreadType.AUTO
        if not self.has_free_times or container.format.name in _WITHOUT_EDITS:
            context.max_b_frames = 0  # no presentation times to reorder by
        if not self._is_counted and needs_fixed_quantiser(encoder, options):
            context.qscale = True
            context.global_quality = 2
        if encoder.canonical_name == "hevc" and container.format.name in ("mp4", "mov", "ipod"):
            context.codec_tag = "hvc1"  # Apple's players know HEVC under this name only
        if copies.display_matrix is not None:
            stream.set_display_matrix(copies.display_matrix)
        elif info.rotation:
            stream.set_display_rotation(info.rotation)
        tags = {k: v for k, v in copies.video_metadata.items() if not k.lower().startswith(_DEAD_TAGS)}
        stream.metadata.update(stream_tags(tags, container.format.name, "the video", notify))
        if copies.video_disposition:
            stream.disposition = av.stream.Disposition(copies.video_disposition)
        self._stream = stream
        self._stamps = Stamps(container, stream)
        self._aspect = info.sample_aspect_ratio
        # An encoder that looks ahead would tell the new one of pictures that have the old one still.
        is_prompt = encoder.name == "libx264" and options.get("tune") == "zerolatency"
        self._can_follow = is_prompt and container.format.name in _TOLD_AGAIN
        self._nominal_duration = max(1, round(1 / (rate or Fraction(25)) / self._time_base))

    def write(self, frame: Frame, picture: av.VideoFrame) -> None:
        """Encode ``picture``, which shows ``frame``, at the frame's time."""
        self._follow_aspect(frame, picture)
        picture.pts, picture.duration = self._time(frame)
        picture.time_base = self._time_base
        self._durations[picture.pts] = picture.duration
        opening = contextlib.nullcontext() if self._stream.codec_context.is_open else scheduling_kept()
        with opening:
            packets = self._stream.encode(picture)
        self._mux(packets)

    def _follow_aspect(self, frame: Frame, picture: av.VideoFrame) -> None:
        """Broadcasts change the shape of their pixels in the middle; some containers can say so from there on."""
        now = frame.sample_aspect_ratio
        if now is None or now == self._aspect:
            return
        was, self._aspect = self._aspect, now
        if was is None:
            return
        if self._can_follow:
            self._stream.codec_context.sample_aspect_ratio = now
            picture.pict_type = PictureType.I
        logger.warning(
            "at %.3f s the input's sample aspect ratio changes from %s to %s; the output %s",
            float(frame.seconds or 0), was, now,
            "follows" if self._can_follow else "goes on with the first",
        )  # fmt: skip

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._mux(self._stream.encode(None))

    @property
    def headers(self) -> bytes:
        """What a decoder has to know before the first packet; empty where the packets say it all."""
        return bytes(self._stream.codec_context.extradata or b"")

    def mux_encoded(self, packet: av.Packet) -> None:
        """Mux a packet that this writer, or one with the same settings, has encoded; its times are in its time base."""
        self._stamps.place(packet)
        self._container.mux_one(packet)

    def warn_of_moved_times(self, uri: str) -> None:
        """Say what became of times that the container cannot have.

        Args:
            uri: The output, for messages.
        """
        if self.most_moved > _MOVED_SECONDS:
            logger.warning(
                "%s: %s knows a constant frame rate only; frames were moved by up to %.3f s. Write an .mp4 or .mkv",
                uri, self._container.format.name, self.most_moved,
            )  # fmt: skip
        elif self.n_mended:
            logger.warning("%s: %d time stamps did not go up and were mended", uri, self.n_mended)

    def _time(self, frame: Frame) -> tuple[int, int]:
        """Presentation time and duration of ``frame`` in the encoder's ticks; times always go up."""
        if self._is_counted:
            return self._count(frame), 1
        scale = frame.time_base / self._time_base
        duration = max(round(frame.duration * scale), 0) if frame.duration else 0
        if frame.pts is not None:
            pts = round(frame.pts * scale)
        else:
            pts = 0 if self.last_pts is None else self.last_pts + (duration or self._nominal_duration)
        if self.last_pts is not None and pts <= self.last_pts:
            pts = self.last_pts + 1
            self.n_mended += 1
        if frame.seconds is not None and not self.has_free_times:
            moved = abs(pts * self._time_base - frame.seconds)
            if self._container.format.name in _WITHOUT_GAPS and self.last_pts is not None:
                moved = max(moved, (pts - self.last_pts - 1) * self._time_base)
            self.most_moved = max(self.most_moved, moved)
        self.last_pts = pts
        return pts, duration

    def _count(self, frame: Frame) -> int:
        number = self._n_written
        self._n_written += 1
        seconds = frame.seconds
        if seconds is not None:
            if self._first_seconds is None:
                self._first_seconds = seconds - number * self._time_base
            self.most_moved = max(self.most_moved, abs(number * self._time_base + self._first_seconds - seconds))
        return number

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        for packet in packets:
            # Some encoders forget durations; the last frame's would be lost.
            duration = self._durations.pop(packet.pts, 0) if packet.pts is not None else 0
            if duration:
                packet.duration = duration
            self._deliver(packet)
        while len(self._durations) > _MAX_DELAY:  # an encoder that changes times
            del self._durations[next(iter(self._durations))]
