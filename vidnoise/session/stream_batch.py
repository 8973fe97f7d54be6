"""Several streams through one network, with one step for the frames of all of them.

A small network on small pictures leaves most of a GPU idle; the frames of several cameras together fill it. Each stream
keeps a session of its own (:class:`vidnoise.Denoiser`), with noise level, strength, cuts, zones, mask and grain. Only
the network's step is shared.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vidnoise.checked import named_fields, takes
from vidnoise.errors import DeviceError, UsageError
from vidnoise.frame import Frame
from vidnoise.model import DenoiseNetwork, State
from vidnoise.options import DeviceOptions
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.task import Task

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vidnoise.options import DenoiseKeywords, DeviceKeywords
    from vidnoise.weights import LoadedModel


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

Key = tuple[int, int, bool]
"""What the frames of one step have in common: padded height and width, and whether the noise level is known."""


@takes(DeviceOptions)
class StreamBatch:
    """Denoises several streams with one network, processing their frames together.

    Streams may begin, end, pause, reset and cut independently. Frames of different sizes, or with known and unknown
    noise levels, take separate steps, and so do streams with lookahead. The results equal those of one
    :class:`Denoiser` per stream, up to rounding. Not thread-safe.

    Args:
        model: See :class:`Denoiser`.
        options: Options of the device, which all streams share; see below.

    Raises:
        UnknownModelError, WeightsError, DeviceError, BackendError, UsageError: See :class:`Denoiser`.

    >>> import numpy as np, vidnoise
    >>> from vidnoise.pictures import PictureAdapter
    >>> batch = vidnoise.StreamBatch("fast")
    >>> day, night = batch.open(), batch.open(sigma=25)
    >>> gray = lambda level: PictureAdapter().frame(np.full((48, 64, 3), level, np.uint8))[0]
    >>> clean = batch.push({day: gray(200), night: gray(20)})
    >>> [(frame.height, frame.width) for frame in clean[night]]
    [(48, 64)]
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LoadedModel | DenoiseNetwork = "standard",
        **options: Unpack[DeviceKeywords],
    ) -> None:
        chosen = DeviceOptions.of("StreamBatch", options)
        self._pattern = Denoiser(model, **chosen.keywords(DeviceOptions))
        self.device, self.dtype = self._pattern.device, self._pattern.dtype
        self.network, self.backend = self._pattern.network, self._pattern.backend
        self.model_name = self._pattern.model_name
        self._precision = chosen.precision
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
            UsageError: A value is out of range, or an option is shared by all streams.
        """
        if shared := sorted(options.keys() & {"model", *named_fields(DeviceOptions)}):
            raise UsageError(f"{', '.join(shared)}: all streams of a batch share it; give it to StreamBatch", *shared)
        chosen: DenoiseKeywords = {
            **options, "device": self.device, "precision": self._precision, "backend": self.backend,
        }  # fmt: skip
        return Denoiser(self._pattern.model, **chosen)

    def close(self, session: Denoiser) -> list[Frame]:
        """End a stream: write its grain table, if it has one, and free its place.

        Returns:
            The frames that still wait (with ``lookahead`` only), on the batch's device.

        Raises:
            SinkOpenError: See :meth:`Denoiser.flush`.
        """
        try:
            return session.flush()
        finally:
            session.reset()
            self._joints = {k: j for k, j in self._joints.items() if any(map(j.holds, j.members))}

    def push(self, frames: Mapping[Denoiser, Frame]) -> dict[Denoiser, list[Frame]]:
        """Push the next frame of some of the streams, one each.

        Args:
            frames: Frames by session, of any formats and sizes. Frames on other devices are copied to the batch's
                device and back, waiting for each copy.

        Returns:
            The finished frames by session, in the same order: the frame that was pushed or, with ``lookahead``, those
            whose wait has ended.

        Raises:
            UsageError: A session does not belong to this batch.
            DeviceError: The device ran out of memory.
            FormatError: See :meth:`Denoiser.push`.
        """
        groups: dict[Key, list[tuple[Denoiser, Task]]] = {}
        clean: dict[Denoiser, list[Frame]] = {}
        for session, frame in frames.items():
            if session.backend is not self.backend:
                raise UsageError("a stream that was not opened by this StreamBatch cannot be pushed through it")
            frame = self._moved(frame, self.device)
            if session.latency_frames:
                clean[session] = session.push(frame)
                continue
            task = session.prepare(frame)
            height, width = task.padded.shape[-2:]
            groups.setdefault((height, width, session.sigma is None), []).append((session, task))
        for key, members in groups.items():
            try:
                clean.update({session: [frame] for session, frame in self._step(key, members).items()})
            except torch.OutOfMemoryError as ex:
                raise DeviceError(
                    f"{self.device} ran out of memory with {len(members)} streams of {key[1]}x{key[0]}; push fewer "
                    "at a time"
                ) from ex
        return {s: [self._moved(c, f.planes[0].device) for c in clean[s]] for s, f in frames.items()}

    @staticmethod
    def _moved(frame: Frame, device: torch.device) -> Frame:
        if not isinstance(frame, Frame) or all(plane.device == device for plane in frame.planes):
            return frame
        return replace(frame, planes=tuple(plane.to(device) for plane in frame.planes))

    def _step(self, key: Key, members: list[tuple[Denoiser, Task]]) -> dict[Denoiser, Frame]:
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
