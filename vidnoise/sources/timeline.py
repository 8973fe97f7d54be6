"""Repair of timestamps that jump, as in concatenated or retuned recordings."""

from __future__ import annotations

import logging
from fractions import Fraction

import av

from vidnoise.frame.stamps import decoded_at, shift_stamps
from vidnoise.notices import Notify

_BACKWARD_SECONDS = 1
"""Backward step above which the clock has jumped; smaller ones are reordering of frames, or noise."""

_FORWARD_SECONDS = 10
"""Forward step above which the clock of a broadcast format has jumped; in other formats it is an intended pause."""

_SPARSE_KINDS = ("subtitle", "data", "attachment")


class Timeline:
    """Joins the clocks of a recording's parts, for all of its streams alike. Modifies packets in place.

    Args:
        has_leaps: Whether clocks may also jump forward in the container (MPEG-TS).
        uri: The input's name in messages.
        notify: Called for each jump.
    """

    def __init__(self, *, has_leaps: bool, uri: str, notify: Notify) -> None:
        self._notify = notify
        self._has_leaps = has_leaps
        self._uri = uri
        self._offsets = [Fraction(0)]
        """Seconds to add, for each part."""
        self._part: dict[int, int] = {}
        self._last: dict[int, Fraction] = {}
        self._end = Fraction(0)
        """End of the latest packet, on the joined clock."""

    def restart(self) -> None:
        """Forget the history, after a seek."""
        self._offsets, self._part, self._last = [Fraction(0)], {}, {}
        self._end = Fraction(0)

    def rebase(self, packet: av.Packet) -> bool:
        """Move ``packet`` to the joined clock; returns whether its stream begins a new part with it."""
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
        # Transport streams have no durations: use the last step.
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
