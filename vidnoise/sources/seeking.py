"""The pictures of a container one by one, from its beginning or from a given time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction

import av
import av.container
import av.error
import av.stream

from vidnoise.frame.stamps import shown_at
from vidnoise.sources.decoding import DecodedStream, reason
from vidnoise.sources.description import frame_rate

logger = logging.getLogger(__name__)

_SEEK_LEADS = (0, 3, 15)
"""Seconds before the target at which to look for a key frame, tried in this order; then from the beginning."""


class PictureStream:
    """The pictures of a stream in order, with seeking.

    Args:
        container, video: The input and its video stream.
        decoded: The decoded pictures and packets.
        uri: The input's name in messages.
        time_base: Time base of the video.
        begin: Start of the input on its own clock, in seconds.
        covers: Indices of streams that are cover pictures, which apply to the whole video.
    """

    def __init__(
        self, container: av.container.InputContainer, video: av.VideoStream, decoded: DecodedStream, *, uri: str,
        time_base: Fraction, begin: Fraction, covers: set[int],
    ) -> None:  # fmt: skip
        self._container, self._video, self._decoded = container, video, decoded
        self._uri, self._time_base, self._begin, self._covers = uri, time_base, begin, covers
        self._events = iter(decoded)

    def seek(self, wanted: Fraction) -> tuple[av.VideoFrame | None, list[av.Packet]]:
        """Return the first picture at or after ``wanted`` seconds on the input's clock, as :meth:`next` does."""
        for lead in _SEEK_LEADS:
            target = wanted - lead
            if target <= self._begin:
                break
            try:
                self._container.seek(int(target / self._time_base), stream=self._video, backward=True)
            except (av.error.FFmpegError, OSError) as ex:
                logger.debug("%s: cannot seek (%s); reading from the beginning", self._uri, reason(ex))
                break
            self._events = iter(self._decoded)
            picture, held = self.next()
            # Some containers seek by decoding time and end up after the target.
            if picture is not None and self.seconds(picture, None) <= wanted:
                return self._skip_to(wanted, picture, held)
        try:
            self._container.seek(int(self._begin / self._time_base) - 1, stream=self._video, backward=True)
        except (av.error.FFmpegError, OSError):
            logger.debug("%s: cannot seek back", self._uri)
        self._events = iter(self._decoded)
        picture, held = self.next()
        return (None, held) if picture is None else self._skip_to(wanted, picture, held)

    def _skip_to(
        self, wanted: Fraction, picture: av.VideoFrame | None, held: list[av.Packet]
    ) -> tuple[av.VideoFrame | None, list[av.Packet]]:
        previous: Fraction | None = None
        while picture is not None:
            previous = self.seconds(picture, previous)
            # Half a tick of tolerance: 0.1 s is not a whole number of ticks in most time bases.
            if previous + self._time_base / 2 >= wanted:
                self._decoded.forget_damage()
                break
            picture, more = self.next()
            held = [p for p in held + more if _ends_after(p, wanted) or p.stream_index in self._covers]
        return picture, held

    def next(self) -> tuple[av.VideoFrame | None, list[av.Packet]]:
        """Return the next picture, or None at the end, and the packets of other streams before it."""
        held: list[av.Packet] = []
        for event in self._events:
            if isinstance(event, av.VideoFrame):
                return event, held
            held.append(event)
        return None, held

    def packets(self) -> Iterator[av.Packet]:
        """Return the remaining packets of other streams; fast, since nothing is decoded."""
        self._decoded.skips_video = True
        return (event for event in self._events if not isinstance(event, av.VideoFrame))

    def seconds(self, picture: av.VideoFrame, previous: Fraction | None) -> Fraction:
        """Return the time of a picture on the input's clock; without a timestamp, it follows ``previous``."""
        stamp = shown_at(picture)
        if stamp is None:
            return self._begin if previous is None else previous + self.ticks_per_frame() * self._time_base
        return stamp * self._time_base

    def ticks_per_frame(self) -> int:
        """Return the duration of a frame at the nominal rate, in ticks of the stream's time base."""
        rate = frame_rate(self._video) or Fraction(25)
        return max(1, round(1 / (rate * self._time_base)))


def _ends_after(packet: av.Packet, seconds: Fraction) -> bool:
    stamp = shown_at(packet)
    if stamp is None:
        return True
    return (stamp + (packet.duration or 0)) * Fraction(packet.time_base) >= seconds
