"""What every sink is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vidnoise.frame import Frame, Packet, StreamInfo

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Sink(Protocol):
    """Takes the frames of one video. Not thread-safe: one thread opens, writes, and closes or aborts.

    As a context manager it is closed at the end of the ``with`` block if it is not yet, or aborted where the block
    raised; to write to it afterwards is an ``EncodeError``.
    """

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

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...


class FinishedAfterUse:
    """What a sink is as a context manager."""

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abort()  # of a closed one nothing; of one that was never opened, what was held
