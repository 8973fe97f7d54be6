"""The rings of slots, on a fake device that runs what is enqueued as late, or in as unlucky an order, as it may.

The fake's streams are lists of operations. An operation runs when the scheduler picks its stream, and not before the
events it waits for; copies read their source only then. So a slot that is reused too early damages pictures here as it
would on a GPU, and the tests at the end break every rule of Note [Slot lifetime] to show that they would notice.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.pipeline.device_transfer import HostTransfer, RingTransfer, make_device_transfer

STREAMS = ("copy_in", "compute", "copy_out")


@dataclass
class FakeEvent:
    name: int
    recorded: int = 0
    """How many times a record was enqueued, and (below) how many of those have run."""
    done: int = 0


@dataclass
class Operation:
    kind: str
    run: object
    event: FakeEvent | None = None
    ticket: int = 0


@dataclass
class FakeDevice:
    """Runs operations late. ``stalled`` streams move only when the host waits for something behind them."""

    stalled: tuple[str, ...] = STREAMS
    seed: int = 0
    ignored: str = ""
    """Breaks a rule: "wait compute", "synchronize uploaded", ..."""
    queues: dict[str, list[Operation]] = field(default_factory=lambda: {s: [] for s in STREAMS})
    n_allocated: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._n_events = 0
        self._on_device: set[int] = set()

    # What RingTransfer asks for.
    def allocate(self, like: Tensor, *, on_host: bool) -> Tensor:
        self.n_allocated += 1
        buffer = torch.full_like(like, 255, memory_format=torch.contiguous_format)
        if not on_host:
            self._on_device.add(buffer.data_ptr())
            self._kept = [*getattr(self, "_kept", []), buffer]  # so that no address is used twice
        return buffer

    def is_on_device(self, tensor: Tensor) -> bool:
        return tensor.data_ptr() in self._on_device

    def copy(self, stream: str, target: Tensor, source: Tensor) -> None:
        self.enqueue(stream, Operation("copy", lambda: target.copy_(source)))

    def event(self) -> FakeEvent:
        self._n_events += 1
        return FakeEvent(self._n_events)

    def record(self, event: FakeEvent, stream: str) -> None:
        event.recorded += 1
        self.enqueue(stream, Operation("record", None, event, event.recorded))

    def wait(self, stream: str, event: FakeEvent) -> None:
        if self.ignored != f"wait {stream}":
            self.enqueue(stream, Operation("wait", None, event, event.recorded))

    def synchronize(self, event: FakeEvent) -> None:
        if self.ignored == "synchronize":
            return
        ticket = event.recorded
        while event.done < ticket:
            assert self._step(STREAMS), "deadlock"

    def finish(self) -> None:
        while any(self.queues.values()):
            assert self._step(STREAMS), "deadlock"

    # The device's side.
    def enqueue(self, stream: str, operation: Operation) -> None:
        self.queues[stream].append(operation)
        free = [s for s in STREAMS if s not in self.stalled]
        while free and self._random.random() < 0.7 and self._step(free):
            pass

    def _step(self, streams) -> bool:
        ready = [s for s in streams if self.queues[s] and self._is_ready(self.queues[s][0])]
        # A stalled stream moves only when no other one can.
        ready = [s for s in ready if s not in self.stalled] or ready
        if not ready:
            return False
        operation = self.queues[self._random.choice(ready)].pop(0)
        if operation.kind == "record":
            operation.event.done = operation.ticket
        elif operation.run is not None:
            operation.run()
        return True

    def _is_ready(self, operation: Operation) -> bool:
        return operation.kind != "wait" or operation.event.done >= operation.ticket


def frames(n: int, size: tuple[int, int] = (4, 6), format: str = "yuva420p") -> list[Frame]:
    """Frame i holds i in its first plane, i + 50 in the next, ...; alpha is the plane nobody touches."""
    pixel_format = PIXEL_FORMATS[format]
    return [
        Frame(
            tuple(
                torch.full(pixel_format.plane_shape(k, *size), i + 50 * k, dtype=torch.uint8)
                for k in range(len(pixel_format.layout))
            ),
            pixel_format,
            pts=i,
            time_base=Fraction(1, 25),
            index=i,
        )
        for i in range(n)
    ]


def compute(device: FakeDevice, stream_of_frames):
    """A stage that adds 1 to all planes but alpha, which it passes on as it is, on the compute stream."""
    for frame in stream_of_frames:
        planes = []
        for plane in frame.planes[:-1]:
            out = torch.full_like(plane, 254)

            def add(out=out, plane=plane):
                out.copy_(plane).add_(1)

            device.enqueue("compute", Operation("compute", add))
            planes.append(out)
        yield replace(frame, planes=(*planes, frame.planes[-1]))


def went_through(device: FakeDevice, given: list[Frame], depth: int = 3, held: int = 2, behind: int = 0) -> bool:
    """Whether every frame comes out right, read as late as ``held`` allows.

    With rings of equal depth, a frame is back in main memory before its upload slot is used again, which hides the
    events of the upload ring. ``behind`` makes the download ring that much deeper.
    """
    transfer, back = RingTransfer(device, depth), RingTransfer(device, depth + behind)
    kept: list[Frame] = []
    right = True
    n_out = 0

    def check(frame: Frame) -> bool:
        expected = [p + 1 for p in given[frame.index].planes[:-1]] + [given[frame.index].planes[-1]]
        return frame.pts == frame.index and all(torch.equal(a, b) for a, b in zip(frame.planes, expected, strict=True))

    # The source's memory is overwritten as soon as the next frame is read, as a decoder does.
    def source():
        previous = None
        for frame in given:
            if previous is not None:
                for plane in previous.planes:
                    plane.fill_(99)
            previous = replace(frame, planes=tuple(p.clone() for p in frame.planes))
            yield previous

    for frame in back.download(compute(device, transfer.upload(source())), held=held):
        assert frame.index == n_out
        n_out += 1
        kept.append(frame)
        if len(kept) > held:
            right &= check(kept.pop(0))
    assert n_out == len(given)
    return right and all(check(frame) for frame in kept)


class UsedBefore(FakeDevice):
    """Hands out memory as CUDA's allocator does: what is enqueued on the compute stream may still write there."""

    def allocate(self, like: Tensor, *, on_host: bool) -> Tensor:
        buffer = super().allocate(like, on_host=on_host)
        if not on_host:
            self.enqueue("compute", Operation("compute", lambda: buffer.fill_(77)))
        return buffer


STALLS = [(), ("copy_in",), ("compute",), ("copy_out",), ("copy_in", "compute"), ("compute", "copy_out"), STREAMS]


@pytest.mark.parametrize("stalled", STALLS)
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_every_frame_arrives_whole_whatever_is_late(stalled, depth):
    for seed in range(4):
        assert went_through(FakeDevice(stalled, seed), frames(15), depth)
        assert went_through(FakeDevice(stalled, seed), frames(15), depth, behind=6)


@pytest.mark.parametrize("held", [1, 6])
def test_frames_stay_valid_for_as_long_as_was_asked(held):
    for stalled in STALLS:
        assert went_through(FakeDevice(stalled), frames(23), held=held)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_streams_shorter_than_the_ring(n):
    assert went_through(FakeDevice(), frames(n))


def test_nothing_is_allocated_after_the_first_round():
    device = FakeDevice()
    went_through(device, frames(5))
    after_five = device.n_allocated
    device = FakeDevice()
    went_through(device, frames(40))
    assert device.n_allocated == after_five


def test_a_change_of_size_gets_new_slots():
    given = frames(9) + [replace(f, index=f.index + 9, pts=f.pts + 9) for f in frames(9, size=(8, 2))]
    for stalled in STALLS:
        assert went_through(FakeDevice(stalled), given)


def test_memory_that_was_just_freed_is_not_copied_into_too_early():
    given = frames(9) + [replace(f, index=f.index + 9, pts=f.pts + 9) for f in frames(9, size=(8, 2))]
    for stalled in STALLS:
        for seed in range(4):
            assert went_through(UsedBefore(stalled, seed), given)


def test_frames_that_are_on_the_device_are_passed_through():
    device = FakeDevice()
    frame = frames(1)[0]
    frame = replace(frame, planes=tuple(device.allocate(p, on_host=False) for p in frame.planes))
    assert list(RingTransfer(device).upload([frame])) == [frame]


def test_copies_overlap_with_computing():
    """While the first frame's computation hangs, the next frames' copies go through."""
    device = FakeDevice(stalled=("compute",))
    transfer = RingTransfer(device, depth=4)
    stage = transfer.download(compute(device, transfer.upload(frames(10))))
    next(stage)
    device.finish()
    device._random = random.Random(1)
    next(stage)
    waiting = [op for op in device.queues["compute"] if op.kind == "compute"]
    assert waiting
    while device._step(["copy_in"]):
        pass
    assert not device.queues["copy_in"]
    stage.close()


@pytest.mark.parametrize("stop_after", [1, 4])
def test_an_early_end_leaves_nothing_under_way(stop_after):
    device = FakeDevice()
    transfer = RingTransfer(device, depth=3)
    up = transfer.upload(frames(20))
    down = transfer.download(compute(device, up))
    for _ in range(stop_after):
        next(down)
    down.close()
    up.close()
    assert not any(device.queues.values())


# The rules, broken one by one: each must damage a picture for some unlucky order, or it is not needed.
def damaged(make) -> bool:
    return any(
        not went_through(make(stalled, seed), frames(23), depth=2, behind=6) for stalled in STALLS for seed in range(10)
    )


@pytest.mark.parametrize("ignored", ["wait copy_in", "wait compute", "wait copy_out", "synchronize"])
def test_without_a_wait_pictures_are_damaged(ignored):
    assert damaged(lambda stalled, seed: FakeDevice(stalled, seed, ignored=ignored))


def break_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill = RingTransfer._fill

    def broken(self, slot, planes):
        setattr(slot, rule, self._device.event())  # as if it had never been recorded
        fill(self, slot, planes)

    monkeypatch.setattr(RingTransfer, "_fill", broken)


def test_without_waiting_for_its_last_user_new_memory_is_damaged():
    class Careless(UsedBefore):
        def record(self, event: FakeEvent, stream: str) -> None:
            if not self.allocated:
                super().record(event, stream)
            self.allocated = False

        def allocate(self, like: Tensor, *, on_host: bool) -> Tensor:
            self.allocated = not on_host
            return super().allocate(like, on_host=on_host)

        allocated = False

    given = frames(4)
    assert not all(went_through(Careless(stalled, seed), given) for stalled in STALLS for seed in range(10))


@pytest.mark.parametrize("rule", ["left", "uploaded"])
def test_without_one_of_the_upload_events_pictures_are_damaged(rule, monkeypatch):
    break_rule(rule, monkeypatch)
    assert damaged(FakeDevice)


def summed(device: FakeDevice, n: int) -> int:
    """Frames that are computed with, but never copied out: only the compute stream holds their slots."""
    total = torch.zeros(1, dtype=torch.int64)
    for frame in RingTransfer(device, depth=2).upload(frames(n)):
        plane = frame.planes[0]
        device.enqueue("compute", Operation("compute", lambda plane=plane: total.add_(int(plane[0, 0]))))
    return int(total)


def test_frames_that_are_not_downloaded_hold_their_slot_too():
    assert all(summed(FakeDevice(stalled, seed), 20) == 190 for stalled in STALLS for seed in range(10))


def test_without_the_consumed_event_they_are_damaged(monkeypatch):
    break_rule("consumed", monkeypatch)
    assert any(summed(FakeDevice(stalled, seed), 20) != 190 for stalled in STALLS for seed in range(10))


def test_holding_frames_for_longer_than_asked_damages_them():
    class Forgetful(RingTransfer):
        def download(self, frames, held=1):
            return super().download(frames, held=1)

    transfer = Forgetful(FakeDevice(), depth=2)
    out = list(transfer.download(compute(transfer._device, transfer.upload(frames(10))), held=10))
    assert any(frame.planes[0][0, 0] != frame.index + 1 for frame in out)


def test_the_host_transfer_moves_nothing():
    given = frames(3)
    transfer = make_device_transfer(torch.device("cpu"))
    assert isinstance(transfer, HostTransfer)
    assert list(transfer.download(transfer.upload(given), held=3)) == given


def test_a_ring_needs_two_slots():
    with pytest.raises(ValueError, match="at least 2"):
        RingTransfer(FakeDevice(), depth=1)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("format", ["yuva420p", "nv12", "gray"])
def test_cuda_ring_with_a_stalled_stream(format):
    device = torch.device("cuda:0")
    given = frames(30, size=(270, 480), format=format)
    transfer = make_device_transfer(device, depth=3)

    def stage(stream):
        for frame in stream:
            torch.cuda._sleep(2_000_000)  # about a millisecond: the copies run far ahead of it
            yield replace(frame, planes=tuple(p + 1 for p in frame.planes))

    n = 0
    for frame in transfer.download(stage(transfer.upload(iter(given)))):
        for before, after in zip(given[frame.index].planes, frame.planes, strict=True):
            assert torch.equal(before + 1, after)
            assert after.device.type == "cpu"
        n += 1
    assert n == 30


@pytest.mark.needs_cuda
def test_cuda_memory_that_was_just_freed_is_not_copied_into_too_early():
    device = torch.device("cuda:0")
    given = frames(1, size=(1080, 1920), format="gray")
    used = torch.empty_like(given[0].planes[0], device=device)
    torch.cuda._sleep(200_000_000)  # about a tenth of a second, in which the copy would long be done
    used.fill_(77)
    address = used.data_ptr()
    del used
    for frame in make_device_transfer(device).upload(iter(given)):
        assert frame.planes[0].data_ptr() == address
        assert torch.equal(frame.planes[0].cpu(), given[0].planes[0])
