"""Selection of the frames that are written: all of a file; of a live source, those that can be written in time."""

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
"""Gap in a live source, and at least three frames, after which a picture is unrelated to the previous one."""


def choose_policy(info: StreamInfo, depth: int, max_latency_ms: float) -> KeepAll:
    """Choose the policy for a source.

    Args:
        info: Description of the source.
        depth: Length of each queue, in frames.
        max_latency_ms: Frames of a live source that would be written later than this after their arrival are dropped.

    Raises:
        UsageError: ``max_latency_ms`` is not positive and finite.
    """
    if not 0 < max_latency_ms < float("inf"):
        raise UsageError(f"max_latency must be more than 0 ms, got {max_latency_ms:g}")
    return LivePolicy(depth, info.rate, LagMeter(max_latency_ms)) if info.is_live else KeepAll(depth)


class KeepAll:
    """Write every frame, however long it takes: the source waits for the sink.

    Args:
        depth: Length of the queue before the sink, in frames.
    """

    when_full: Policy = "block"
    """Policies for a frame if the queue after the source is full."""
    lag: LagMeter | None = None
    """Measures the delay of a live run; None for other runs."""

    def __init__(self, depth: int) -> None:
        self.sink_queue_length = depth
        """Length of the queue before the sink, in frames."""
        self.n_dropped = 0
        """Number of frames that waited too long, or for which the queue had no room."""
        self.n_late = 0
        """Number of frames that were ready too late, and not written."""
        self.orphaned_packets: tuple[Packet, ...] = ()
        """Packets of frames that were not written, to be attached to the next frame."""

    def merge_dropped(self, frame: Frame, following: Frame) -> Frame:
        """Return ``following`` with the packets and discontinuity of ``frame``, which was dropped before it."""
        self.n_dropped += 1
        packets = (*frame.packets, *following.packets)
        return replace(following, packets=packets, discontinuity=following.discontinuity or frame.discontinuity)

    def is_late(self, frame: Frame) -> bool:
        """Whether a frame has waited too long to be of use."""
        return False

    def mark_gaps(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield frames as they leave the queue after the source, marking those that follow a gap."""
        yield from frames

    def filter_late(self, write: Callable[[Frame], None]) -> Callable[[Frame], None]:
        """Wrap ``write`` so that it skips frames that are too late."""
        return write


class LivePolicy(KeepAll):
    """Drop old frames rather than lag behind the source; their packets are attached to the next frame.

    Args:
        depth: See :class:`KeepAll`; here, at most one frame waits.
        rate: Frames per second of the source, if known.
        lag: Measures the delay, and decides which frames are too late.
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

    def mark_gaps(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.lag.note_dequeued(frame.index)
            yield self._after_gap(frame)

    def _after_gap(self, frame: Frame) -> Frame:
        """Mark ``frame`` as a discontinuity if it follows a gap."""
        seconds, previous = frame.seconds, self._previous_seconds
        if seconds is None:
            return frame
        self._previous_seconds = seconds
        if previous is None or seconds - previous <= self._gap_seconds:
            return frame
        return replace(frame, discontinuity=True)

    def filter_late(self, write: Callable[[Frame], None]) -> Callable[[Frame], None]:
        def write_in_time(frame: Frame) -> None:
            is_late = self.lag.is_too_late(frame.index, frame.arrived)
            if is_late and self._has_written:  # slower than expected; but an output needs at least one frame
                self.n_late += 1
                self.orphaned_packets += frame.packets
                return
            if self.orphaned_packets:
                frame = replace(frame, packets=(*self.orphaned_packets, *frame.packets))
                self.orphaned_packets = ()
            begin = time.monotonic()
            self._has_written = True
            write(frame)
            self.lag.note_written(frame.index, frame.arrived, time.monotonic() - begin)

        return write_in_time
