"""Looking both ways: frames wait for those that follow them, which are gone through backwards first.

A scout begins at the last frame that has come and goes back to the first that waits; at each it leaves what the frames
after it say. Then the frames are denoised from the first to the last, each by its past and by what the scout has left.
The scout's way back is repeated for every block of frames, not for every frame, so that it costs little: with N frames
of lookahead, the last third of those that wait are only looked at, and come out with the next block.
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
"""Frames, for files: about as many as the fusion's least gain on details lets count."""

LIVE_LOOKAHEAD = 3
"""Frames, for live input on a GPU whose bound on the lag allows it."""

LIVE_SHARE = 0.25
"""Of the bound on a live stream's lag, what waiting for frames may take."""

MEMORY_SHARE = 0.25
"""Of the memory that is free, what waiting frames may take."""

WAITING_BYTES = 60
"""A pixel of a waiting frame, about: its samples, RGB, noise level, and what its future says of it."""


def choose_lookahead(
    size: tuple[int, int],
    device: torch.device,
    *,
    max_memory: float | None = None,
    rate: Fraction | None = None,
    max_latency_ms: float | None = None,
) -> int:
    """How far to look ahead where nobody has said it.

    Args:
        size: width and height of the video.
        device: where the frames wait.
        max_memory: MB that the stream may take there.
        rate: frames a second, of a live input.
        max_latency_ms: bound on the lag of a live input; ``None`` for a file.

    Returns:
        For a file :data:`AUTO_LOOKAHEAD`, or what fits into :data:`MEMORY_SHARE` of the memory that is free; for a live
        input none on a CPU, which has no time for it, and on a GPU :data:`LIVE_LOOKAHEAD` at the most.
    """
    width, height = size
    room = free_bytes(device) if max_memory is None else min(free_bytes(device), max_memory * 2**20)
    fits = int(MEMORY_SHARE * room / (WAITING_BYTES * width * height))
    if max_latency_ms is None:
        return max(0, min(AUTO_LOOKAHEAD, fits))
    if device.type != "cuda" or not rate:
        return 0
    return max(0, min(LIVE_LOOKAHEAD, fits, int(LIVE_SHARE * max_latency_ms / 1000 * rate)))


def free_bytes(device: torch.device) -> int:
    """Memory of a device that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return 4 << 30


class _Waiting(NamedTuple, Generic[Item]):
    item: Item
    noisy: Tensor
    boost: float | Tensor
    keep: Tensor
    level: Tensor


class Window(Generic[Item]):
    """The frames of one stream (or of N that go in step) that wait, and what is remembered before them.

    Args:
        backend: which runs the network.
        lookahead: frames that may have to come before the first one goes out: each has seen at most so many after it,
            and at least a third of that, but for the last ones of a scene.
    """

    def __init__(self, backend: Backend, lookahead: int) -> None:
        self._backend = backend
        self._lookahead = lookahead
        self._tail = -(-lookahead // 3)
        self._waiting: list[_Waiting[Item]] = []
        self.state: State | None = None

    def push(
        self, item: Item, noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor
    ) -> Iterator[tuple[Item, Denoised]]:
        """Take the next frame; gives those that are finished, with their items.

        A clean frame is to be used before the next one is asked for.

        Args:
            item: whatever belongs to the frame.
            noisy, sigma, boost, keep: see :meth:`Backend.step`. All frames that wait are of one size.
        """
        if self.state is None:
            self.state = self._backend.initial_state(len(noisy), *noisy.shape[-2:])
        level, self.state = self._backend.measure(noisy, sigma, keep, self.state)
        self._waiting.append(_Waiting(item, noisy, boost, keep, level))
        if len(self._waiting) > self._lookahead:
            yield from self._release(len(self._waiting) - self._tail)

    def flush(self) -> Iterator[tuple[Item, Denoised]]:
        """The frames that still wait; what follows, if anything, is another video."""
        if self._waiting:
            yield from self._release(len(self._waiting))

    def _release(self, count: int) -> Iterator[tuple[Item, Denoised]]:
        """Look back from the last frame, then denoise the first ``count``."""
        futures: list[Future] = []
        scout = self._backend.initial_scout(len(self._waiting[0].noisy), *self._waiting[0].noisy.shape[-2:])
        follows = torch.zeros_like(self._waiting[0].keep)
        for i, frame in reversed(list(enumerate(self._waiting))):
            future, scout = self._backend.look(frame.noisy, frame.level, frame.boost, follows, scout)
            follows = frame.keep
            if i < count:
                futures.append(future)
        assert self.state is not None
        for _ in range(count):
            # Taken only once it is done: a frame for which there was no memory still waits.
            _, noisy, boost, keep, level = self._waiting[0]
            result = self._backend.smooth(noisy, level, boost, keep, self.state, futures.pop())
            self.state = result.state
            yield self._waiting.pop(0).item, result
