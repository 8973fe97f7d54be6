"""Time stamps of packets and pictures of av, in ticks of their time base; either may be missing (no av here)."""

from __future__ import annotations

from typing import Any, Protocol


class Stamped(Protocol):
    """An ``av.Packet`` or ``av.VideoFrame``."""

    @property
    def pts(self) -> int | None: ...

    @property
    def dts(self) -> int | None: ...


def shown_at(item: Stamped) -> int | None:
    """When ``item`` is presented, or else when it is decoded, which is close; None if neither is known."""
    return item.pts if item.pts is not None else item.dts


def decoded_at(item: Stamped) -> int | None:
    """When ``item`` is decoded, or else when it is presented: the order in which packets lie in a file."""
    return item.dts if item.dts is not None else item.pts


def shift_stamps(packet: Any, ticks: int) -> None:
    """Move the times of an ``av.Packet`` by ``ticks``, in place."""
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks
