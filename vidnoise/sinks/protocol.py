"""The interface of sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vidnoise.frame import Frame, Packet, StreamInfo

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Sink(Protocol):
    """Receives the frames of one video. Not thread-safe: one thread opens, writes, and closes or aborts.

    As a context manager, it is closed at the end of the ``with`` block unless it is closed already, or aborted if the
    block raised; writing to it afterwards raises an ``EncodeError``.
    """

    def is_ready(self) -> bool:
        """Whether :meth:`open` would return without waiting for a reader, as a FIFO needs one."""
        ...

    def stop(self) -> None:
        """Stop waiting for a reader that takes nothing: the run is ending. Thread-safe."""
        ...

    def abandon(self) -> bool:
        """Abandon the output if its peer has stalled, and return whether it was abandoned.

        Called every quarter of a second while the run is ending. After True, the writing thread is left behind, and
        only :meth:`abort` may be called, which then does nothing.
        """
        ...

    def open(self, info: StreamInfo) -> None:
        """Begin an output for frames as described by ``info``; nothing appears under its final name yet."""
        ...

    def write(self, frame: Frame) -> None:
        """Encode one frame, whose planes are in main memory, and mux the packets attached to it."""
        ...

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Finish the output and give it its final name."""
        ...

    def abort(self) -> None:
        """Discard the output. Idempotent; may be called at any time, even after :meth:`close`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...


class FinishedAfterUse:
    """Base class of sinks that makes them context managers."""

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Finish the output; see :meth:`Sink.close`."""
        raise NotImplementedError

    def abort(self) -> None:
        """Discard the output; see :meth:`Sink.abort`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abort()  # a no-op after close(); releases what an output that was never opened holds
