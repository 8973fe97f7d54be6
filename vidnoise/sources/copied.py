"""Packets of the streams that are copied alongside the video, cut to the time range."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av

from vidnoise.frame import Packet
from vidnoise.frame.passthrough import CopiedStream
from vidnoise.frame.stamps import shown_at
from vidnoise.sources.trim import TimeRange

_SLACK_SECONDS = 5
"""Tolerance for packets of different streams that are not quite in order of time."""


class CopiedPackets:
    """Moves packets as read to the output's clock, dropping those outside the time range.

    Args:
        streams: The copied streams.
        range: The time range.
    """

    def __init__(self, streams: Sequence[CopiedStream], range: TimeRange) -> None:
        self._streams = {stream.index: stream for stream in streams}
        self._range = range
        self.last_seconds = Fraction(0)
        """End of the last packet, on the input's clock."""

    @property
    def covers(self) -> set[int]:
        """Indices of the streams that are cover pictures, which apply to the whole video."""
        return {index for index, stream in self._streams.items() if stream.is_cover}

    def trim(self, packets: Iterable[av.Packet]) -> tuple[Packet, ...]:
        """Return the packets inside the time range, moved to the output's clock in place."""
        trimmed = []
        for packet in packets:
            end = end_seconds(packet)
            if end is not None:
                self.last_seconds = max(self.last_seconds, end)
            stream = self._streams[packet.stream_index]
            moved = self._range.trim(packet, stream.kind, is_picture=stream.is_cover)
            if moved is not None:
                trimmed.append(moved)
        return tuple(trimmed)

    def all(self, packets: Iterable[av.Packet]) -> Iterator[Packet]:
        """Yield the packets inside the time range, given all remaining packets of the input."""
        for packet in packets:
            seconds = shown_seconds(packet)
            if seconds is not None and self._range.is_past_end(seconds - _SLACK_SECONDS):
                return
            yield from self.trim([packet])

    def tail(self, packets: Iterable[av.Packet]) -> tuple[Packet, ...]:
        """Return the packets after the last picture, until the audio reaches the end of the time range."""
        waiting = {index for index, stream in self._streams.items() if stream.kind == "audio"}
        tail: list[Packet] = []
        origin = self._range.origin_seconds or Fraction(0)
        for packet in packets if waiting else ():
            seconds = shown_seconds(packet)
            if seconds is not None:
                if self._range.is_past_end(seconds):
                    waiting.discard(packet.stream_index)
                length = self._range.duration
                if not waiting or (length and seconds - origin > length + _SLACK_SECONDS):
                    break
            tail.extend(self.trim([packet]))
        return tuple(tail)


def shown_seconds(packet: av.Packet) -> Fraction | None:
    """Return the presentation time of ``packet`` on the input's clock, or None if it has none."""
    stamp = shown_at(packet)
    return None if stamp is None else stamp * Fraction(packet.time_base)


def end_seconds(packet: av.Packet) -> Fraction | None:
    """Return the time at which a packet ends, on the input's clock; None if its timestamps are missing."""
    stamp = shown_at(packet)
    return None if stamp is None else (stamp + (packet.duration or 0)) * Fraction(packet.time_base)
