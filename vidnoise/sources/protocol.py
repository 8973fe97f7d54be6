"""What every source is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from vidnoise.frame import Frame, Packet, StreamInfo


@runtime_checkable
class Source(Protocol):
    """A video stream that can be read once, front to back. One thread iterates and closes; any may call ``stop``."""

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
