"""What every sink is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vidnoise.frame import Frame, Packet, StreamInfo


@runtime_checkable
class Sink(Protocol):
    """Takes the frames of one video. Not thread-safe: one thread opens, writes, and closes or aborts."""

    def is_ready(self) -> bool:
        """Whether :meth:`open` has to wait for nobody; a FIFO has to, for a reader."""
        ...

    def stop(self) -> None:
        """The run is to end: a reader that takes nothing is waited for no longer. Any thread may call this."""
        ...

    def leave(self) -> bool:
        """Whether nobody takes what is written, so that the thread that writes may be left behind.

        Asked every quarter second once the run is to end. After True the sink is dead: nothing of it may be called but
        :meth:`abort`, which then does nothing.
        """
        ...

    def open(self, info: StreamInfo) -> None:
        """Begin an output for frames as ``info`` describes them; nothing appears under its final name yet."""
        ...

    def write(self, frame: Frame) -> None:
        """Encode one frame (its planes in main memory) and the packets that ride on it."""
        ...

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Finish the output and give it its final name."""
        ...

    def abort(self) -> None:
        """Throw the output away. May be called at any time, also twice, also after :meth:`close`."""
        ...
