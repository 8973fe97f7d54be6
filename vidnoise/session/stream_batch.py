"""Several streams through one network, with one step for the frames of all of them.

A small network on small pictures leaves most of a GPU idle; the frames of several cameras together fill it. Each stream
keeps a session of its own (:class:`vidnoise.Denoiser`), with noise level, strength, cuts, zones, mask and grain. Only
the network's step is shared.
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

    from vidnoise.option_keywords import DenoiseKeywords, DeviceKeywords
    from vidnoise.weights import ModelLike


class _Joint(NamedTuple):
    """Sessions whose last step was taken together, and their states as rows of one state."""

    members: tuple[Denoiser, ...]
    state: State
    rows: tuple[State, ...]

    def holds(self, session: Denoiser) -> bool:
        """Whether the session's state is still its row here."""
        return any(m is session and m.state is row for m, row in zip(self.members, self.rows, strict=True))


SPARES = 2
"""Maximum number of unused states to keep, since new ones may be slow: a CUDA graph is recorded for each. With them, a
stream that pauses for a frame costs only a copy.
"""

NUMBERS = 16
"""Maximum number of sets of levels and strengths to keep on the device."""

Key = tuple[int, int, int]
"""Properties that the frames of one step share: padded height and width, and the number of dimensions of the known
noise level, 0 if it is unknown."""


@takes(DeviceOptions)
class StreamBatch(AssignedOnce):
    """Denoises several streams with one network, processing their frames together.

    Streams may begin, end, pause, reset and cut independently. Frames of different sizes, or with known and unknown
    noise levels, take separate steps, and so do streams with lookahead. The results equal those of one
    :class:`Denoiser` per stream, up to rounding. Not thread-safe. As a context manager, it is closed at the end of
    the ``with`` block, with all its streams.

    Args:
        model: See :class:`Denoiser`.
        order: Order of the channels of arrays and tensors, ``"rgb"``, or ``"bgr"`` as in OpenCV.
        options: Options of the device, which all streams share; see below.

    Raises:
        UnknownModelError, WeightsError, DeviceError, BackendError, UsageError: See :class:`Denoiser`.

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
        """Open a new stream.

        Args:
            options: Options of :class:`Denoiser`, except those that all streams share
                (:class:`vidnoise.options.DeviceOptions`).

        Returns:
            The stream's session, which identifies the stream in :meth:`push`. Its ``reset``, ``estimated_sigma`` and
            ``n_cuts`` may be used, but not its ``push``.

        Raises:
            UsageError: A value is out of range, an option is shared by all streams, or the batch is closed.
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
        """End a stream: write its grain table, if it has one, and free its place.

        Returns:
            The pictures that still wait (with ``lookahead`` only), of the kinds that were pushed.

        Raises:
            SinkOpenError: See :meth:`Denoiser.flush`.
            UsageError: The stream is closed already, or does not belong to this batch.
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
        """Push the next picture of some of the streams, one each.

        Args:
            pictures: Pictures by session, of any kinds and sizes, see :meth:`Denoiser.push`. Those on other devices are
                copied to the batch's device and back, waiting for each copy.

        Returns:
            The finished pictures by session, in the same order: the picture that was pushed or, with ``lookahead``,
            those whose wait has ended.

        Raises:
            UsageError: A session does not belong to this batch, or is closed, or the batch is closed.
            DeviceError: The device ran out of memory.
            FormatError: See :meth:`Denoiser.push`.
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
        """Take one step of the network for streams of one kind."""
        sessions, tasks = zip(*members, strict=True)
        with torch.inference_mode():
            before = self._joints.pop(key, None)
            state = self._gather(key, sessions, before)
            continues = torch.cat([task.continues for task in tasks])
            known = [s.state is not None for s in sessions]
            if not all(known):  # a session without a state has a row left over from another one
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
        """Combine the scales of all streams into one number if they are equal, and a tensor otherwise."""
        numbers = {b for b in scales if not isinstance(b, Tensor)}
        if len(numbers) == 1 and not any(isinstance(b, Tensor) for b in scales):
            return numbers.pop()
        return torch.cat([b if isinstance(b, Tensor) else self._tensor([b, b])[None] for b in scales])

    def _tensor(self, values: list[Any]) -> Tensor:
        """Return ``values`` on the device, reusing earlier tensors: copying numbers to a GPU waits for it."""
        key = tuple(values)
        if key not in self._numbers:
            if len(self._numbers) >= NUMBERS:
                self._numbers.clear()
            self._numbers[key] = torch.tensor(values, dtype=torch.float32, device=self.device)
        return self._numbers[key]

    def _gather(self, key: Key, sessions: tuple[Denoiser, ...], before: _Joint | None) -> State:
        """Return a state whose rows are those of ``sessions``: that of the previous step, if it was theirs."""
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
        """Make a state a spare one, after copying the rows that are still in use."""
        with torch.inference_mode():
            for session in joint.members:
                if joint.holds(session):
                    session.go_on_from(State(*(t.clone() for t in session.state or ())))
        self._spares.append(joint.state)


def _row(state: State, i: int) -> State:
    """Return views of the state of one stream."""
    return State(*(t[i : i + 1] for t in state))
