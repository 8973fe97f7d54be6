"""The interface of sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vidnoise.frame import Frame, Packet, StreamInfo

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Source(Protocol):
    """A video stream that can be read once, front to back.

    One thread iterates and closes; :meth:`stop` is thread-safe.

    As a context manager, it is closed at the end of the ``with`` block; iterating it afterwards raises a
    ``SourceError``.
    """

    info: StreamInfo
    trailing_packets: tuple[Packet, ...]
    """Packets of other streams after the last frame; complete once the iteration has ended."""

    @property
    def n_corrupt(self) -> int:
        """Number of damaged packets and frames so far, whether skipped or concealed by the decoder."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in presentation order; closes the source at the end."""
        ...

    def stop(self) -> None:
        """End the iteration soon, even if it is waiting for data. Thread-safe."""
        ...

    def close(self) -> None:
        """Release the input. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class ClosedAfterUse:
    """Base class of sources that makes them context managers."""

    def close(self) -> None:
        """Release the input; see :meth:`Source.close`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
