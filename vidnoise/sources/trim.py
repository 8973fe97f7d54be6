"""Cutting a time range out of a container's streams, and moving it to time zero."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av

from vidnoise.frame import Packet
from vidnoise.frame.stamps import shift_stamps, shown_at


class TimeRange:
    """The selected part of a timeline, to which packets and chapters are cut.

    ``origin_seconds`` becomes time zero (None leaves timestamps unchanged). With a start, it must be set before
    :meth:`trim` is called.

    Args:
        start: Start of the range in seconds; None for the beginning.
        duration: Length of the range in seconds; None for no limit.
    """

    def __init__(self, start: float | None, duration: float | None) -> None:
        self.start = None if start is None else Fraction(start).limit_denominator(1_000_000)
        self.duration = None if duration is None else Fraction(duration).limit_denominator(1_000_000)
        self.origin_seconds: Fraction | None = None
        """Time of the first picture in the range, on the input's clock."""
        self.clock_seconds = Fraction(0)
        """Time of the input's clock at its beginning, if that is to become time zero."""

    def is_past_end(self, seconds: Fraction) -> bool:
        """Whether ``seconds`` on the input's clock is after the range."""
        if self.duration is None or self.origin_seconds is None:
            return False
        return seconds - self.origin_seconds >= self.duration

    def length_of(self, total: Fraction | None) -> float | None:
        """Return the length of the range in a video of ``total`` seconds, or None if unknown."""
        left = None if total is None else max(total - (self.start or 0), Fraction(0))
        if self.duration is not None:
            left = self.duration if left is None else min(left, self.duration)
        return None if left is None else float(left)

    def shift(self, time_base: Fraction) -> int:
        """Return the ticks to subtract from timestamps."""
        if self.start is None or self.origin_seconds is None:
            return round(self.clock_seconds / time_base)
        return round(self.origin_seconds / time_base)

    def begin_part(self, seconds: Fraction) -> None:
        """Restart time at zero for another output, which begins at ``seconds`` on the input's clock."""
        if self.duration is not None and self.origin_seconds is not None:
            self.duration -= seconds - self.origin_seconds
        self.origin_seconds = self.clock_seconds = seconds

    def trim(self, packet: av.Packet, kind: str, *, is_picture: bool = False) -> Packet | None:
        """Move ``packet`` to the output's clock; returns None if it is outside the range.

        Args:
            packet: Modified in place.
            kind: Kind of the stream. A subtitle that began before the range is kept, and shortened.
            is_picture: Whether the packet is a cover picture, which has no time.
        """
        time_base = Fraction(packet.time_base.numerator, packet.time_base.denominator)
        stamp = shown_at(packet)
        if is_picture or stamp is None or self.origin_seconds is None:
            return Packet(packet.stream_index, packet)
        if self.is_past_end(stamp * time_base):
            return None
        shift = self.shift(time_base)
        begin, end = stamp - shift, stamp - shift + (packet.duration or 0)
        if begin < 0 and self.start is not None:
            if kind != "subtitle" or end <= 0:
                return None
            packet.pts = packet.dts = 0
            packet.duration = end
            return Packet(packet.stream_index, packet)
        shift_stamps(packet, -shift)
        return Packet(packet.stream_index, packet)

    def trim_chapters(self, chapters: Sequence[Any]) -> tuple[dict[str, Any], ...]:
        """Return the chapters inside the range, cut to it."""
        if self.origin_seconds is None or (self.start is None and self.duration is None):
            return tuple(chapters)
        trimmed = []
        for chapter in chapters:
            tick = chapter["time_base"]
            if not tick:
                continue
            time_base = Fraction(tick.numerator, tick.denominator)
            begin, end = chapter["start"], chapter["end"]
            if self.is_past_end(begin * time_base) or end * time_base <= self.origin_seconds:
                continue
            if self.duration is not None:
                end = min(end, round((self.origin_seconds + self.duration) / time_base))
            shift = self.shift(time_base)
            if self.start is not None:
                begin = max(begin - shift, 0)
            trimmed.append({**chapter, "start": begin, "end": end - shift})
        return tuple(trimmed)
