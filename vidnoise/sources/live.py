"""Live inputs: cameras, streams, screens. Timing and reconnecting, whatever opens them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from vidnoise.errors import DecodeError, FormatError, SizeChangeError, SourceLostError, SourceOpenError
from vidnoise.frame import Frame, Packet
from vidnoise.frame.stamps import shift_stamps
from vidnoise.option_values import FOREVER, SizeChange
from vidnoise.sources.protocol import ClosedAfterUse, Source
from vidnoise.text import shown

if TYPE_CHECKING:
    from vidnoise.sources.container import ContainerSource

logger = logging.getLogger(__name__)

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 10.0
"""Upper limit of the exponential back-off between attempts to reconnect."""

_SEGMENTED = ("hls", "dash")
"""Containers fetched as segments of several seconds, whose frames arrive in bursts without being late."""

_DEFAULT_FRAME_SECONDS = Fraction(1, 25)
"""Duration of a frame if the stream does not specify one."""


_MAX_REPEATS = 2
"""Consecutive reopenings with identical contents after which the input has ended."""


@dataclass
class _Connection:
    """The frames from one opening of an input, by the input's own clock."""

    before: _Connection | None = None
    first: Fraction | None = None
    last: Fraction | None = None
    n_frames: int = 0

    def note(self, frame: Frame) -> None:
        self.last = frame.seconds or Fraction(0)
        self.first = self.last if self.first is None else self.first
        self.n_frames += 1

    @property
    def is_repeat(self) -> bool:
        before, self.before = self.before, None  # only the previous connection is of interest
        return before is not None and (before.first, before.last, before.n_frames) == (
            self.first, self.last, self.n_frames,
        )  # fmt: skip


class LiveSource(ClosedAfterUse):
    """Reads a live input, notes when each frame arrived, and reconnects when the input is lost.

    Time continues across an outage: the first frame after it follows the last one before it by the duration of the
    outage, and has ``discontinuity`` set.

    Args:
        uri: The input's name in messages.
        reopen: Opens the input; called again after each loss.
        reconnect: Consecutive attempts before giving up; :data:`FOREVER` for no limit.
        ends: Whether a clean end of the data is the end of the video, as for files, rather than a loss.
        can_go_away: Whether errors while reading are a loss from which the input may return; not so for files.
        is_paced: Whether frames are held back until their time comes, for inputs faster than real time. Segmented
            streams (HLS) always are.
        duration: Seconds to read.
        size_change: What happens if the picture size changes, also when the input comes back: ``split`` ends, to be
            continued by :meth:`next_part`; ``scale`` scales all pictures to the first size; ``stop`` is an error.

    Raises:
        VidnoiseError: Whatever ``reopen`` raises the first time.
    """

    def __init__(
        self,
        uri: str,
        reopen: Callable[[], Source],
        *,
        reconnect: int = 5,
        ends: bool = False,
        can_go_away: bool = True,
        is_paced: bool = False,
        duration: float | None = None,
        size_change: SizeChange = "stop",
    ) -> None:
        self.uri = shown(uri)
        self.n_reconnects = 0
        self.trailing_packets: tuple[Packet, ...] = ()
        self._reopen = reopen
        self._reconnect = reconnect
        self._ends = ends
        self._can_go_away = can_go_away
        self._connection = _Connection()
        self._n_repeats = 0
        self._duration = duration
        self._stopped = threading.Event()
        self._n_corrupt_before = 0
        self._n_frames_before = 0
        self._offset = Fraction(0)
        self._last: Frame | None = None
        self._first_seconds: Fraction | None = None
        self._begin = 0.0
        self._size_change = size_change
        self._differs = False
        """Whether the input came back as a different video, with which a new part begins."""
        self._source = reopen()
        self._is_paced = is_paced or self._source.info.passthrough.container in _SEGMENTED
        self.info = replace(self._source.info, is_live=True, n_frames=None, duration_seconds=None)
        self._streams = self._signature(self._source)

    @property
    def n_corrupt(self) -> int:
        return self._n_corrupt_before + self._source.n_corrupt

    def stop(self) -> None:
        self._stopped.set()
        self._source.stop()

    def close(self) -> None:
        self._source.close()

    @property
    def has_next(self) -> bool:
        """Whether the picture size has changed, so that :meth:`next_part` can continue with the new one."""
        return self._differs or getattr(self._source, "has_next", False)

    def next_part(self) -> bool:
        """Continue with pictures of another size, or other audio, described by ``info``; time restarts at zero."""
        if not self._differs and not (self.has_next and cast("ContainerSource", self._source).next_part()):
            return False
        self._differs = False
        self._stopped.clear()
        self.info = replace(self._source.info, is_live=True, n_frames=None, duration_seconds=None)
        self._streams = self._signature(self._source)
        if self._last is not None:
            self._n_frames_before = self._last.index + 1
            if self._duration is not None and self._first_seconds is not None:
                self._duration -= float((self._last.seconds or 0) - self._first_seconds)
        self._last = self._first_seconds = None
        self._offset = Fraction(0)
        self.trailing_packets = ()
        return True

    def __iter__(self) -> Iterator[Frame]:
        return self._frames(iter(self._source))  # raises an error on a second pass

    def _frames(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        is_new = False
        try:
            while True:
                why = "it ended"
                try:
                    for frame in frames:
                        self._connection.note(frame)
                        rebased = self._rebase(frame, is_new=is_new)
                        if self._stopped.is_set() or self._is_past_end(rebased):
                            return
                        if self._is_paced and self._sleep_until(rebased):
                            return
                        is_new = False
                        yield replace(rebased, arrived=time.monotonic())
                        del frame, rebased
                except SizeChangeError:
                    raise
                except (SourceLostError, DecodeError, FormatError) as ex:
                    if not self._can_go_away:
                        raise
                    why = str(ex).removeprefix(f"{self.uri}: ")
                    self._connection, self._n_repeats = _Connection(), 0
                else:
                    if self._ends or self.has_next or self._is_repeated():
                        self.trailing_packets = self._shift_packets(self._source.trailing_packets)
                        return
                if self._stopped.is_set() or not self._reconnect_input(why) or self._differs:
                    return
                is_new = True
                frames = iter(self._source)
        finally:
            if not self.has_next:
                self.close()

    def _is_repeated(self) -> bool:
        """Whether the input repeats itself: a recording that is sent from its start on each connection."""
        connection, self._connection = self._connection, _Connection(before=self._connection)
        self._n_repeats = self._n_repeats + 1 if connection.is_repeat else 0
        if self._n_repeats < _MAX_REPEATS:
            return False
        logger.warning(
            "%s: gives the same %d frames each time it is opened; that is the end", self.uri, connection.n_frames
        )
        return True

    # --- time ---------------------------------------------------------------------------------------------------------

    def _rebase(self, frame: Frame, *, is_new: bool) -> Frame:
        """Return ``frame`` on a clock that continues across outages."""
        time_base = self.info.time_base
        seconds = frame.seconds or Fraction(0)
        if is_new and self._last is not None:
            assert self._last.arrived is not None
            length = (self._last.duration or 0) * time_base or self._frame_seconds()
            outage = Fraction(time.monotonic() - self._last.arrived).limit_denominator(1000)
            self._offset = (self._last.pts or 0) * time_base + max(length, outage) - seconds
        pts = round((seconds + self._offset) / time_base)
        if self._last is not None and pts <= (self._last.pts or 0):
            pts = (self._last.pts or 0) + 1
        rebased = replace(
            frame,
            pts=pts,
            duration=round(frame.duration * frame.time_base / time_base) if frame.duration else None,
            time_base=time_base,
            index=frame.index + self._n_frames_before,
            discontinuity=frame.discontinuity or is_new,
            packets=self._shift_packets(frame.packets),
        )
        self._last = replace(rebased, planes=(), packets=(), arrived=time.monotonic())
        return rebased

    def _frame_seconds(self) -> Fraction:
        return 1 / self.info.rate if self.info.rate else _DEFAULT_FRAME_SECONDS

    def _shift_packets(self, packets: tuple[Packet, ...]) -> tuple[Packet, ...]:
        if self._offset:
            for packet in packets:
                shift_stamps(packet.data, round(self._offset / Fraction(packet.data.time_base)))
        return packets

    def _is_past_end(self, frame: Frame) -> bool:
        seconds = frame.seconds or Fraction(0)
        if self._first_seconds is None:
            self._first_seconds, self._begin = seconds, time.monotonic()
        return self._duration is not None and seconds - self._first_seconds >= self._duration

    def _sleep_until(self, frame: Frame) -> bool:
        """Wait for the time of ``frame``; returns whether the source was stopped meanwhile."""
        assert self._first_seconds is not None
        due = self._begin + float((frame.seconds or 0) - self._first_seconds)
        return self._stopped.wait(max(0.0, due - time.monotonic()))

    # --- reconnecting -------------------------------------------------------------------------------------------------

    def _reconnect_input(self, why: str) -> bool:
        """Reopen the input, with pauses between attempts; returns False if the source was stopped meanwhile.

        Raises:
            SourceLostError: The input did not come back, or came back as a different video.
        """
        self._source.close()
        wait = _FIRST_WAIT_SECONDS
        attempt = 0
        while attempt != self._reconnect:
            attempt += 1
            of = "" if self._reconnect == FOREVER else f" of {self._reconnect}"
            logger.warning("%s: lost: %s; trying again in %.1f s (attempt %d%s)", self.uri, why, wait, attempt, of)
            if self._stopped.wait(wait):
                return False
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            try:
                source = self._reopen()
            except (SourceOpenError, SourceLostError, DecodeError) as ex:
                why = str(ex).removeprefix(f"{self.uri}: ")
                continue
            self._check_same(source)
            self._n_corrupt_before += self._source.n_corrupt
            self._n_frames_before = 0 if self._last is None else self._last.index + 1
            self._source = source
            self.n_reconnects += 1
            logger.warning("%s: is back", self.uri)
            return not self._stopped.is_set()
        attempts = f"; gave up after {attempt} attempt{'s' if attempt > 1 else ''}" if attempt else ""
        raise SourceLostError(f"{self.uri}: lost: {why}{attempts}", self.uri)

    def _check_same(self, source: Source) -> None:
        was, now = self.info, source.info
        if self._size_change == "scale":
            cast("ContainerSource", source).present_as(was)
            now = source.info
        if (was.width, was.height, was.format) == (now.width, now.height, now.format):
            if self._signature(source) == self._streams:
                return
            what = "other sound or subtitles"
        else:
            what = f"{now.width}x{now.height} {now.format.name} (it was {was.width}x{was.height} {was.format.name})"
        if self._size_change == "split":
            logger.warning("%s: came back with %s", self.uri, what)
            self._differs = True
            return
        source.close()
        raise SourceLostError(f"{self.uri}: came back with {what}; one output holds one kind of video", self.uri)

    @staticmethod
    def _signature(source: Source) -> list[tuple[int, str, str]]:
        return [(s.index, s.kind, s.codec) for s in source.info.passthrough.streams]
