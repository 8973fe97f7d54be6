"""Lookahead: frames wait for later ones, which a backward pass visits first.

The backward pass, the scout, goes from the latest frame back to the first that waits, and at each predicts the frame
from those after it. Then the frames are denoised from the first to the last, each by its past and this prediction.
The backward pass is repeated per block of frames rather than per frame, so that it costs little: with N frames of
lookahead, the last third of the waiting frames are only visited, and come out with the next block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from vidnoise.backends.protocol import Backend
from vidnoise.model import Denoised, Future, State

Item = TypeVar("Item")

AUTO_LOOKAHEAD = 8
"""Default lookahead for files, in frames: about as many as the minimum gain on details lets have an effect."""

LIVE_LOOKAHEAD = 3
"""Maximum default lookahead for live input on a GPU, in frames, where the latency bound allows it."""

LIVE_SHARE = 0.25
"""Maximum time spent waiting for frames, as a share of a live stream's latency bound."""

MEMORY_SHARE = 0.25
"""Maximum memory of waiting frames, as a share of the free memory."""

WAITING_BYTES = 60
"""Approximate bytes per pixel of a waiting frame: its samples, RGB, noise level and prediction."""


def choose_lookahead(
    size: tuple[int, int],
    device: torch.device,
    *,
    max_memory: float | None = None,
    rate: Fraction | None = None,
    max_latency_ms: float | None = None,
    streams: int = 1,
) -> int:
    """Choose the default lookahead of a stream, in frames.

    Args:
        size: Width and height of the video.
        device: Device on which frames wait.
        max_memory: Memory that the stream may take there, in MB.
        rate: Frames a second of a live input.
        max_latency_ms: Latency bound of a live input; ``None`` for a file.
        streams: Number of streams on the device, each with frames that wait.

    Returns:
        For a file :data:`AUTO_LOOKAHEAD`, or as many as fit into :data:`MEMORY_SHARE` of the free memory; for a live
        input 0 on a CPU, which has no time for it, and at most :data:`LIVE_LOOKAHEAD` on a GPU.
    """
    width, height = size
    room = free_bytes(device) / streams
    if max_memory is not None:
        room = min(room, max_memory * 2**20)
    fits = int(MEMORY_SHARE * room / (WAITING_BYTES * width * height))
    if max_latency_ms is None:
        return max(0, min(AUTO_LOOKAHEAD, fits))
    if device.type != "cuda" or not rate:
        return 0
    return max(0, min(LIVE_LOOKAHEAD, fits, int(LIVE_SHARE * max_latency_ms / 1000 * rate)))


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # Linux, which counts what caches would give back
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not available on every system
        return 4 << 30


def block_of(lookahead: int) -> tuple[int, int]:
    """Return the frames of a block, which are returned together, and how many frames after it they are denoised with.

    Args:
        lookahead: frames that may have to arrive before the first one is returned.
    """
    after = -(-lookahead // 3)
    return lookahead + 1 - after, after


class _Waiting(NamedTuple, Generic[Item]):
    item: Item
    noisy: Tensor
    sigma_scale: float | Tensor
    continues: Tensor
    level: Tensor


class Window(Generic[Item]):
    """The waiting frames of one stream (or of N in lockstep), and the state before them.

    Args:
        backend: Runs the network.
        lookahead: Frames that may have to arrive before the first one is returned: each frame is denoised with at most
            this many after it, and at least a third of that, except for the last ones of a scene.
    """

    def __init__(self, backend: Backend, lookahead: int) -> None:
        self._backend = backend
        self._lookahead = lookahead
        _, self._tail = block_of(lookahead)
        self._waiting: list[_Waiting[Item]] = []
        self.state: State | None = None

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    def push(
        self, item: Item, noisy: Tensor, sigma: float | Tensor | None, sigma_scale: float | Tensor, continues: Tensor
    ) -> Iterator[tuple[Item, Denoised]]:
        """Take the next frame and yield the finished ones, with their items.

        A clean frame must be used before the next one is requested.

        Args:
            item: Any object that belongs to the frame.
            noisy, sigma, sigma_scale, continues: See :meth:`Backend.step`. All waiting frames have one size.
        """
        if self.state is None:
            self.state = self._backend.initial_state(len(noisy), *noisy.shape[-2:])
        level, self.state = self._backend.measure(noisy, sigma, continues, self.state)
        self._waiting.append(_Waiting(item, noisy, sigma_scale, continues, level))
        if len(self._waiting) > self._lookahead:
            yield from self._release(len(self._waiting) - self._tail)

    def flush(self) -> Iterator[tuple[Item, Denoised]]:
        """Yield the frames that still wait, at the end of a video."""
        if self._waiting:
            yield from self._release(len(self._waiting))

    def _release(self, count: int) -> Iterator[tuple[Item, Denoised]]:
        """Run the backward pass from the last frame, then denoise the first ``count``."""
        futures: list[Future] = []
        scout = self._backend.initial_scout(len(self._waiting[0].noisy), *self._waiting[0].noisy.shape[-2:])
        follows = torch.zeros_like(self._waiting[0].continues)
        for i, frame in reversed(list(enumerate(self._waiting))):
            future, scout = self._backend.look(frame.noisy, frame.level, frame.sigma_scale, follows, scout)
            follows = frame.continues
            if i < count:
                futures.append(future)
        assert self.state is not None
        for _ in range(count):
            # Removed only once it is done, so that a frame that ran out of memory still waits.
            _, noisy, sigma_scale, continues, level = self._waiting[0]
            result = self._backend.smooth(noisy, level, sigma_scale, continues, self.state, futures.pop())
            self.state = result.state
            yield self._waiting.pop(0).item, result
