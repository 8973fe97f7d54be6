"""Timestamps of an output stream: rescaled to the container's ticks, with increasing decoding times."""

from __future__ import annotations

from fractions import Fraction

import av
import av.container
import av.format
import av.stream

LARGEST = 2**62
"""Largest plausible timestamp, in ticks."""
LONGEST_DELAY = 60
"""Longest plausible time between decoding and showing a frame, in seconds."""

_MAY_BE_EQUAL = ("subtitle", "data")


class Stamps:
    """Repairs missing and non-increasing decoding times, which real files have and muxers reject.

    Timestamps one tick apart in the source may collide in the output, so they are compared in the output's ticks.

    Args:
        container: The output.
        stream: One of its streams.
    """

    def __init__(self, container: av.container.OutputContainer, stream: av.stream.Stream) -> None:
        self._stream = stream
        is_strict = not container.format.flags & av.format.Flags.ts_nonstrict.value
        self._step = int(is_strict and stream.type not in _MAY_BE_EQUAL)
        self._next: int | None = None
        self.n_repaired = 0
        """Number of packets whose decoding time was changed."""

    def rescale(self, packet: av.Packet) -> None:
        """Assign ``packet`` to the stream, whose header must be written, and rescale its timestamps to it."""
        ticks = packet.time_base / self._stream.time_base  # type: ignore[operator]
        pts, dts = (None if stamp is None else _rounded(stamp * ticks) for stamp in (packet.pts, packet.dts))
        # For streams shorter than its delay, libx265 returns uninitialised memory as decoding times.
        if dts is None or not self._is_plausible(dts, pts):
            dts = (self._next or 0) if pts is None else pts
        if self._next is not None and dts < self._next:
            dts = self._next
            self.n_repaired += 1
        self._next = dts + self._step
        duration = _rounded((packet.duration or 0) * ticks)
        packet.time_base = self._stream.time_base  # type: ignore[misc]
        packet.dts = dts
        packet.pts = dts if pts is None else max(pts, dts)
        packet.duration = duration
        packet.stream = self._stream

    def _is_plausible(self, dts: int, pts: int | None) -> bool:
        if pts is None:
            return abs(dts) <= LARGEST
        return 0 <= (pts - dts) * self._stream.time_base <= LONGEST_DELAY  # type: ignore[operator]


def _rounded(ticks: Fraction) -> int:
    """Round half away from zero, as libav does."""
    whole = (2 * abs(ticks.numerator) + ticks.denominator) // (2 * ticks.denominator)
    return whole if ticks >= 0 else -whole


def copy_of(packet: av.Packet) -> av.Packet:
    """Copy a packet, for a muxer to modify."""
    copy = av.Packet(bytes(packet))
    copy.time_base = packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    for item in packet.iter_sidedata():
        copy.set_sidedata(item)
    return copy
