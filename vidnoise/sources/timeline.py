"""Time stamps that jump, as in joined or re-tuned recordings, made to run on."""

from __future__ import annotations

import logging
from fractions import Fraction

import av

from vidnoise.frame.stamps import decoded_at, shift_stamps
from vidnoise.notices import Notify

_BACKWARD_SECONDS = 1
"""A stream that goes back by more than this has a new clock; less is the reordering of frames, or noise."""

_FORWARD_SECONDS = 10
"""So has one that leaps ahead by more, in broadcast formats; elsewhere it is a pause that someone meant."""

_SPARSE_KINDS = ("subtitle", "data", "attachment")


class Timeline:
    """Joins the clocks of a recording's parts, for all its streams alike. Changes packets in place.

    Args:
        has_leaps: Whether the container is one (MPEG-TS) in which clocks leap forward, too.
        uri: The input, for messages.
        notify: Told of jumps.
    """

    def __init__(self, *, has_leaps: bool, uri: str, notify: Notify) -> None:
        self._notify = notify
        self._has_leaps = has_leaps
        self._uri = uri
        self._offsets = [Fraction(0)]
        """Seconds to add, part by part."""
        self._part: dict[int, int] = {}
        self._last: dict[int, Fraction] = {}
        self._end = Fraction(0)
        """Where the streams have got to, on the joined clock."""

    def restart(self) -> None:
        """Forget the past: the reader has sought elsewhere."""
        self._offsets, self._part, self._last = [Fraction(0)], {}, {}
        self._end = Fraction(0)

    def place(self, packet: av.Packet) -> bool:
        """Move ``packet`` onto the joined clock; True where its stream begins a new part with it."""
        stamp = decoded_at(packet)
        if stamp is None:
            return False
        time_base = Fraction(packet.time_base.numerator, packet.time_base.denominator)
        index, seconds = packet.stream_index, stamp * time_base
        part = self._part.get(index, 0)
        jumped = self._jumps(packet, seconds)
        if jumped:
            part = self._part[index] = part + 1
            if part == len(self._offsets):
                self._offsets.append(self._end - seconds)
                self._notify(
                    logging.WARNING, "%s: the clock jumps at %.3f s (from %.3f s to %.3f s); time runs on from there",
                    self._uri, self._end, self._last[index], seconds,
                )  # fmt: skip
        # Transport streams say no durations: the last step is as good.
        step = (packet.duration or 0) * time_base
        if not step and not jumped and index in self._last:
            step = max(seconds - self._last[index], Fraction(0))
        self._last[index] = seconds
        offset = round(self._offsets[part] / time_base)
        if offset:
            shift_stamps(packet, offset)
        if packet.stream.type not in _SPARSE_KINDS:
            self._end = max(self._end, (stamp + offset) * time_base + step)
        return jumped

    def _jumps(self, packet: av.Packet, seconds: Fraction) -> bool:
        last = self._last.get(packet.stream_index)
        if last is None:
            return False
        if seconds < last - _BACKWARD_SECONDS:
            return True
        return self._has_leaps and seconds > last + _FORWARD_SECONDS and packet.stream.type not in _SPARSE_KINDS
