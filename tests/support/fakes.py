"""A source, a denoiser and a sink without files."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace
from fractions import Fraction

import torch

from vidnoise.errors import DecodeError, DeviceError, EncodeError, SinkOpenError
from vidnoise.frame import PIXEL_FORMATS, Frame, Packet, StreamInfo

GRAY = PIXEL_FORMATS["gray"]


class FakeSource:
    """``n`` frames; notes which threads read and closed it."""

    def __init__(self, n: int = 20, *, fail_at: int | None = None, is_live: bool = False, wait: float = 0) -> None:
        self.info = StreamInfo(8, 6, GRAY, Fraction(1, 25), Fraction(25), n_frames=n, is_live=is_live)
        self.n_corrupt = 2
        self.trailing_packets: tuple[Packet, ...] = ()
        self.fail_at, self.wait = fail_at, wait
        self.n_read = 0
        self.iterator_closed_by = ""
        self.closed = False

    def __iter__(self):
        try:
            for i in range(self.info.n_frames or 0):
                if i == self.fail_at:
                    raise DecodeError("damaged beyond reading")
                self.n_read += 1
                yield Frame(
                    (torch.full((6, 8), i % 200, dtype=torch.uint8),),
                    GRAY,
                    pts=i,
                    duration=1,
                    time_base=Fraction(1, 25),
                    index=i,
                    packets=(Packet(1, f"sound {i}"),),
                )
                if self.wait:
                    time.sleep(self.wait)
            self.trailing_packets = (Packet(1, "last sound"),)
        finally:
            self.iterator_closed_by = threading.current_thread().name

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


class FakeDenoiser:
    """Adds 1; may fail, or be slow."""

    device = torch.device("cpu")
    dtype = torch.float32
    model_name = "plus one"
    backend_name = "eager"
    n_cuts = 3
    estimated_sigma = 12.5

    def __init__(self, *, fail_at: int | None = None, wait: float = 0, interrupt_at: int | None = None) -> None:
        self.fail_at, self.wait, self.interrupt_at = fail_at, wait, interrupt_at
        self.seen: list[Frame] = []

    def __call__(self, frames):
        for frame in frames:
            if frame.index == self.fail_at:
                raise DeviceError("out of memory; try --model fast")
            if frame.index == self.interrupt_at:
                signal.raise_signal(signal.SIGINT)
            if self.wait:
                time.sleep(self.wait)
            self.seen.append(replace(frame, planes=(), packets=()))
            yield replace(frame, planes=(frame.planes[0] + 1,))


class FakeSink:
    def __init__(self, *, fail_at: int | None = None, fail_open: bool = False, fail_close: bool = False) -> None:
        self.fail_at, self.fail_open, self.fail_close = fail_at, fail_open, fail_close
        self.events: list[str] = []
        self.frames: list[Frame] = []
        self.trailing: tuple[Packet, ...] = ()

    def is_ready(self) -> bool:
        return True

    def stop(self) -> None:
        """Nobody is waited for here."""

    def abandon(self) -> bool:
        return False

    def open(self, info: StreamInfo) -> None:
        if self.fail_open:
            raise SinkOpenError("exists already")
        self.events.append("open")

    def write(self, frame: Frame) -> None:
        if frame.index == self.fail_at:
            raise EncodeError("disk full")
        self.frames.append(frame)

    def close(self, trailing_packets=()) -> None:
        if self.fail_close:
            raise EncodeError("disk full at the end")
        self.trailing = tuple(trailing_packets)
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")
