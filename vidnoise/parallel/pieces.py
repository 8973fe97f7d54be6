"""A stream of frames as pieces that can be denoised independently.

A piece is denoised by a session of its own. A piece that begins at a scene cut, where the stream's state is reset
anyway, is the same as without pieces. Elsewhere it begins with a lead-in: frames before it, which are denoised again
only to have the state back. With lookahead, the network runs on blocks of frames (:mod:`vidnoise.backends.window`): a
piece with its lead-in begins at the beginning of a block, and after its last frame come as many as that frame's block
looks at. So each frame is in the same block, with the same frames after it, as without pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import NamedTuple

import torch

from vidnoise.backends.window import block_of
from vidnoise.frame import Frame
from vidnoise.kernels.conversion import to_network
from vidnoise.model.network import MULTIPLE
from vidnoise.pictures import owned
from vidnoise.session.cuts import CutMemory, detect_cut, thumbnail
from vidnoise.session.fields import fields

LEAD_FRAMES = 64
"""Minimum length of a lead-in; for its effect, see docs/CLUSTER.md."""

MAX_FRAMES = 256
"""Length at which a piece without a cut ends: lead-ins then cost a quarter more work at most."""

MAX_BYTES = 1 << 30
"""Size of a piece at which it ends earlier, but never below :data:`LEAD_FRAMES`."""

MIN_FRAMES = 24
"""Length from which on a piece ends at a cut: shorter ones would spend their time on beginning."""


@dataclass
class Piece:
    """Consecutive frames, and those around them that their denoising needs."""

    first: int
    """Number of frames of the stream before those that are wanted."""
    first_seconds: Fraction | None
    """Time of the first frame of the stream."""
    lead: list[Frame]
    """Frames to denoise before those that are wanted."""
    wanted: list[Frame] = field(default_factory=list[Frame])
    after: list[Frame] = field(default_factory=list[Frame])
    """Frames after those that are wanted, for lookahead."""

    @property
    def frames(self) -> list[Frame]:
        """All frames, in order."""
        return [*self.lead, *self.wanted, *self.after]


def longest_piece(frame: Frame) -> int:
    """Return the length at which a piece of frames like ``frame`` ends."""
    n_bytes = sum(plane.numel() * plane.element_size() for plane in frame.planes)
    return max(LEAD_FRAMES, min(MAX_FRAMES, MAX_BYTES // max(1, n_bytes)))


class Cutter:
    """Cuts one stream into pieces.

    The frames of pieces own their planes, in main memory, and have :attr:`Frame.discontinuity` at scene cuts, so that
    sessions need not detect any: a session that begins in the middle of a scene would detect others.

    Args:
        lookahead: That of the sessions, in frames.
        detect_cuts: Whether sessions reset at scene cuts.
        longest: Length at which a piece ends; by default :func:`longest_piece`.
        lead: Minimum length of a lead-in.
        shortest: Length from which on a piece ends at a cut.
    """

    def __init__(
        self, lookahead: int, *, detect_cuts: bool = True, longest: int | None = None, lead: int = LEAD_FRAMES,
        shortest: int = MIN_FRAMES,
    ) -> None:  # fmt: skip
        self._block, self._after = block_of(lookahead)
        self._detect_cuts, self._longest, self._lead, self._shortest = detect_cuts, longest, lead, shortest
        self._memory: CutMemory | None = None
        self.n_cuts = 0
        """Number of scene cuts detected so far."""

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Piece]:
        """Yield the pieces, each as soon as it is complete. Every frame is wanted once, in order."""
        past: deque[_Placed] = deque(maxlen=self._lead + self._block)
        longest, place, first_seconds = 0, -1, None
        ending: Piece | None = None
        """A piece that waits for the frames after it."""
        piece: Piece | None = None
        for number, frame in enumerate(frames):
            if number == 0:
                first_seconds, longest = frame.seconds, self._longest or longest_piece(frame)
            elif frame.interlaced == past[-1].frame.interlaced:
                place += 1
            if number == 0 or frame.interlaced != past[-1].frame.interlaced:
                # A session finishes its block before it goes from whole frames to fields, and begins another.
                place, self._memory = 0, None
            now = _Placed(self._marked(frame), place)
            if ending is not None and now.frame.discontinuity:
                yield ending
                ending = None
            if piece is not None and now.frame.discontinuity and len(piece.wanted) >= self._shortest:
                yield piece
                piece = None
            if piece is not None and place % self._block == 0 and len(piece.wanted) >= longest:
                ending, piece = piece, None
            if piece is None:
                piece = Piece(number, first_seconds, self._lead_in([*past, now]))
            if ending is not None:
                if self._after:
                    ending.after.append(now.frame)
                if len(ending.after) == self._after:
                    yield ending
                    ending = None
            piece.wanted.append(now.frame)
            past.append(now)
        if ending is not None:
            yield ending
        if piece is not None:
            yield piece

    def _lead_in(self, frames: Sequence[_Placed]) -> list[Frame]:
        """Return those of ``frames`` that a session needs for the state before the last one of them."""
        last = len(frames) - 1
        start = last
        while start > 0 and last - start < self._lead and not frames[start].frame.discontinuity:
            start -= 1
        start = max(0, start - frames[start].place % self._block)
        return [each.frame for each in frames[start:last]]

    def _marked(self, frame: Frame) -> Frame:
        """Return the frame with planes of its own, marked if a scene begins with it."""
        frame = owned(frame.to("cpu"))
        if not self._detect_cuts:
            return frame
        if frame.discontinuity:
            self._memory = None
        with torch.inference_mode():
            whole = fields(frame)[0] if frame.interlaced else frame
            noisy = to_network(whole, MULTIPLE)[..., : whole.height, : whole.width]
            cut, self._memory = detect_cut(thumbnail(noisy), self._memory)
        self.n_cuts += bool(cut)
        return replace(frame, discontinuity=True) if cut else frame


class _Placed(NamedTuple):
    frame: Frame
    place: int
    """Number of frames before it since a session last began a block out of turn, as at the beginning."""
