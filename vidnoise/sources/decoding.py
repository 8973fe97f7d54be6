"""The loop around libav's demuxer and decoder: packets in, pictures out, and damage counted."""

from __future__ import annotations

import errno
import logging
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import cast

import av
import av.codec.codec
import av.container
import av.error
import av.format
import av.logging
import av.stream
from av.codec.context import ThreadType

from vidnoise.errors import DecodeError, SourceLostError
from vidnoise.frame.stamps import shown_at
from vidnoise.notices import Notify
from vidnoise.option_values import MAX_PIXELS
from vidnoise.sources.copied import end_seconds
from vidnoise.sources.timeline import Timeline

logger = logging.getLogger(__name__)

MAX_CONSECUTIVE_FAILURES = 300
"""Consecutive damaged packets before giving up.

Isolated damage is skipped, and a stream joined between two key frames may fail for a whole group of pictures (10 s
at 30 frames/s). An input that fails for longer will not recover.
"""


_HAS_LATE_STREAMS = ("flv", "live_flv", "mpeg", "mpegts")
"""Containers in which streams may start at any time."""

_CHECK_INTERVAL = 1000
"""Packets between two checks for late streams."""

_DIVX_MARK = re.compile(rb"\x00\x00\x01\xb2DivX\d+(?:b|Build)\d+(p?)")
"""Signature that MPEG-4 encoders write before key frames; ``p`` means that B-frames are packed with later frames."""


def reason(error: BaseException) -> str:
    """Describe an error of libav in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].strip()


def has_clock(container: av.container.InputContainer) -> bool:
    """Whether timestamps follow a running clock, which may jump, as in transport streams."""
    return bool(container.format.flags & av.format.Flags.ts_discont.value)


_PLAYLISTS = ("hls", "dash")
"""Containers whose size says nothing about that of the video."""


def has_known_size(container: av.container.InputContainer) -> bool:
    """Whether the size in bytes is known, so that the input must have an end."""
    if container.format.name.split(",")[0] in _PLAYLISTS:
        return False
    try:
        return container.size > 0
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def choose_decoder(video: av.VideoStream, notify: Notify) -> av.VideoCodecContext:
    """Return the decoder of a stream, replaced if it would silently drop transparency."""
    context = video.codec_context
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.codec.canonical_name)
    if name is None or video.metadata.get("alpha_mode") != "1":
        return context
    try:
        return cast(av.VideoCodecContext, av.CodecContext.create(name, "r"))
    except (ValueError, av.error.FFmpegError):
        notify(logging.WARNING, "the transparency of %s is lost: this build of FFmpeg has no %s", context.name, name)
        return context


class DecodedStream:
    """Iterates over the contents of a container in file order: decoded pictures and packets of other streams.

    Not thread-safe.

    Args:
        container: The input.
        video: The stream to decode.
        others: Streams whose packets are passed on.
        uri: The input's name in messages.
        notify: Called for damage and for streams that are left out.
        threads: Decoder threads; 0 lets the decoder choose.
        is_live: Whether the decoder must not buffer frames.
        max_pixels: Larger pictures are an error.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        video: av.VideoStream,
        others: Sequence[av.stream.Stream],
        *,
        uri: str,
        notify: Notify,
        threads: int,
        is_live: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._container = container
        self._video = video
        self._decoder = choose_decoder(video, notify)
        self._decoder.options = {**self._decoder.options, "max_pixels": str(max_pixels)}
        self._streams = [video, *others]
        self._uri = uri
        self._notify = notify
        self.n_corrupt = 0
        self.n_lost = 0
        """Packets whose picture is missing because they could not be decoded."""
        self.skips_video = False
        """Set to stop decoding and yield only packets of the other streams."""
        self.last_seconds = Fraction(0)
        """End of the last video packet read, on the input's clock."""
        self.end_position = 0
        """Position in bytes of the end of the last video packet read, where the container provides it."""
        self.jumps: deque[int] = deque()
        """Times at which the input's clock jumped, so that the following pictures are unrelated to those before."""
        self._timeline = Timeline(has_leaps=has_clock(container), uri=uri, notify=notify)
        self._failures = 0
        self._n_reported_late = 0
        self._counted: deque[int] = deque(maxlen=64)
        self._may_be_packed = container.format.name == "avi" and video.codec_context.name == "mpeg4"
        self._is_packed = False
        """Whether B-frames are packed, by the first signature: later ones may be stale after unpacking."""
        self._last_time: int | None = None
        """Time of the chunk that completed the last picture, for packed frames."""
        self._first_aspect: tuple[Fraction | None] | None = None
        """Sample aspect ratio of the first picture, which the container's overrides."""
        # Frame threading buffers as many frames as there are threads.
        self._decoder.thread_type = ThreadType.SLICE if is_live else ThreadType.AUTO
        # Threads do not speed up a GPU, and each would hold surfaces of its own.
        self._decoder.thread_count = 1 if getattr(self._decoder, "is_hwaccel", False) else threads

    @property
    def sample_aspect_ratio(self) -> Fraction | None:
        """Sample aspect ratio of the current pictures; broadcasts change it mid-stream."""
        found, stated = self._aspect(), self._video.sample_aspect_ratio
        if stated and (found is None or self._first_aspect in (None, (found,))):
            found = stated  # players also prefer the container's ratio, which cannot reflect changes
        return Fraction(found.numerator, found.denominator) if found else None

    def _aspect(self) -> Fraction | None:
        return self._decoder.sample_aspect_ratio or None

    def forget_damage(self) -> None:
        """Reset the counts of damage: after a seek, pictures before the target do not matter."""
        self.n_corrupt = self.n_lost = self._failures = 0

    def __iter__(self) -> Iterator[av.Packet | av.VideoFrame]:
        index = self._video.index
        flushed = False
        self._timeline.restart()
        self.jumps.clear()
        self._last_time = None
        if self._decoder is not self._video.codec_context:  # seeking flushes only the stream's own decoder
            self._decoder.flush_buffers()
        for packet in self._packets():
            if self._timeline.rebase(packet) and packet.stream_index == index:
                self.jumps.append(shown_at(packet) or 0)
            if packet.stream_index != index or packet.stream is not self._video:
                if packet.size or packet.dts is not None:
                    yield packet
            elif self.skips_video:
                flushed = True
            elif packet.size:
                self._note_time(packet)
                if self._may_be_packed and (mark := _DIVX_MARK.search(bytes(packet))):
                    self._may_be_packed, self._is_packed = False, bool(mark[1])
                yield from self._decode(packet)
            elif shown_at(packet) is None:
                flushed = True
                yield from self._drain()
            # Skip an empty packet with a timestamp (AVI's "frame dropped"): it would start draining the decoder.
        if not flushed:
            yield from self._drain()

    def _packets(self) -> Iterator[av.Packet]:
        failures = n_packets = 0
        while True:
            try:
                for packet in self._container.demux(self._streams):
                    failures = 0
                    yield packet
                    n_packets += 1
                    if n_packets % _CHECK_INTERVAL == 0:
                        self._report_late_streams()
                self._report_late_streams()
                return
            except IndexError:  # PyAV raises this at the end for streams that were found late
                self._report_late_streams()
                return
            except av.error.InvalidDataError as ex:
                # The demuxer lost sync; it resynchronises when called again.
                failures += 1
                self._count_failure(ex, lost=False)
                if failures >= 8:
                    self._notify(logging.WARNING, "%s: stopped at unreadable data", self._uri)
                    return
            except (av.error.ExitError, TimeoutError) as ex:
                raise SourceLostError(f"{self._uri}: no data came in time", self._uri) from ex
            except (av.error.FFmpegError, OSError) as ex:
                if self._is_clean_end(ex):
                    self._report_late_streams()
                    return
                raise DecodeError(f"{self._uri}: reading failed: {reason(ex)}", self._uri) from ex

    def _report_late_streams(self) -> None:
        """Warn about streams that began after libav had probed the input, as they cannot be copied."""
        if self._container.format.name not in _HAS_LATE_STREAMS:
            return
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)  # the only way to see them is libav's log, which is off by default
        try:
            lines = self._container.dumps_format().splitlines()  # type: ignore[attr-defined]
        finally:
            av.logging.set_level(level)
            # Decoder threads that are about to log wait for the GIL, which PyAV holds while it waits for them when it
            # frees the decoder. Give them time to finish.
            time.sleep(0.02)
        listed = [line.partition("Stream #")[2] for line in lines if "Stream #" in line]
        late = listed[len(self._container.streams) + self._n_reported_late :]
        self._n_reported_late += len(late)
        for stream in late:
            self._notify(
                logging.WARNING,
                "%s: a stream that began late is left out: #%s; "
                'input_options={"probesize": "1G", "analyzeduration": "1G"} looks for such ones longer',
                self._uri, stream.strip(),
            )  # fmt: skip

    def _is_clean_end(self, error: BaseException) -> bool:
        """Whether ``error`` is how libav reports that a web server of unknown content length closed the connection.

        Such an end cannot be told from a lost connection.
        """
        is_web = self._container.name.startswith(("http:", "https:"))
        return is_web and getattr(error, "errno", None) == errno.EIO and not has_known_size(self._container)

    def _note_time(self, packet: av.Packet) -> None:
        if packet.pos is not None and packet.pos >= 0 and not packet.is_corrupt:
            self.end_position = packet.pos + packet.size
        end = end_seconds(packet)
        if end is not None:
            self.last_seconds = max(self.last_seconds, end)

    def _decode(self, packet: av.Packet) -> Iterator[av.VideoFrame]:
        damaged = packet.is_corrupt
        try:
            pictures = self._decoder.decode(packet)
        except (av.error.InvalidDataError, av.error.PatchWelcomeError, av.error.ExternalError) as ex:
            self._is_new_damage(packet.pts)
            self._count_failure(ex, lost=True)
            return
        except av.error.MemoryError as ex:
            raise DecodeError(f"{self._uri}: out of memory while decoding", self._uri) from ex
        except (av.error.FFmpegError, OSError, ValueError) as ex:
            # Frame threads report errors late and under other names; each means that a packet was skipped.
            self._is_new_damage(packet.pts)
            self._count_failure(ex, lost=True)
            return
        if damaged and self._is_new_damage(packet.pts):
            self.n_corrupt += 1
        yield from self._checked(pictures)

    def _drain(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                pictures = self._decoder.decode(None)
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, OSError, ValueError) as ex:
                self._count_failure(ex, lost=True)
                continue
            yield from self._checked(pictures)
            return

    def _checked(self, pictures: Sequence[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for picture in pictures:
            self._failures = 0
            if picture.is_corrupt and self._is_new_damage(picture.pts):
                self.n_corrupt += 1
            if self._first_aspect is None:
                self._first_aspect = (self._aspect(),)
            if self._is_packed and self._decoder.has_b_frames:
                self._set_packed_time(picture)
            yield picture

    def _set_packed_time(self, picture: av.VideoFrame) -> None:
        """Correct the presentation time of a picture from a stream with packed B-frames.

        Each chunk with packed frames shows one picture at once, but libav takes the chunk's time for a decoding time.
        As libav returns each picture with the next one's chunk, that chunk's time is the next picture's.
        """
        shown, self._last_time = self._last_time, picture.dts
        if shown is None and picture.dts is not None:
            shown = picture.dts - 1  # in .avi files, a tick is a frame
        picture.pts = shown

    def _is_new_damage(self, pts: int | None) -> bool:
        """Whether the picture at ``pts`` is not counted yet: both its packet and it may be flagged as damaged."""
        if pts is None:
            return True
        if pts in self._counted:
            return False
        self._counted.append(pts)
        return True

    def _count_failure(self, error: BaseException, *, lost: bool) -> None:
        self.n_corrupt += 1
        self.n_lost += lost
        self._failures += 1
        logger.debug("%s: damaged packet: %s", self._uri, reason(error))
        if self._failures > MAX_CONSECUTIVE_FAILURES:
            raise DecodeError(
                f"{self._uri}: gave up after {self._failures} damaged packets in a row ({reason(error)})",
                self._uri,
            ) from error
