"""Looking both ways: frames wait for those that follow them, which are gone through backwards first.

A scout begins at the last frame that has come and goes back to the first that waits; at each it leaves what the frames
after it say. Then the frames are denoised from the first to the last, each by its past and by what the scout has left.
The scout's way back is repeated for every block of frames, not for every frame, so that it costs little: with N frames
of lookahead, the last third of those that wait are only looked at, and come out with the next block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from .backends.protocol import Backend
from .model import Denoised, Future, State

Item = TypeVar("Item")

MAX_LOOKAHEAD = 32
"""Frames: beyond them nothing is gained, and each takes memory for a picture."""


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
