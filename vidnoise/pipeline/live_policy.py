"""Which of a source's frames are kept: all of a file; of a live source, those that can still be written in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from vidnoise.errors import UsageError
from vidnoise.frame import Frame, Packet, StreamInfo
from vidnoise.frame.frame_queue import Policy
from vidnoise.pipeline.stats import LagMeter

GAP_SECONDS = 0.5
"""A live picture that comes so much after the one before (and three frames late) does not follow from it."""


def choose_policy(info: StreamInfo, depth: int, max_latency_ms: float) -> KeepAll:
    """The policy for a source.

    Args:
        info: Of the source.
        depth: Frames that may wait at each joint.
        max_latency_ms: Of a live source: frames that would be written later after their arrival are dropped.

    Raises:
        UsageError: ``max_latency_ms`` is not more than 0, or not finite.
    """
    if not 0 < max_latency_ms < float("inf"):
        raise UsageError(f"max_latency must be more than 0 ms, got {max_latency_ms:g}")
    return LivePolicy(depth, info.rate, LagMeter(max_latency_ms)) if info.is_live else KeepAll(depth)


class KeepAll:
    """Every frame is written, however long that takes: the source waits for the sink.

    Args:
        depth: Frames that may wait before the sink.
    """

    when_full: Policy = "block"
    """Handle a frame for which the queue behind the source has no room."""
    lag: LagMeter | None = None
    """How far the run is behind a live source."""

    def __init__(self, depth: int) -> None:
        self.behind = depth
        """Frames that may wait before the sink."""
        self.n_dropped = 0
        """Frames that waited too long, or for which there was no room."""
        self.n_late = 0
        """Frames that were ready too late, and not written."""
        self.left_over: tuple[Packet, ...] = ()
        """Packets of frames that were not written, for which no later frame has come yet."""

    def dropped(self, frame: Frame, following: Frame) -> Frame:
        """``following``, marked and with the packets of ``frame`` before it, which was dropped: its sound is kept."""
        self.n_dropped += 1
        packets = (*frame.packets, *following.packets)
        return replace(following, packets=packets, discontinuity=following.discontinuity or frame.discontinuity)

    def is_late(self, frame: Frame) -> bool:
        """Whether a frame has waited too long to be of use."""
        return False

    def arriving(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """``frames`` as they leave the queue behind the source, marked where they do not follow from what came."""
        yield from frames

    def writing(self, write: Callable[[Frame], None]) -> Callable[[Frame], None]:
        """``write`` for those frames that shall be written."""
        return write


class LivePolicy(KeepAll):
    """Old frames are dropped rather than that the lag behind the source grows; their packets are carried on.

    Args:
        depth: See :class:`KeepAll`; here one frame waits at most.
        rate: Frames per second of the source, if known.
        lag: Tells which frames would come too late.
    """

    when_full = "drop_oldest"

    def __init__(self, depth: int, rate: Fraction | None, lag: LagMeter) -> None:
        super().__init__(min(depth, 1))
        self.lag: LagMeter = lag
        self._gap_seconds = max(GAP_SECONDS, 3 / rate if rate else 0)
        self._previous_seconds: Fraction | None = None
        self._has_written = False

    def is_late(self, frame: Frame) -> bool:
        return self.lag.is_late(frame.arrived)

    def arriving(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.lag.take(frame.index)
            yield self._after_gap(frame)

    def _after_gap(self, frame: Frame) -> Frame:
        """``frame``, marked where too much is missing before it for the past to be of use."""
        seconds, previous = frame.seconds, self._previous_seconds
        if seconds is None:
            return frame
        self._previous_seconds = seconds
        if previous is None or seconds - previous <= self._gap_seconds:
            return frame
        return replace(frame, discontinuity=True)

    def writing(self, write: Callable[[Frame], None]) -> Callable[[Frame], None]:
        def write_in_time(frame: Frame) -> None:
            is_late = self.lag.is_too_late(frame.index, frame.arrived)
            if is_late and self._has_written:  # something was slower than foreseen; without any frame, no output
                self.n_late += 1
                self.left_over += frame.packets
                return
            if self.left_over:
                frame = replace(frame, packets=(*self.left_over, *frame.packets))
                self.left_over = ()
            begin = time.monotonic()
            self._has_written = True
            write(frame)
            self.lag.written(frame.index, frame.arrived, time.monotonic() - begin)

        return write_in_time
