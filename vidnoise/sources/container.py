"""Files, URLs and filter graphs: everything that libav opens as a container."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import av.container
import av.error
import av.stream

from vidnoise.errors import DecodeError, FormatError, SourceError, SourceOpenError, UsageError
from vidnoise.frame import Frame, Packet, StreamInfo
from vidnoise.frame.stamps import shown_at
from vidnoise.notices import Notify
from vidnoise.option_values import MAX_PIXELS, SizeChange
from vidnoise.options import SourceOptions
from vidnoise.sources.copied import CopiedPackets, shown_seconds
from vidnoise.sources.decoding import DecodedStream, has_clock, has_known_size
from vidnoise.sources.description import (
    chroma_location,
    copied_streams,
    describe,
    describe_part,
    libav_description,
    main_video,
    missing_seconds,
    to_fraction,
    total_seconds,
)
from vidnoise.sources.dolby_vision import check_dolby_vision
from vidnoise.sources.hardware import Hardware
from vidnoise.sources.interlacing import FieldDetector
from vidnoise.sources.opening import open_container
from vidnoise.sources.picture import PictureReader
from vidnoise.sources.protocol import ClosedAfterUse
from vidnoise.sources.seeking import PictureStream
from vidnoise.sources.side_data import SideDataMonitor
from vidnoise.sources.size_change import is_same_format, size_change_error
from vidnoise.sources.tracks import TrackSelection
from vidnoise.sources.trim import TimeRange
from vidnoise.stills.loops import read_plays
from vidnoise.text import shown

logger = logging.getLogger(__name__)

_ANIMATIONS = ("gif", "apng")
"""FFmpeg's names of the demuxers of animations, whose number of plays is read separately."""

_BROADCAST_CLOCK_SECONDS = 60
"""Start of a transport stream, in seconds, above which it is taken for the time of a broadcast's clock."""


class ContainerSource(ClosedAfterUse):
    """Reads the main video stream of a container once, front to back, in constant memory.

    All other streams are passed through as packets. Not thread-safe: the thread that iterates is the one that closes;
    :meth:`close` from another thread waits for the frame in progress.

    Args:
        uri: A path, a URL, or ``lavfi:<graph>``.
        options: Options of an input; ``input_format`` and ``input_options`` must be in FFmpeg's terms.
        timeout: Seconds to wait for the input to open, and for data; by default, URLs have timeouts and others do not.
        name: libav's name of a device.
        is_live: Whether the input is live, so that the decoder must not buffer frames. None detects it: URLs without an
            end are live, and ``duration`` is then left to the caller.
        keeps_clock: Whether a transport stream keeps the timestamps of its clock; if not, it begins at 0.
        hardware: The decoding device; by default the CPU.
        notify: Called for what a user should know of the input.

    Raises:
        SourceOpenError: The input is missing, unreadable, or contains no video.
        DecodeError: No picture could be decoded.
        FormatError: The pixel format cannot be processed without loss.
        UsageError: ``start`` is after the end, or a chosen track does not exist.
    """

    info: StreamInfo

    def __init__(
        self,
        uri: str,
        options: SourceOptions,
        *,
        timeout: float | tuple[float, float] | None = None,
        name: str | None = None,
        is_live: bool | None = None,
        keeps_clock: bool = True,
        hardware: Hardware | None = None,
        notify: Notify = logger.log,
    ) -> None:
        self._address = uri
        self.uri = shown(uri)
        self._notify = notify
        self.size_change: SizeChange = options.size_change or "stop"
        self._next: tuple[av.VideoFrame, list[av.Packet], Fraction] | None = None
        """The first picture of another size, the packets before it, and its time."""
        self._last_size: tuple[int, int, str] | None = None
        self._hardware = hardware
        self._accelerator = None if hardware is None else hardware.accelerator()
        self._fields = FieldDetector(options.interlaced, self.uri, notify)
        self._tracks = TrackSelection(options.tracks)
        self._keeps_clock = keeps_clock
        self._max_pixels = options.max_pixels or MAX_PIXELS
        self._name = name or ""
        self._is_live = is_live
        self.trailing_packets: tuple[Packet, ...] = ()
        self.ended_early_seconds = 0.0
        """Seconds by which the input is shorter than its header says; 0 if it is complete."""
        self._range = TimeRange(options.start, options.duration)
        self._reader = PictureReader(self.uri, notify)
        self._lock = threading.Lock()
        self._closed = self._started = self._stopped = False
        self._container = self._open(options.input_format, options.input_options, timeout)
        try:
            self._prepare(options.threads)
        except BaseException:
            self.close()
            raise

    def _open(
        self, format: str | None, options: dict[str, str] | None, timeout: float | tuple[float, float] | None
    ) -> av.container.InputContainer:
        return open_container(self._address, format, options, timeout, name=self._name, accelerator=self._accelerator)

    @property
    def n_corrupt(self) -> int:
        return self._decoded.n_corrupt

    def stop(self) -> None:
        """End the iteration as soon as possible. Thread-safe."""
        self._stopped = True

    def close(self) -> None:
        with self._lock:
            self._close_container()

    def _close_container(self) -> None:
        if not self._closed:
            self._closed = True
            self._container.close()

    def _prepare(self, threads: int) -> None:
        container = self._container
        chosen = self._tracks.select(list(container.streams), self.uri)
        for stream in container.streams:
            if stream not in chosen:
                self._notify(
                    logging.INFO, "%s: %s", self.uri, f"{stream.type} stream #{stream.index} is dropped, as asked"
                )
        video = main_video(chosen)
        if video is None and main_video(list(container.streams)):
            raise UsageError(f"{self.uri}: no video is left of the chosen tracks", "tracks")
        if video is None:
            has_cover = any(True for _ in container.streams.video)
            what = "only a cover picture" if has_cover else "no video stream"
            raise SourceOpenError(f"{self.uri}: holds {what}", self.uri)
        if video.codec_context is None:
            raise SourceOpenError(f"{self.uri}: its video codec is not supported by this build of FFmpeg", self.uri)
        width, height = video.codec_context.width, video.codec_context.height
        if width * height > self._max_pixels:
            raise FormatError(
                f"{self.uri}: is {width}x{height}, which is more than {self._max_pixels} pixels; "
                "max_pixels=N allows larger pictures"
            )
        if self._hardware is not None:
            self._hardware.check(video.codec_context, self.uri)
        self._video = video
        self._time_base = to_fraction(video.time_base) or Fraction(1, 90000)
        self._begin = self._beginning()
        if not self._keeps_clock and has_clock(container):
            self._range.clock_seconds = self._begin
            level = logging.WARNING if self._begin > _BROADCAST_CLOCK_SECONDS else logging.INFO
            self._notify(level, "%s: its clock begins at %.3f s; the output begins at 0", self.uri, self._begin)
        details = libav_description(container)
        copied = copied_streams(container, chosen, video, details)
        wanted = [s for s in copied if s.template is not None and s.kind != "attachment"]
        self._copied = CopiedPackets(wanted, self._range)
        others = [container.streams[s.index] for s in wanted]
        self._decoded = DecodedStream(
            container, video, others, uri=self.uri, notify=self._notify, threads=threads,
            is_live=bool(self._is_live), max_pixels=self._max_pixels,
        )  # fmt: skip
        covers = self._copied.covers
        self._pictures = PictureStream(
            container, video, self._decoded, uri=self.uri, time_base=self._time_base, begin=self._begin, covers=covers
        )
        self._first, self._held = self._find_first()
        found = {p.stream_index: bytes(p) for p in self._held if p.stream_index in covers}
        copied = tuple(replace(s, picture=found.get(s.index, b"")) for s in copied)
        format = self._reader.format_of(self._first)
        if format.log2_chroma_w or format.log2_chroma_h:
            self._reader.chroma_location = chroma_location(details, video)
        color = self._reader.color_of(self._first, format, video.codec_context.codec.canonical_name)
        total = total_seconds(container, video)
        is_live = self._is_live
        if is_live is None:
            is_live = "://" in self.uri and total is None and not self._range.start and not has_known_size(container)
            if is_live:
                self._range.duration = None
        check_dolby_vision(self._first, self.uri, self._notify)
        self._fields.begin(video, self._first)
        self.info = describe(
            container, video, self._first, format, color, uri=self._address, others=copied,
            chapters=self._range.trim_chapters(container.chapters()), trimmed_seconds=self._range.length_of(total),
            is_trimmed=self._range.start is not None or self._range.duration is not None,
            field_order=self._fields.order, is_live=is_live,
        )  # fmt: skip
        if container.format.name in _ANIMATIONS:
            copies = replace(self.info.passthrough, plays=read_plays(self._address))
            self.info = replace(self.info, passthrough=copies)
        self._total_seconds = total
        self._side_data = SideDataMonitor(self.uri, self._first, self._time_base, self._begin, self._notify)

    def _beginning(self) -> Fraction:
        """Return the start of the input on its own clock, in seconds."""
        if self._container.start_time is not None:
            return Fraction(self._container.start_time, av.time_base)
        return (self._video.start_time or 0) * self._time_base

    def _find_first(self) -> tuple[av.VideoFrame, list[av.Packet]]:
        """Return the first picture of the time range, and the packets of other streams before it."""
        start = self._range.start
        picture, held = self._pictures.next() if start is None else self._pictures.seek(self._begin + start)
        if picture is None:
            if start and self._decoded.n_lost == 0:
                raise UsageError(f"{self.uri}: start {float(start):g} s is behind the end of the video", "start")
            raise DecodeError(self._nothing_decoded(), self.uri)
        self._range.origin_seconds = self._pictures.seconds(picture, None)
        return picture, held

    def _nothing_decoded(self) -> str:
        return f"{self.uri}: not one picture could be decoded"

    def __iter__(self) -> Iterator[Frame]:
        if self._started:
            raise SourceError(f"{self.uri}: a source can be read only once; open it again", self.uri)
        if self._closed:
            raise SourceError(f"{self.uri}: the source is closed; open it again", self.uri)
        self._started = True
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        picture: av.VideoFrame | None = self._first
        held = self._held
        del self._first, self._held
        previous: Frame | None = None
        seconds: Fraction | None = None
        n_frames = 0
        try:
            while True:
                with self._lock:
                    if self._closed or self._stopped:
                        return
                    if picture is None:
                        picture, held = self._pictures.next()
                    if picture is None:
                        self._finish(self._copied.trim(held), n_frames)
                        return
                    seconds = self._pictures.seconds(picture, seconds)
                    if self.size_change == "split" and self._differs(picture):
                        before = [p for p in held if _is_before(p, seconds)]
                        self._next = picture, [p for p in held if p not in before], seconds
                        self.trailing_packets = self._copied.trim(before)
                        return
                    packets = self._copied.trim(held)
                    if self._range.is_past_end(seconds):
                        self.trailing_packets = packets + self._copied.tail(self._pictures.packets())
                        return
                    frame = self._frame(picture, packets, previous, n_frames)
                    picture, held = None, []
                    n_frames += 1
                    previous = frame
                yield frame
        finally:
            if not self.has_next:
                self.close()

    @property
    def has_next(self) -> bool:
        """Whether the picture size has changed, so that :meth:`next_part` can continue with the new one."""
        return self._next is not None

    def next_part(self) -> bool:
        """Continue after a change of the picture size: ``info`` describes the new part, which can be iterated.

        Timestamps restart at zero, unless they are those of a broadcast's clock.

        Returns:
            Whether there was another part.
        """
        if self._next is None:
            return False
        (self._first, self._held, seconds), self._next = self._next, None
        self._started = self._stopped = False  # the reader of the previous part has stopped it at its end
        if not self._keeps_clock:
            self._range.begin_part(seconds)
        picture = self._first
        format = self._reader.format_of(picture)
        color = self._reader.color_of(picture, format, self.info.codec)
        self.info = describe_part(self.info, picture, format, color, self._decoded.sample_aspect_ratio)
        self.trailing_packets = ()
        self._side_data = SideDataMonitor(self.uri, picture, self._time_base, self._begin, self._notify)
        return True

    def present_as(self, info: StreamInfo) -> None:
        """Scale all pictures to the size and format of ``info``, that of the input before it was reopened."""
        self.info = replace(self.info, width=info.width, height=info.height, format=info.format)

    @property
    def shift(self) -> int:
        """Ticks subtracted from each timestamp because of the start of the time range."""
        return self._range.shift(self._time_base)

    def copied_packets(self) -> Iterator[Packet]:
        """Yield the packets of the other streams instead of frames; fast, since nothing is decoded."""
        self._started = True
        yield from self._copied.trim(self._held)
        yield from self._copied.all(self._pictures.packets())

    def _frame(self, picture: av.VideoFrame, packets: tuple[Packet, ...], previous: Frame | None, count: int) -> Frame:
        info = self.info
        size = (picture.width, picture.height, picture.format.name)
        has_changed, self._last_size = self._last_size not in (None, size), size
        side_data = self._side_data.check(picture)
        if self._differs(picture):
            if self.size_change != "scale":
                raise size_change_error(self.uri, info, picture, count, self._since_begin(picture))
            if has_changed or previous is None:
                self._notify(
                    logging.WARNING,
                    "%s: the picture changes to %dx%d %s at %.3f s; it is scaled to the first size, %dx%d %s",
                    self.uri, *size, self._since_begin(picture), info.width, info.height, info.format.name,
                )  # fmt: skip
            picture = picture.reformat(info.width, info.height, info.format.name)
        format, planes = self._reader.read(picture)
        color = self._reader.color_of(picture, format, info.codec)
        if is_same_format(format, info.format):
            format = info.format
        stamp = shown_at(picture)
        if stamp is not None:
            pts = stamp - self._range.shift(self._time_base)
        elif previous is None or previous.pts is None:
            pts = 0
        else:
            pts = previous.pts + (previous.duration or self._pictures.ticks_per_frame())
        frame = Frame(
            planes=planes,
            format=format,
            color=color,
            pts=pts,
            duration=picture.duration or None,
            time_base=self._time_base,
            index=count + self._decoded.n_lost,
            discontinuity=self._is_cut(stamp) or (previous is None and bool(self._range.start)) or has_changed,
            sample_aspect_ratio=self._decoded.sample_aspect_ratio,
            packets=packets,
            side_data=side_data,
        )
        return self._fields.marked(frame, picture)

    def _is_cut(self, stamp: int | None) -> bool:
        """Whether the input's clock jumped between the previous picture and the one at ``stamp``."""
        jumps = self._decoded.jumps
        if not jumps or stamp is None or stamp < jumps[0]:
            return False
        jumps.popleft()
        return True

    def _differs(self, picture: av.VideoFrame) -> bool:
        """Whether ``picture`` differs in size or format from the output."""
        info = self.info
        is_same = (picture.width, picture.height) == (info.width, info.height)
        return not is_same or not is_same_format(self._reader.format_of(picture), info.format)

    def _since_begin(self, picture: av.VideoFrame) -> Fraction:
        return self._pictures.seconds(picture, None) - self._begin

    def _finish(self, packets: tuple[Packet, ...], n_frames: int) -> None:
        self.trailing_packets = packets
        read = max(self._copied.last_seconds, self._decoded.last_seconds) - self._begin
        if self._total_seconds and not self._stopped:
            frame = self._pictures.ticks_per_frame() * self._time_base
            self.ended_early_seconds = missing_seconds(self._container.format.name, self._total_seconds, read, frame)
        if self.ended_early_seconds:
            self._notify(
                logging.WARNING, "%s: ended %.2f s before the end that its header gives; it seems to be cut off",
                self.uri, self.ended_early_seconds,
            )  # fmt: skip
        if self.n_corrupt:
            self._notify(logging.WARNING, "%s: %d damaged packets or pictures", self.uri, self.n_corrupt)


def _is_before(packet: av.Packet, seconds: Fraction) -> bool:
    return (shown := shown_seconds(packet)) is not None and shown < seconds
