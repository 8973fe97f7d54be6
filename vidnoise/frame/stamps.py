"""Timestamps of packets and pictures in ticks of their time base; each may be missing. Does not import ``av``."""

from __future__ import annotations

from typing import Any, Protocol


class Stamped(Protocol):
    """An ``av.Packet`` or ``av.VideoFrame``."""

    @property
    def pts(self) -> int | None:
        """Time of presentation; None if unknown."""
        ...

    @property
    def dts(self) -> int | None:
        """Time of decoding; None if unknown."""
        ...


def shown_at(item: Stamped) -> int | None:
    """Return the time of presentation, or else that of decoding, which is close; None if neither is known."""
    return item.pts if item.pts is not None else item.dts


def decoded_at(item: Stamped) -> int | None:
    """Return the time of decoding, or else that of presentation: packets are stored in this order."""
    return item.dts if item.dts is not None else item.pts


def shift_stamps(packet: Any, ticks: int) -> None:
    """Shift the timestamps of an ``av.Packet`` by ``ticks``, in place."""
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks
