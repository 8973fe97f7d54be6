"""One case run in this process, in bursts of individually timed frames."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from vidnoise.backends.device import precision_name, wait_for
from vidnoise.backends.window import block_of
from vidnoise.bench.cases import WARM_UP, Case, noisy_frames
from vidnoise.frame import Frame
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.stream_batch import StreamBatch

PICTURES = 4
"""Number of pictures that are pushed in rotation."""


class Session:
    """A case, set up and warmed up.

    Times cover the whole step, from planes to planes on the device: colour conversion, scene cuts, noise level,
    network, correction. On a GPU they are device times, from events between frames, without synchronisation in between.

    Args:
        case: The case. Without ``streams`` it runs in a :class:`Denoiser`, otherwise in a :class:`StreamBatch`.

    Raises:
        VidnoiseError: It cannot be run.
    """

    def __init__(self, case: Case) -> None:
        device = torch.device(case.device)
        frames = noisy_frames(case.height, case.width, PICTURES, device)
        self._before = _forget_peak()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device) / 2**20
        start = time.perf_counter()
        options: dict[str, Any] = {"device": device, "precision": case.precision, "backend": case.backend}
        # What a lookahead costs differs from frame to frame, but not from block to block.
        block = block_of(case.lookahead)[0]
        self._owner: Denoiser | StreamBatch
        if case.streams is None:
            self._owner = denoiser = Denoiser(case.model, **options, lookahead=case.lookahead)

            def push(i: int) -> object:
                return [denoiser.push(frames[(block * i + k) % PICTURES]) for k in range(block)]

            self._step: Callable[[int], object] = push
        else:
            self._owner = batch = StreamBatch(case.model, **options)
            sessions = [batch.open() for _ in range(case.streams)]

            def step(i: int) -> dict[Denoiser, list[Frame]]:
                return batch.push({s: frames[(i + k) % PICTURES] for k, s in enumerate(sessions)})

            self._step = step
        self._device, self._frames, self._count = device, case.streams or block, 0
        for _ in range(WARM_UP):
            self._push()
        wait_for(self._device)
        self._setup_seconds = time.perf_counter() - start

    def burst(self, frames: int, seconds: float) -> list[float]:
        """Time the next steps, in milliseconds per frame.

        With several streams, the time of a step is divided by them; with a lookahead, a step is a block of frames.

        Args:
            frames: Number of steps, after one that is not counted, because caches are full of another case's data.
            seconds: Time after which no further step is started; at least one is timed.
        """
        marks: list[Any] = [self._mark()]
        end = time.perf_counter() + seconds
        for done in range(frames + 1):
            self._push()
            marks.append(self._mark())
            if done and time.perf_counter() > end:
                break
        wait_for(self._device)
        ms = [self._between(a, b) / self._frames for a, b in itertools.pairwise(marks)]
        return ms[1:]

    def facts(self) -> dict[str, Any]:
        """Return the choices made for ``auto``, and the peak memory beyond what the process had before."""
        return {
            "backend_used": self._owner.backend.name,
            "precision_used": precision_name(self._owner.dtype),
            "setup_seconds": round(self._setup_seconds, 2),
            "peak_mib": self._peak_mib(),
        }

    def _peak_mib(self) -> float | None:
        on_gpu = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self._device) / 2**20 if on_gpu else _status_mib("VmHWM")
        return None if peak is None or self._before is None else round(peak - self._before, 1)

    def _push(self) -> None:
        self._step(self._count)
        self._count += 1

    def _mark(self) -> Any:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        wait_for(self._device)
        return time.perf_counter()

    def _between(self, a: Any, b: Any) -> float:
        return a.elapsed_time(b) if self._device.type == "cuda" else 1e3 * (b - a)


def _forget_peak() -> float | None:
    """Reset the peak of resident memory; return its new value in MiB, or None if the system does not support it."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # see proc(5); if that is not permitted, the peak while importing torch may count
    return _status_mib("VmRSS")


def _status_mib(field: str) -> float | None:
    """Return a field of this process's status in MiB.

    getrusage is no substitute, as a process inherits its parent's peak.
    """
    if not sys.platform.startswith("linux"):
        return None
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return None
