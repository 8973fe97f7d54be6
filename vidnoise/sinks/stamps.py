"""Time stamps of an output stream, in the ticks in which its container writes them: decoding times that go up."""

from __future__ import annotations

from fractions import Fraction

import av
import av.container
import av.format
import av.stream

LARGEST = 2**62
"""Ticks: beyond them nothing can be meant."""

_MAY_BE_EQUAL = ("subtitle", "data")


class Stamps:
    """Mends what muxers refuse, and real files have: decoding times that are missing, or do not go up.

    Whether they go up is a matter of the output's ticks: what is one tick apart in the source may be equal there.

    Args:
        container: The output.
        stream: One of its streams.
    """

    def __init__(self, container: av.container.OutputContainer, stream: av.stream.Stream) -> None:
        self._stream = stream
        is_strict = not container.format.flags & av.format.Flags.ts_nonstrict.value
        self._step = int(is_strict and stream.type not in _MAY_BE_EQUAL)
        self._next: int | None = None
        self.n_mended = 0
        """Packets whose decoding time had to be changed."""

    def place(self, packet: av.Packet) -> None:
        """Turn the times of ``packet`` into ticks of the stream, whose header is written, and make it the stream's."""
        ticks = packet.time_base / self._stream.time_base  # type: ignore[operator]
        pts, dts = (None if stamp is None else _rounded(stamp * ticks) for stamp in (packet.pts, packet.dts))
        # Of streams that are shorter than its delay, libx265 gives decoding times that are just what was in memory.
        if dts is None or abs(dts) > LARGEST or (pts is not None and dts > pts):
            dts = (self._next or 0) if pts is None else pts
        if self._next is not None and dts < self._next:
            dts = self._next
            self.n_mended += 1
        self._next = dts + self._step
        duration = _rounded((packet.duration or 0) * ticks)
        packet.time_base = self._stream.time_base  # type: ignore[misc]
        packet.dts = dts
        packet.pts = dts if pts is None else max(pts, dts)
        packet.duration = duration
        packet.stream = self._stream


def _rounded(ticks: Fraction) -> int:
    """To the nearest, halves away from zero: as libav does it."""
    whole = (2 * abs(ticks.numerator) + ticks.denominator) // (2 * ticks.denominator)
    return whole if ticks >= 0 else -whole


def copy_of(packet: av.Packet) -> av.Packet:
    """The same packet again: a muxer changes those that it gets."""
    twin = av.Packet(bytes(packet))
    twin.time_base = packet.time_base
    twin.pts, twin.dts, twin.duration = packet.pts, packet.dts, packet.duration
    twin.is_keyframe = packet.is_keyframe
    for item in packet.iter_sidedata():
        twin.set_sidedata(item)
    return twin
