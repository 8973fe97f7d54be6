"""The session of a stream that several workers denoise in pieces."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from vidnoise.frame import Frame
from vidnoise.parallel.pieces import Cutter, longest_piece
from vidnoise.parallel.team import Team, Work
from vidnoise.parallel.worker import as_plane

logger = logging.getLogger(__name__)

_WAKE_SECONDS = 0.25
"""Interval at which a wait for a worker checks whether to stop."""


class ParallelDenoiser:
    """Denoises one stream, as :class:`vidnoise.session.fields.FieldDenoiser` does, by the workers of a team.

    Frames come back in order, each as it went in but for its samples. At most a piece for each worker and one more
    are in memory.

    Args:
        open_team: Begins the workers, when the first frame is asked for; they are ended with the stream.
        cutter: Cuts the stream into pieces.
        model_name: Name of the model, for statistics, until a worker says which weights it has.
        should_stop: Called regularly; when it returns True, the stream ends with what is finished without a gap.
    """

    backend_name = "eager"
    """Name of the backend that denoised the last frame."""
    dtype = "auto"
    """Precision of the last frame."""
    estimated_sigma: float | None = None
    """See :attr:`vidnoise.Denoiser.estimated_sigma`."""

    def __init__(
        self,
        open_team: Callable[[], Team],
        cutter: Cutter,
        *,
        model_name: str,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._open_team, self._cutter, self.model_name = open_team, cutter, model_name
        self._should_stop = should_stop or bool
        self.device = ""

    @property
    def n_cuts(self) -> int:
        """Number of scene cuts detected so far."""
        return self._cutter.n_cuts

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Denoise the frames of a stream; to be called once."""
        frames = iter(frames)
        waiting: deque[_Waiting] = deque()
        n_held = n_most = 0

        def must_wait() -> bool:
            return n_held > n_most and not self._should_stop()

        with contextlib.closing(self._open_team()) as team:
            self.device = team.device
            logger.info("%d workers on %s, with %d threads each", team.size, team.device, team.threads)
            for piece in self._cutter(frames):
                waiting.append(_Waiting(team.submit(piece), iter(piece.wanted)))
                n_held += len(piece.wanted)
                n_most = team.size * longest_piece(piece.wanted[0])
                for frame in self._finished(waiting, must_wait):
                    n_held -= 1
                    yield frame
                if self._should_stop():
                    next(frames, None)  # where the run notices that it is to end
                    yield from self._finished(waiting, lambda: False)
                    return
            yield from self._finished(waiting, lambda: True)

    def _finished(self, waiting: deque[_Waiting], must_wait: Callable[[], bool]) -> Iterator[Frame]:
        """Yield the finished frames, in order; waits for the next one as long as ``must_wait`` returns True."""
        while waiting:
            work, wanted = waiting[0]
            frame = next(wanted, None)
            if frame is None:
                waiting.popleft()
                continue
            while (clean := work.next(_WAKE_SECONDS if must_wait() else 0)) is None:
                if not must_wait():
                    waiting[0] = _Waiting(work, itertools.chain([frame], wanted))
                    return
            self.estimated_sigma, self.model_name = clean.sigma, clean.model
            self.backend_name, self.dtype = clean.backend, clean.precision
            yield replace(frame, planes=tuple(map(as_plane, clean.planes)))


class _Waiting(NamedTuple):
    work: Work
    wanted: Iterator[Frame]
    """The frames that have not come back."""
