"""Copying frames to the computing device and back.

Note [Slot lifetime]
--------------------
:class:`RingTransfer` copies through fixed rings of slots, so that nothing is allocated per frame, addresses stay the
same, and copying in, computing and copying out overlap. Four rules keep a slot from being overwritten while it is
still needed; ``tests/pipeline/test_transfer.py`` breaks each of them and checks that pictures are then damaged.

1. *uploaded*: the host may refill a slot's pinned planes only after their last copy to the device has finished, and
   the compute stream may read the device planes only after that copy.
2. *consumed*, *left*: the copy-in stream may overwrite a slot's device planes only when the compute stream and the
   copy-out stream are past the point where the next stage asked for another frame. Copy-out counts too, because
   planes that a stage does not touch (alpha) are passed on as views of the slot. So a stage may keep a frame's planes
   until it asks for the next frame and no longer; one that needs them longer (a state, a delay) must copy. New device
   planes count as consumed when they are allocated: work on the compute stream may still use that memory, since the
   allocator reuses freed memory in the order of that stream only.
3. *computed*: the copy-out stream may read a frame's planes only after the compute stream has written them. The
   download slot keeps those planes alive until the copy has finished, since their memory belongs to the compute stream.
4. *downloaded*: a frame is handed on only when its copy has finished, so that later stages need not know of streams.
   Its pinned planes are valid until ``held`` more frames were handed on; the caller states how many it keeps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from vidnoise.errors import DeviceError
from vidnoise.frame import Frame

StreamName = Literal["copy_in", "compute", "copy_out"]
Event = Any


class DeviceTransfer(Protocol):
    """Copies frames to the device and back. Not thread-safe; one upload and one download at a time."""

    def upload(self, frames: Iterable[Frame]) -> Generator[Frame, None, None]:
        """Yield frames with their planes on the device, each valid until the next one is requested."""
        ...

    def download(self, frames: Iterable[Frame], held: int = 1) -> Generator[Frame, None, None]:
        """Yield frames with their planes in main memory, each valid until ``held`` more were requested."""
        ...


class HostTransfer:
    """Passes frames through, for computing on the CPU."""

    def upload(self, frames: Iterable[Frame]) -> Generator[Frame, None, None]:
        yield from frames

    def download(self, frames: Iterable[Frame], held: int = 1) -> Generator[Frame, None, None]:
        yield from frames


class BlockingTransfer:
    """Copies each frame synchronously, for devices without streams (mps)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def upload(self, frames: Iterable[Frame]) -> Generator[Frame, None, None]:
        for frame in frames:
            yield replace(frame, planes=tuple(p.to(self.device) for p in frame.planes))

    def download(self, frames: Iterable[Frame], held: int = 1) -> Generator[Frame, None, None]:
        for frame in frames:
            yield replace(frame, planes=tuple(p.cpu() for p in frame.planes))


class StreamDevice(Protocol):
    """The operations of a device for :class:`RingTransfer`; all but ``synchronize`` and ``finish`` only enqueue."""

    def allocate(self, like: Tensor, *, on_host: bool) -> Tensor:
        """Allocate a dense buffer of the shape and type of ``like``, in pinned main memory or on the device."""
        ...

    def is_on_device(self, tensor: Tensor) -> bool: ...

    def copy(self, stream: StreamName, target: Tensor, source: Tensor) -> None: ...

    def event(self) -> Event: ...

    def record(self, event: Event, stream: StreamName) -> None: ...

    def wait(self, stream: StreamName, event: Event) -> None:
        """Make ``stream`` wait for ``event``; an event that was never recorded counts as completed."""
        ...

    def synchronize(self, event: Event) -> None:
        """Block the host until ``event``."""
        ...

    def finish(self) -> None:
        """Block the host until all enqueued work has finished."""
        ...


class CudaDevice:
    """A CUDA device with two copy streams; computing uses the current stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams = {"copy_in": torch.cuda.Stream(device), "copy_out": torch.cuda.Stream(device)}

    def _stream(self, name: StreamName) -> torch.cuda.Stream:
        return self._streams.get(name) or torch.cuda.current_stream(self.device)

    def allocate(self, like: Tensor, *, on_host: bool) -> Tensor:
        try:
            if on_host:
                return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
            return torch.empty(like.shape, dtype=like.dtype, device=self.device)
        except torch.OutOfMemoryError as ex:
            raise DeviceError(f"{self.device} has no memory left for frames of {tuple(like.shape)}") from ex

    def is_on_device(self, tensor: Tensor) -> bool:
        return tensor.device == self.device

    def copy(self, stream: StreamName, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(self._stream(stream)):
            target.copy_(source, non_blocking=True)

    def event(self) -> torch.cuda.Event:
        return torch.cuda.Event()

    def record(self, event: torch.cuda.Event, stream: StreamName) -> None:
        event.record(self._stream(stream))

    def wait(self, stream: StreamName, event: torch.cuda.Event) -> None:
        self._stream(stream).wait_event(event)

    def synchronize(self, event: torch.cuda.Event) -> None:
        event.synchronize()

    def finish(self) -> None:
        for stream in self._streams.values():
            stream.synchronize()
        torch.cuda.current_stream(self.device).synchronize()


@dataclass(slots=True)
class _UploadSlot:
    uploaded: Event
    consumed: Event
    left: Event
    host: list[Tensor] = field(default_factory=list)
    device: list[Tensor] = field(default_factory=list)


@dataclass(slots=True)
class _DownloadSlot:
    computed: Event
    downloaded: Event
    host: list[Tensor] = field(default_factory=list)
    source: tuple[Tensor, ...] = ()
    frame: Frame | None = None


def _fits(buffers: list[Tensor], planes: tuple[Tensor, ...]) -> bool:
    return [(b.shape, b.dtype) for b in buffers] == [(p.shape, p.dtype) for p in planes]


class RingTransfer:
    """Copies through rings of pinned slots on separate streams; see Note [Slot lifetime].

    Args:
        device: Performs the copies.
        depth: Frames in flight in each direction; copies overlap with computing from 2 on.

    Raises:
        ValueError: ``depth`` is less than 2.
    """

    def __init__(self, device: StreamDevice, depth: int = 4) -> None:
        if depth < 2:
            raise ValueError(f"a ring needs at least 2 slots, got {depth}")
        self._device = device
        self.depth = depth

    def upload(self, frames: Iterable[Frame]) -> Generator[Frame, None, None]:
        device = self._device
        ring = [_UploadSlot(device.event(), device.event(), device.event()) for _ in range(self.depth)]
        n_uploaded = 0
        try:
            for frame in frames:
                if all(device.is_on_device(plane) for plane in frame.planes):
                    yield frame  # decoded on the device
                    continue
                slot = ring[n_uploaded % self.depth]
                n_uploaded += 1
                self._fill(slot, frame.planes)
                yield replace(frame, planes=tuple(slot.device))
                # Rule 2: the next stage has enqueued all its work on the frame.
                device.record(slot.consumed, "compute")
                device.record(slot.left, "copy_out")
        finally:
            device.finish()  # the slots are freed now, so no copy may be in flight

    def _fill(self, slot: _UploadSlot, planes: tuple[Tensor, ...]) -> None:
        device = self._device
        device.synchronize(slot.uploaded)  # rule 1: the host planes are free
        if not _fits(slot.host, planes):
            device.synchronize(slot.consumed)
            device.synchronize(slot.left)
            slot.host = [device.allocate(p, on_host=True) for p in planes]
            slot.device = [device.allocate(p, on_host=False) for p in planes]
            device.record(slot.consumed, "compute")
        for host, plane in zip(slot.host, planes, strict=True):
            host.copy_(plane)
        device.wait("copy_in", slot.consumed)  # rule 2: the device planes are free
        device.wait("copy_in", slot.left)
        for target, host in zip(slot.device, slot.host, strict=True):
            device.copy("copy_in", target, host)
        device.record(slot.uploaded, "copy_in")
        device.wait("compute", slot.uploaded)  # rule 1: the device planes are filled

    def download(self, frames: Iterable[Frame], held: int = 1) -> Generator[Frame, None, None]:
        device = self._device
        ring = deque(_DownloadSlot(device.event(), device.event()) for _ in range(self.depth + held))
        pending: deque[_DownloadSlot] = deque()
        try:
            for frame in frames:
                slot = ring[0]
                ring.rotate(-1)
                self._start_download(slot, frame)
                pending.append(slot)
                if len(pending) == self.depth:
                    yield self._finish_download(pending.popleft())
            while pending:
                yield self._finish_download(pending.popleft())
        finally:
            device.finish()

    def _start_download(self, slot: _DownloadSlot, frame: Frame) -> None:
        device = self._device
        if not _fits(slot.host, frame.planes):
            slot.host = [device.allocate(p, on_host=True) for p in frame.planes]
        device.record(slot.computed, "compute")
        device.wait("copy_out", slot.computed)  # rule 3
        for host, plane in zip(slot.host, frame.planes, strict=True):
            device.copy("copy_out", host, plane)
        device.record(slot.downloaded, "copy_out")
        slot.frame, slot.source = frame, frame.planes

    def _finish_download(self, slot: _DownloadSlot) -> Frame:
        self._device.synchronize(slot.downloaded)  # rule 4
        assert slot.frame is not None
        frame = replace(slot.frame, planes=tuple(slot.host))
        slot.frame, slot.source = None, ()
        return frame


class CudaTransfer(RingTransfer):
    """A :class:`RingTransfer` for an NVIDIA GPU."""

    def __init__(self, device: torch.device, depth: int = 4) -> None:
        super().__init__(CudaDevice(device), depth)


def make_device_transfer(device: torch.device, depth: int = 4) -> DeviceTransfer:
    """Make the transfer for ``device``."""
    if device.type == "cpu":
        return HostTransfer()
    if device.type == "cuda":
        return CudaTransfer(device, depth)
    return BlockingTransfer(device)
