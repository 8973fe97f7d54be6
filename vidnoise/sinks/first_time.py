"""When an output begins: some containers cannot begin as late as the first frame comes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from vidnoise.frame import Frame, Packet
from vidnoise.frame.stamps import shift_stamps
from vidnoise.sinks.uncompressed import is_uncompressed

logger = logging.getLogger(__name__)

_LATE_SECONDS = 60
"""Containers that know a constant rate only would fill the time before a first frame later than that with nothing."""

_LAST_START_SECONDS = {"mpegts": Fraction(2**33, 90_000) - 60}
"""Containers whose clock begins anew after so long (26.5 hours), so that no first frame can be later. Readers take one
in the last minute for what comes before zero."""


class FirstTime:
    """Takes from all times what the first frame comes too late.

    Args:
        format_name: FFmpeg's name of the container.
        uri: The output, for messages.
    """

    def __init__(self, format_name: str, uri: str) -> None:
        self._format_name, self._uri = format_name, uri
        self._origin = Fraction(0)
        """Seconds that are taken off."""

    def begin(self, frame: Frame, *, has_free_times: bool) -> None:
        """``frame`` is the first one.

        Args:
            has_free_times: Whether frames of the output may be shown at any time.
        """
        begin = frame.seconds
        if begin is None or is_uncompressed(self._format_name):
            return
        latest = _LAST_START_SECONDS.get(self._format_name, None if has_free_times else _LATE_SECONDS)
        if latest is not None and begin > latest:
            self._origin = begin
            logger.warning(
                "%s: the first frame is at %.3f s; %s cannot begin so late, so the output begins at 0",
                self._uri, begin, self._format_name,
            )  # fmt: skip

    def place(self, frame: Frame) -> Frame:
        """``frame`` with its packets on the output's clock."""
        if not self._origin:
            return frame
        pts = None if frame.pts is None else frame.pts - round(self._origin / frame.time_base)
        return replace(frame, pts=pts, packets=self.place_packets(frame.packets))

    def place_packets(self, packets: Sequence[Packet]) -> tuple[Packet, ...]:
        """Packets on the output's clock; changed in place."""
        for packet in packets if self._origin else ():
            shift_stamps(packet.data, -round(self._origin / Fraction(packet.data.time_base)))
        return tuple(packets)
