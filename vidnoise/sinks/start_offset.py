"""The start of an output: some containers cannot begin as late as the first frame."""

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
"""Latest start, in seconds, for containers of constant rate, which would fill the time before with empty frames."""

_LAST_START_SECONDS = {"mpegts": Fraction(2**33, 90_000) - 60}
"""Latest start, in seconds, for containers whose clock wraps around (MPEG-TS: after 26.5 hours). Readers take a
timestamp in the last minute before the wrap for a negative one.
"""


class StartOffset:
    """Moves all timestamps to zero if the container cannot begin at the time of the first frame.

    Args:
        format_name: FFmpeg's name of the container.
        uri: The output's name in messages.
    """

    def __init__(self, format_name: str, uri: str) -> None:
        self._format_name, self._uri = format_name, uri
        self._offset = Fraction(0)
        """Seconds to subtract from all timestamps."""

    def set_from(self, frame: Frame, *, has_free_times: bool) -> None:
        """Decide on the offset from the first frame of the output.

        Args:
            frame: The first frame.
            has_free_times: Whether the container stores a time for each frame, rather than a constant rate.
        """
        begin = frame.seconds
        if begin is None or is_uncompressed(self._format_name):
            return
        latest = _LAST_START_SECONDS.get(self._format_name, None if has_free_times else _LATE_SECONDS)
        if latest is not None and begin > latest:
            self._offset = begin
            logger.warning(
                "%s: the first frame is at %.3f s; %s cannot begin so late, so the output begins at 0",
                self._uri, begin, self._format_name,
            )  # fmt: skip

    def rebase(self, frame: Frame) -> Frame:
        """Return ``frame``, with its packets, on the output's clock."""
        if not self._offset:
            return frame
        pts = None if frame.pts is None else frame.pts - round(self._offset / frame.time_base)
        return replace(frame, pts=pts, packets=self.rebase_packets(frame.packets))

    def rebase_packets(self, packets: Sequence[Packet]) -> tuple[Packet, ...]:
        """Move packets to the output's clock, in place."""
        for packet in packets if self._offset else ():
            shift_stamps(packet.data, -round(self._offset / Fraction(packet.data.time_base)))
        return tuple(packets)
