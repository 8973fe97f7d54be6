"""What a worker does, wherever it runs: denoise pieces, one after the other."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch

from vidnoise._version import __version__
from vidnoise.backends.device import resolve_device
from vidnoise.errors import BackendError
from vidnoise.frame import Frame
from vidnoise.parallel.pieces import Piece
from vidnoise.parallel.process import Receive, Reply
from vidnoise.pipeline.device_transfer import make_device_transfer
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldSessions
from vidnoise.weights import Model

_SEEDS = 1 << 62
"""Number of seeds of the grain of pieces."""


@dataclass(frozen=True)
class Setup:
    """What a worker needs before its first piece."""

    model: Model
    make_denoiser: Callable[..., Denoiser]
    """Makes a session from a model, and from options of :class:`Denoiser` to change."""
    grain_seed: int
    version: str = __version__
    """Version of vidnoise, which all workers must have."""


class Outline(NamedTuple):
    """A piece without its frames."""

    first: int
    first_seconds: Fraction | None
    n_lead: int
    n_wanted: int
    n_frames: int

    @classmethod
    def of(cls, piece: Piece) -> Outline:
        """Return the outline of a piece."""
        n_lead, n_wanted = len(piece.lead), len(piece.wanted)
        return cls(piece.first, piece.first_seconds, n_lead, n_wanted, n_lead + n_wanted + len(piece.after))


class Clean(NamedTuple):
    """A denoised frame."""

    planes: tuple[np.ndarray, ...]
    sigma: float | None
    """Noise level, see :attr:`Denoiser.estimated_sigma`."""
    model: str
    """Name of the weights: in int8, not those that were asked for."""
    backend: str
    precision: str


class Worker:
    """Denoises pieces in this process.

    Args:
        setup: What the process that has the video sends once.
        device: Name of the device.
        threads: Threads of the network.

    Raises:
        DeviceError: The device does not exist here.
        BackendError: Another version of vidnoise is installed here.
    """

    def __init__(self, setup: Setup, device: str, threads: int) -> None:
        if setup.version != __version__:
            raise BackendError(f"a worker has vidnoise {__version__}, and the run {setup.version}: install the same")
        torch.set_num_threads(threads)
        self._device = resolve_device(device)
        self._grain_seed = setup.grain_seed
        self._sessions = FieldSessions(setup.make_denoiser, setup.model)

    def denoise(self, outline: Outline, frames: Iterable[Frame]) -> Iterator[Clean]:
        """Yield the frames of a piece that are wanted.

        Args:
            outline: The piece.
            frames: All of its frames, in main memory.
        """
        first, session = self._sessions.begin(
            device=self._device, detect_cuts=False, first_time=outline.first_seconds,
            grain_seed=(self._grain_seed + 2 * outline.first) % _SEEDS,
        )  # fmt: skip
        transfer = make_device_transfer(self._device)
        precision = str(first.dtype).removeprefix("torch.")
        with contextlib.ExitStack() as stack:
            uploaded = stack.enter_context(contextlib.closing(transfer.upload(frames)))
            clean: Any = session(uploaded)
            stack.callback(clean.close)
            wanted = itertools.islice(clean, outline.n_lead, outline.n_lead + outline.n_wanted)
            for frame in stack.enter_context(contextlib.closing(transfer.download(wanted))):
                planes = tuple(plane.numpy() for plane in frame.planes)
                yield Clean(planes, first.estimated_sigma, first.model_name, first.backend_name, precision)


def packed(frame: Frame) -> Frame:
    """Return a frame as it is sent: the picture alone, as arrays."""
    planes: Any = tuple(plane.numpy() for plane in frame.planes)
    return replace(frame, planes=planes, packets=(), side_data=None)


def unpacked(frame: Frame) -> Frame:
    """Return a frame that was :func:`packed`."""
    return replace(frame, planes=tuple(map(as_plane, frame.planes)))


def as_plane(array: Any) -> torch.Tensor:
    """Return an array that was sent, as a tensor; one in shared memory is copied."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def work(receive: Receive, reply: Reply) -> None:
    """Denoise pieces in a :class:`vidnoise.parallel.process.Process`, until there are no more.

    The first message is what :class:`Worker` takes; then, for each piece, its :class:`Outline` and its frames. The
    answers are ``clean`` with a :class:`Clean` for each frame that is wanted.
    """
    worker = Worker(*receive())
    while True:
        outline = receive()
        frames = _Frames(receive, outline.n_frames)
        for clean in worker.denoise(outline, frames):
            reply("clean", clean)
        for _ in frames:  # whatever was not needed
            pass


class _Frames:
    """The next frames that are received."""

    def __init__(self, receive: Receive, count: int) -> None:
        self._receive = receive
        self._left = count

    def __iter__(self) -> Iterator[Frame]:
        while self._left:
            self._left -= 1
            yield unpacked(self._receive())
