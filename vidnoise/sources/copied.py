"""The packets of the streams that are copied beside the video, cut to the wanted part of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av

from vidnoise.frame import Packet
from vidnoise.frame.passthrough import CopiedStream
from vidnoise.frame.stamps import shown_at
from vidnoise.sources.trim import TimeRange

_SLACK_SECONDS = 5
"""Packets of different streams are not quite in the order of their times."""


class CopiedPackets:
    """Turns packets as they are read into packets of the output.

    Args:
        streams: Those that are copied.
        range: The wanted part.
    """

    def __init__(self, streams: Sequence[CopiedStream], range: TimeRange) -> None:
        self._streams = {stream.index: stream for stream in streams}
        self._range = range
        self.last_seconds = Fraction(0)
        """End of the last one, on the input's clock."""

    @property
    def covers(self) -> set[int]:
        """Indices of streams that are pictures, which hold for all of the video."""
        return {index for index, stream in self._streams.items() if stream.is_cover}

    def place(self, packets: Iterable[av.Packet]) -> tuple[Packet, ...]:
        """Those of ``packets`` that lie in the range, on the output's clock; changed in place."""
        placed = []
        for packet in packets:
            self._note_time(packet)
            stream = self._streams[packet.stream_index]
            moved = self._range.place(packet, stream.kind, is_picture=stream.is_cover)
            if moved is not None:
                placed.append(moved)
        return tuple(placed)

    def _note_time(self, packet: av.Packet) -> None:
        stamp = shown_at(packet)
        if stamp is not None:
            end = (stamp + (packet.duration or 0)) * Fraction(packet.time_base)
            self.last_seconds = max(self.last_seconds, end)

    def all(self, packets: Iterable[av.Packet]) -> Iterator[Packet]:
        """``packets``, which are all that is left of the input, up to the end of the range."""
        for packet in packets:
            seconds = shown_seconds(packet)
            if seconds is not None and self._range.is_past_end(seconds - _SLACK_SECONDS):
                return
            yield from self.place([packet])

    def tail(self, packets: Iterable[av.Packet]) -> tuple[Packet, ...]:
        """What follows the last picture, up to where the sound has reached the end of the range."""
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
            tail.extend(self.place([packet]))
        return tuple(tail)


def shown_seconds(packet: av.Packet) -> Fraction | None:
    """When ``packet`` is presented, on the input's clock."""
    stamp = shown_at(packet)
    return None if stamp is None else stamp * Fraction(packet.time_base)
