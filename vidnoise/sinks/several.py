"""One video to several outputs at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from vidnoise.errors import ReaderClosedError, VidnoiseError
from vidnoise.frame import Frame, Packet, StreamInfo
from vidnoise.sinks.protocol import Sink
from vidnoise.sinks.stamps import copy_of

logger = logging.getLogger(__name__)


class TeeSink:
    """Writes every frame to each of ``sinks``, in order.

    An output that fails later is left, and the others go on: a recording must not end because a viewer has gone. Its
    error is raised when the others are finished, or at once where none is left. A reader that closes its pipe is no
    error while others go on.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._all = list(sinks)
        self._sinks = list(sinks)
        self._error: VidnoiseError | None = None

    def open(self, info: StreamInfo) -> None:
        """Open all, or none: where one cannot be opened, the run does not begin."""
        try:
            for sink in self._sinks:
                sink.open(info)
        except BaseException:
            self.abort()
            raise

    def write(self, frame: Frame) -> None:
        def write_to(sink: Sink, is_last: bool) -> None:
            sink.write(frame if is_last else replace(frame, packets=copies(frame.packets)))

        self._each(write_to)

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        self._each(lambda sink, is_last: sink.close(trailing_packets if is_last else copies(trailing_packets)))
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        for sink in self._all:
            sink.abort()

    def _each(self, do: Callable[[Sink, bool], None]) -> None:
        for sink in list(self._sinks):
            try:
                do(sink, sink is self._sinks[-1])
            except VidnoiseError as ex:
                self._sinks.remove(sink)
                if not self._sinks:
                    raise self._error or ex from ex
                logger.warning("%s; the other output goes on", ex)
                if not isinstance(ex, ReaderClosedError):
                    self._error = self._error or ex


def copies(packets: Sequence[Packet]) -> tuple[Packet, ...]:
    """The same packets again: a muxer changes those that it gets."""
    return tuple(replace(packet, data=copy_of(packet.data)) for packet in packets)
