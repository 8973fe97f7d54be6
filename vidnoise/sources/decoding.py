"""Packets in, pictures out, with damage counted: the loop around libav's demuxer and decoder."""

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
from vidnoise.options import MAX_PIXELS
from vidnoise.sources.timeline import Timeline

logger = logging.getLogger(__name__)

MAX_CONSECUTIVE_FAILURES = 300
"""Damaged packets in a row before we give up.

Isolated damage is skipped, and a stream joined between two key frames may fail for a whole group of
pictures (10 s at 30 frames/s); an input that fails for longer is not going to become a video.
"""


_FIND_STREAMS_ON_THE_WAY = ("flv", "live_flv", "mpeg", "mpegts")
"""Containers in which a stream may begin at any time."""

_LOOK_EVERY = 1000
"""Packets between two looks at whether a stream has appeared."""

_DIVX_MARK = re.compile(rb"\x00\x00\x01\xb2DivX\d+(?:b|Build)\d+(p?)")
"""What encoders of MPEG-4 write before key frames: with a ``p`` if they pack B-frames behind the frames they need."""


def reason(error: BaseException) -> str:
    """One line of plain words for an error of libav."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].strip()


def has_clock(container: av.container.InputContainer) -> bool:
    """Whether times are those of a clock that ran before and may jump, as in transport streams."""
    return bool(container.format.flags & av.format.Flags.ts_discont.value)


_PLAYLISTS = ("hls", "dash")
"""Containers whose own size says nothing of the video's."""


def has_known_size(container: av.container.InputContainer) -> bool:
    """Whether the number of bytes is known, as of any file, whoever serves it: such an input has an end."""
    if container.format.name.split(",")[0] in _PLAYLISTS:
        return False
    try:
        return container.size > 0
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def decoder_of(video: av.VideoStream, notify: Notify) -> av.VideoCodecContext:
    """What decodes ``video``: its own decoder, unless that one would drop transparency without a word."""
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
    """Iterates over what a container holds: pictures of one stream, and packets of others, in file order.

    Passive and not thread-safe.
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
        self._decoder = decoder_of(video, notify)
        self._decoder.options = {**self._decoder.options, "max_pixels": str(max_pixels)}
        self._streams = [video, *others]
        self._uri = uri
        self._notify = notify
        self.n_corrupt = 0
        self.n_lost = 0
        """Packets that gave no picture because they could not be decoded."""
        self.skips_video = False
        """Set to stop decoding: only packets of the other streams come then."""
        self.last_seconds = Fraction(0)
        """End of the last video packet read, on the input's clock."""
        self.end_position = 0
        """Bytes up to the end of the last video packet read, where the container tells."""
        self.jumps: deque[int] = deque()
        """Times at which the input's clock jumped: what comes from there does not follow from what was."""
        self._timeline = Timeline(has_leaps=has_clock(container), uri=uri, notify=notify)
        self._failures = 0
        self._n_said_late = 0
        self._counted: deque[int] = deque(maxlen=64)
        self._may_be_packed = container.format.name == "avi" and video.codec_context.name == "mpeg4"
        self._is_packed = False
        """Whether that was found; only the first mark is right where such frames were unpacked afterwards."""
        self._last_time: int | None = None
        """Of packed frames: the time of the chunk that brought out the last picture."""
        self._first_aspect: tuple[Fraction | None] | None = None
        """What the first picture says, which the container may overrule."""
        # Threads that decode a frame each hold back as many frames.
        self._decoder.thread_type = ThreadType.SLICE if is_live else ThreadType.AUTO
        # A GPU decodes whatever the number of threads; each would only hold surfaces of its own.
        self._decoder.thread_count = 1 if getattr(self._decoder, "is_hwaccel", False) else threads

    @property
    def sample_aspect_ratio(self) -> Fraction | None:
        """Of the pictures that come now: broadcasts change it in the middle."""
        found, stated = self._aspect(), self._video.sample_aspect_ratio
        if stated and (found is None or self._first_aspect in (None, (found,))):
            found = stated  # for players, too, the container's word counts; but it knows nothing of changes
        return Fraction(found.numerator, found.denominator) if found else None

    def _aspect(self) -> Fraction | None:
        return self._decoder.sample_aspect_ratio or None

    def forget_damage(self) -> None:
        """Set the counts to zero (after a seek, pictures before the wanted one do not matter)."""
        self.n_corrupt = self.n_lost = self._failures = 0

    def __iter__(self) -> Iterator[av.Packet | av.VideoFrame]:
        index = self._video.index
        flushed = False
        self._timeline.restart()
        self.jumps.clear()
        self._last_time = None
        if self._decoder is not self._video.codec_context:  # seeking flushes only that one
            self._decoder.flush_buffers()
        for packet in self._packets():
            if self._timeline.place(packet) and packet.stream_index == index:
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
            # An empty packet with a time stamp (AVI's "frame dropped") would put the decoder into draining: leave it.
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
                    if n_packets % _LOOK_EVERY == 0:
                        self._say_what_came_late()
                self._say_what_came_late()
                return
            except IndexError:  # av, at the end, for a stream that it found on the way
                self._say_what_came_late()
                return
            except av.error.InvalidDataError as ex:
                # The demuxer lost its place; it resynchronises when asked again.
                failures += 1
                self._count_failure(ex, lost=False)
                if failures >= 8:
                    self._notify(logging.WARNING, "%s: stopped at unreadable data", self._uri)
                    return
            except (av.error.ExitError, TimeoutError) as ex:
                raise SourceLostError(f"{self._uri}: no data came in time", self._uri) from ex
            except (av.error.FFmpegError, OSError) as ex:
                if self._is_clean_end(ex):
                    self._say_what_came_late()
                    return
                raise DecodeError(f"{self._uri}: reading failed: {reason(ex)}", self._uri) from ex

    def _say_what_came_late(self) -> None:
        """Streams that began after libav's look at the beginning cannot be reached; at least that is said."""
        if self._container.format.name not in _FIND_STREAMS_ON_THE_WAY:
            return
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)  # or libav tells av nothing, which otherwise has no way to see them
        try:
            lines = self._container.dumps_format().splitlines()  # type: ignore[attr-defined]
        finally:
            av.logging.set_level(level)
            # Threads of the decoder that have begun to tell av something wait for Python's lock; av would wait for them
            # under it where it frees the decoder.
            time.sleep(0.02)
        listed = [line.partition("Stream #")[2] for line in lines if "Stream #" in line]
        late = listed[len(self._container.streams) + self._n_said_late :]
        self._n_said_late += len(late)
        for stream in late:
            self._notify(
                logging.WARNING,
                "%s: a stream that began late is left out: #%s; "
                'input_options={"probesize": "1G", "analyzeduration": "1G"} looks for such ones longer',
                self._uri, stream.strip(),
            )  # fmt: skip

    def _is_clean_end(self, error: BaseException) -> bool:
        """Whether ``error`` is libav's for a web server that has closed the connection and never said how much it would
        send: it cannot tell that from a loss (nor can anybody)."""
        is_web = self._container.name.startswith(("http:", "https:"))
        return is_web and getattr(error, "errno", None) == errno.EIO and not has_known_size(self._container)

    def _note_time(self, packet: av.Packet) -> None:
        if packet.pos is not None and packet.pos >= 0 and not packet.is_corrupt:
            self.end_position = packet.pos + packet.size
        stamp = shown_at(packet)
        if stamp is not None:
            end = (stamp + (packet.duration or 0)) * Fraction(packet.time_base)
            self.last_seconds = max(self.last_seconds, end)

    def _decode(self, packet: av.Packet) -> Iterator[av.VideoFrame]:
        damaged = packet.is_corrupt
        try:
            pictures = self._decoder.decode(packet)
        except (av.error.InvalidDataError, av.error.PatchWelcomeError, av.error.ExternalError) as ex:
            self._note(packet.pts)
            self._count_failure(ex, lost=True)
            return
        except av.error.MemoryError as ex:
            raise DecodeError(f"{self._uri}: out of memory while decoding", self._uri) from ex
        except (av.error.FFmpegError, OSError, ValueError) as ex:
            # Frame threads report a packet's error late and under other names; all of them skip the packet.
            self._note(packet.pts)
            self._count_failure(ex, lost=True)
            return
        if damaged and self._note(packet.pts):
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
            if picture.is_corrupt and self._note(picture.pts):
                self.n_corrupt += 1
            if self._first_aspect is None:
                self._first_aspect = (self._aspect(),)
            if self._is_packed and self._decoder.has_b_frames:
                self._place_packed(picture)
            yield picture

    def _place_packed(self, picture: av.VideoFrame) -> None:
        """Chunks with packed frames each show one picture, at once, and libav takes their times for those of decoding.

        As libav brings out each picture with the next one's chunk, that chunk's time is the next one's.
        """
        shown, self._last_time = self._last_time, picture.dts
        if shown is None and picture.dts is not None:
            shown = picture.dts - 1  # of .avi files, a tick is a picture
        picture.pts = shown

    def _note(self, pts: int | None) -> bool:
        """Whether the picture at ``pts`` was not counted yet: packet and picture may both be marked."""
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
