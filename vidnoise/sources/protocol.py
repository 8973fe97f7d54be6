"""What every source is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vidnoise.frame import Frame, Packet, StreamInfo

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Source(Protocol):
    """A video stream that can be read once, front to back. One thread iterates and closes; any may call ``stop``.

    As a context manager it is closed at the end of the ``with`` block; to iterate it afterwards is a ``SourceError``.
    """

    info: StreamInfo
    trailing_packets: tuple[Packet, ...]
    """After the last frame: packets of other streams that came behind it."""

    @property
    def n_corrupt(self) -> int:
        """Packets and frames found damaged so far (skipped, or patched up by the decoder)."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in presentation order; closes the source at the end."""
        ...

    def stop(self) -> None:
        """No more frames are wanted: iteration ends soon, also while it waits for data. Any thread may call this."""
        ...

    def close(self) -> None:
        """Release the input. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class ClosedAfterUse:
    """What a source is as a context manager."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
