"""Denoising interlaced video by field, as the two fields of a frame were taken at different times.

If the frame were denoised as one picture, the combing at moving edges would pass for detail or noise. Instead, the
lines of each field form a picture of half the height, each field has its own state, and the clean lines return to their
places: the output is interlaced like the input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from vidnoise.frame import Frame
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import Model, ModelLike


class FieldDenoiser:
    """Denoises a stream whose interlaced frames (:attr:`Frame.interlaced`) are treated by field, and others whole.

    Used like a :class:`Denoiser`, and not thread-safe either.

    Args:
        first: Denoises whole frames and top fields.
        make: Makes a denoiser for the bottom fields from the model of ``first``, with the same ``lookahead``; called at
            the first interlaced frame.
    """

    def __init__(self, first: Denoiser, make: Callable[[Model], Denoiser]) -> None:
        self._first = first
        self._make = make
        self._second: Denoiser | None = None
        self._waiting: deque[Frame] = deque()
        """Interlaced frames whose fields are being denoised."""
        self.device, self.dtype, self.model_name = first.device, first.dtype, first.model_name

    @property
    def estimated_sigma(self) -> float | None:
        """See :attr:`Denoiser.estimated_sigma`; for interlaced video, that of the top field."""
        return self._first.estimated_sigma

    @property
    def backend_name(self) -> str:
        """See :attr:`Denoiser.backend_name`."""
        return self._first.backend_name

    @property
    def n_cuts(self) -> int:
        """See :attr:`Denoiser.n_cuts`; both fields have the same cuts."""
        return self._first.n_cuts

    def reset(self) -> None:
        """Forget the past."""
        self._first.reset()
        if self._second is not None:
            self._second.reset()

    def push(self, frame: Frame) -> list[Frame]:
        """Push the next frame; returns the frames that are finished. Raises the errors of :meth:`Denoiser.push`."""
        if not frame.interlaced:
            return [*self._drain(), *self._first.push(frame)]
        done = [] if self._waiting else self._first.drain()
        if self._second is None:
            self._second = self._make(self._first.model)
        top, bottom = fields(frame)
        self._waiting.append(frame)
        return [*done, *self._woven(self._first.push(top), self._second.push(bottom))]

    def _woven(self, tops: list[Frame], bottoms: list[Frame]) -> list[Frame]:
        return [weave(self._waiting.popleft(), t, b) for t, b in zip(tops, bottoms, strict=True)]

    def _drain(self) -> list[Frame]:
        """Finish and return the waiting interlaced frames."""
        if self._second is None or not self._waiting:
            return []
        return self._woven(self._first.drain(), self._second.drain())

    def close(self) -> None:
        """See :meth:`Denoiser.close`."""
        self._first.close()
        if self._second is not None:
            self._second.close()

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Denoise a stream of frames lazily."""
        try:
            for frame in frames:
                yield from self.push(frame)
            yield from self._drain()
            yield from self._first.flush()  # also writes the grain table of both
        finally:
            self.close()


class FieldSessions:
    """Makes the sessions of streams that follow each other; they share a model and a backend.

    Args:
        make: Makes a :class:`Denoiser` from a model and options.
        model: The model, or its name.
    """

    def __init__(self, make: Callable[..., Denoiser], model: ModelLike) -> None:
        self._make, self._model = make, model
        self._shared: dict[str, Any] = {}
        """Options of all sessions but the first."""

    def begin(self, *, grain_seed: int, **options: Any) -> tuple[Denoiser, FieldDenoiser]:
        """Return the session of whole frames and top fields, and the one of both fields.

        Args:
            grain_seed: Seed of the grain; the bottom fields get theirs from the next one.
            options: Further options of both.
        """
        first = self._make(self._model, grain_seed=grain_seed, **{**options, **self._shared})
        self._model, self._shared = first.model, {"backend": first.backend, "max_memory": None}

        def second(model: Model) -> Denoiser:
            return self._make(model, grain_seed=grain_seed + 1, **{**options, **self._shared})

        return first, FieldDenoiser(first, second)


def fields(frame: Frame) -> tuple[Frame, Frame]:
    """Split a frame into its even and odd lines, as pictures of half its height (rounded up, for both).

    Planes are views where the number of lines is even; a field that is one line short repeats its last line.
    """
    height = -(-frame.height // 2)
    parts = []
    for parity in (0, 1):
        planes = []
        for i, plane in enumerate(frame.planes):
            lines = plane[parity::2]
            missing = frame.format.plane_shape(i, height, frame.width)[0] - lines.shape[0]
            if missing > 0:
                last = (lines if lines.shape[0] else plane)[-1:]
                lines = torch.cat([lines, *[last] * missing])
            planes.append(lines)
        parts.append(replace(frame, planes=tuple(planes)))
    return parts[0], parts[1]


def weave(frame: Frame, top: Frame, bottom: Frame) -> Frame:
    """Interleave the lines of ``top`` and ``bottom``, the inverse of :func:`fields`."""
    planes = []
    for plane, *parts in zip(frame.planes, top.planes, bottom.planes, strict=True):
        woven = parts[0].new_empty(plane.shape)
        for parity, lines in enumerate(parts):
            place = woven[parity::2]
            place.copy_(lines[: place.shape[0]])
        planes.append(woven)
    return replace(top, planes=tuple(planes))
