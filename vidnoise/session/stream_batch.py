"""Several streams through one network: one step for the frames of all of them.

A small network on a small picture leaves most of a GPU idle; the frames of several cameras together fill it. Each
stream stays a session of its own (:class:`vidnoise.Denoiser`): noise level, strength, cuts, zones, mask, grain. Only
the network's step is taken together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
from torch import Tensor

from vidnoise.checked import named_fields, takes
from vidnoise.errors import DeviceError, UsageError
from vidnoise.model import State
from vidnoise.options import DeviceOptions
from vidnoise.pictures import Order, Picture
from vidnoise.session.assigned_once import AssignedOnce
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.task import Task

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from vidnoise.options import DenoiseKeywords, DeviceKeywords
    from vidnoise.weights import ModelLike


class _Joint(NamedTuple):
    """Sessions whose last step was taken together, and their states as rows of one."""

    members: tuple[Denoiser, ...]
    state: State
    rows: tuple[State, ...]

    def holds(self, session: Denoiser) -> bool:
        """Whether what the session remembers is its row here."""
        return any(m is session and m.state is row for m, row in zip(self.members, self.rows, strict=True))


SPARES = 2
"""States that no stream needs just now, kept because a new one may take long: a CUDA graph is recorded for each. So a
stream that pauses for a frame costs a copy and no more."""

NUMBERS = 16
"""Sets of levels and strengths that are kept on the device."""

Key = tuple[int, int, int]
"""What frames of one step have in common: padded height and width, and the number of dimensions of the noise level that
is known: 0 where none is."""


@takes(DeviceOptions)
class StreamBatch(AssignedOnce):
    """Denoises several streams with one network, their frames together.

    Streams may begin, end, pause, be reset and cut independently. Frames of different sizes, or with the noise level
    known and unknown, take separate steps, and so do streams that look ahead. What comes out is what a
    :class:`Denoiser` for each stream gives, up to the rounding of sums. Not thread-safe. As a context manager it is
    closed at the end of the ``with`` block, with all its streams.

    Args:
        model: see :class:`Denoiser`.
        order: of the channels of arrays and tensors: ``"rgb"``, or ``"bgr"`` as OpenCV has them.
        options: of the device, which all streams share; see below.

    Raises:
        UnknownModelError, WeightsError, DeviceError, BackendError, UsageError: see :class:`Denoiser`.

    >>> import numpy as np, vidnoise
    >>> with vidnoise.StreamBatch("fast") as batch:
    ...     day, night = batch.open(), batch.open(sigma=25)
    ...     clean = batch.push({session: np.full((48, 64, 3), 128, np.uint8) for session in (day, night)})
    >>> [picture.shape for picture in clean[night]]
    [(48, 64, 3)]
    """

    __slots__ = (
        "_is_closed", "_joints", "_numbers", "_order", "_pattern", "_precision", "_sessions", "_spares", "backend",
        "device", "dtype", "model", "model_name", "network",
    )  # fmt: skip

    def __init__(
        self,
        model: ModelLike = "standard",
        *,
        order: Order = "rgb",
        **options: Unpack[DeviceKeywords],
    ) -> None:
        chosen = DeviceOptions.of("StreamBatch", options)
        self._pattern = Denoiser(model, order=order, **chosen.keywords(DeviceOptions))
        self.device, self.dtype = self._pattern.device, self._pattern.dtype
        self.model, self.network, self.backend = self._pattern.model, self._pattern.network, self._pattern.backend
        self.model_name = self._pattern.model_name
        self._precision = chosen.precision
        self._order: Order = order
        self._sessions: dict[Denoiser, None] = {}
        self._is_closed = False
        self._joints: dict[Key, _Joint] = {}
        self._spares: deque[State] = deque(maxlen=SPARES)
        self._numbers: dict[tuple[float, ...], Tensor] = {}

    def open(self, **options: Unpack[DenoiseKeywords]) -> Denoiser:
        """A new stream.

        Args:
            options: of :class:`Denoiser`, but for those that all streams share
                (:class:`vidnoise.options.DeviceOptions`).

        Returns:
            Its session, by which :meth:`push` knows the stream. Its ``reset``, ``estimated_sigma`` and ``n_cuts`` are
            the stream's; its ``push`` is not to be used.

        Raises:
            UsageError: a value out of range, an option that all streams share, or the batch is closed.
        """
        self._check_open()
        if shared := sorted(options.keys() & {"model", "order", *named_fields(DeviceOptions)}):
            raise UsageError(f"{', '.join(shared)}: all streams of a batch share it; give it to StreamBatch", *shared)
        chosen: DenoiseKeywords = {
            **options, "device": self.device, "precision": self._precision, "backend": self.backend,
        }  # fmt: skip
        session = Denoiser(self.model, order=self._order, **chosen)
        self._sessions[session] = None
        return session

    def close(self, session: Denoiser) -> list[Any]:
        """End of a stream: writes what it has measured (a grain table), and frees its place.

        Returns:
            The pictures that still wait (with ``lookahead`` only), as the kinds that were pushed.

        Raises:
            SinkOpenError: see :meth:`Denoiser.flush`.
            UsageError: it is closed already, or not of this batch.
        """
        self._check_is_ours(session)
        try:
            return session.flush()
        finally:
            session.close()
            self._sessions.pop(session)
            self._joints = {k: j for k, j in self._joints.items() if any(map(j.holds, j.members))}

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *about: Any) -> None:
        for session in self._sessions:
            session.__exit__(*about)
        self._sessions.clear()
        self._joints.clear()
        self._spares.clear()
        self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError("this StreamBatch is closed; make another one")

    def _check_is_ours(self, session: Denoiser) -> None:
        self._check_open()
        if session not in self._sessions:
            raise UsageError("a stream that was not opened by this StreamBatch, or is closed, cannot be used with it")

    @overload
    def push(self, pictures: Mapping[Denoiser, Picture]) -> dict[Denoiser, list[Picture]]: ...

    @overload
    def push(self, pictures: Mapping[Denoiser, Any]) -> dict[Denoiser, list[Any]]: ...

    def push(self, pictures: Mapping[Denoiser, Any]) -> dict[Denoiser, list[Any]]:
        """Take the next picture of some of the streams, one each.

        Args:
            pictures: by session, of any kinds and sizes, see :meth:`Denoiser.push`. Those that are not on the batch's
                device are copied there, and the clean ones back; each copy is waited for.

        Returns:
            By session, in the same order, the pictures that are finished: the one that was pushed, or with
            ``lookahead`` those that it has set free.

        Raises:
            UsageError: a session that is not of this batch or closed, or the batch is closed.
            DeviceError: the device ran out of memory.
            FormatError: see :meth:`Denoiser.push`.
        """
        self._check_open()
        for session in pictures:
            self._check_is_ours(session)
        groups: dict[Key, list[tuple[Denoiser, Task]]] = {}
        clean: dict[Denoiser, list[Any]] = {}
        for session, picture in pictures.items():
            if session.latency_frames:
                clean[session] = session.push(picture)
                continue
            task = session.prepare(picture)
            height, width = task.padded.shape[-2:]
            kind = 0 if task.sigma is None else task.sigma.ndim
            groups.setdefault((height, width, kind), []).append((session, task))
        for key, members in groups.items():
            try:
                clean.update({session: [picture] for session, picture in self._step(key, members).items()})
            except torch.OutOfMemoryError as ex:
                raise DeviceError(
                    f"{self.device} ran out of memory with {len(members)} streams of {key[1]}x{key[0]}; push fewer "
                    "at a time"
                ) from ex
        return {session: clean[session] for session in pictures}

    def _step(self, key: Key, members: list[tuple[Denoiser, Task]]) -> dict[Denoiser, Any]:
        """One step of the network for streams of one kind."""
        sessions, tasks = zip(*members, strict=True)
        with torch.inference_mode():
            before = self._joints.pop(key, None)
            state = self._gather(key, sessions, before)
            continues = torch.cat([task.continues for task in tasks])
            known = [s.state is not None for s in sessions]
            if not all(known):  # a session that remembers nothing has a row that is left from another one
                continues = continues & torch.tensor(known, device=self.device)
            clean, level, state = self.backend.step(
                torch.cat([task.padded for task in tasks]),
                None if tasks[0].sigma is None else torch.cat([task.sigma for task in tasks]),
                self._sigma_scale([task.sigma_scale for task in tasks]),
                continues,
                state,
            )
            rows = tuple(_row(state, i) for i in range(len(sessions)))
        self._joints[key] = _Joint(sessions, state, rows)
        for session, row in zip(sessions, rows, strict=True):
            session.go_on_from(row)
        if before is not None and before.members != sessions:
            self._retire(before)
        return {s: s.finish(task, clean[i : i + 1], level[i]) for i, (s, task) in enumerate(members)}

    def _sigma_scale(self, scales: list[float | Tensor]) -> float | Tensor:
        """Combine the scales of all streams: one number, if it is the same for all."""
        numbers = {b for b in scales if not isinstance(b, Tensor)}
        if len(numbers) == 1 and not any(isinstance(b, Tensor) for b in scales):
            return numbers.pop()
        return torch.cat([b if isinstance(b, Tensor) else self._tensor([b, b])[None] for b in scales])

    def _tensor(self, values: list[Any]) -> Tensor:
        """Made anew only where they are others than before: numbers that go to a GPU are waited for."""
        key = tuple(values)
        if key not in self._numbers:
            if len(self._numbers) >= NUMBERS:
                self._numbers.clear()
            self._numbers[key] = torch.tensor(values, dtype=torch.float32, device=self.device)
        return self._numbers[key]

    def _gather(self, key: Key, sessions: tuple[Denoiser, ...], before: _Joint | None) -> State:
        """One state whose rows are those of ``sessions``: the one of the step before, if it was theirs."""
        if before and before.members == sessions and all(s.state is None or before.holds(s) for s in sessions):
            return before.state
        n, (height, width, _) = len(sessions), key
        spare = next((s for s in self._spares if s.fused.shape == (n, 3, height, width)), None)
        state = self.backend.initial_state(n, height, width) if spare is None else spare
        self._spares = deque((s for s in self._spares if s is not spare), SPARES)
        for i, session in enumerate(sessions):
            for target, source in zip(_row(state, i), session.state or (), strict=False):
                target.copy_(source)
        return state

    def _retire(self, joint: _Joint) -> None:
        """Make a state a spare one, once nothing remembers by it any more."""
        with torch.inference_mode():
            for session in joint.members:
                if joint.holds(session):
                    session.go_on_from(State(*(t.clone() for t in session.state or ())))
        self._spares.append(joint.state)


def _row(state: State, i: int) -> State:
    """The state of one stream, as views."""
    return State(*(t[i : i + 1] for t in state))
