"""What the clips of a batch show, drawn for all of them at once.

Whoever renders them, with OpenCV or on a GPU (:mod:`.pixels`), renders what is drawn here: so the distribution is the
same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vidnoise.training.augment import Augmenter, Deformation
from vidnoise.training.config import Augment
from vidnoise.training.motion import BLOB, BLOB_SCALE, paths


class Crops(NamedTuple):
    """Squares cut from videos at whole pixels; ``n`` of them."""

    video: np.ndarray
    """``(n,)``: which."""
    frames: np.ndarray
    """``(n, T)``: frames of the video, in any order."""
    top: np.ndarray
    left: np.ndarray
    """``(n,)``: first row and column. What is smaller than the square is mirrored at its lower and right edges."""


class Moves(NamedTuple):
    """Photos under a moving camera; ``n`` of them."""

    photo: np.ndarray
    """``(n,)``: which."""
    maps: np.ndarray
    """``(n, T, 2, 3)``: see :func:`.motion.paths`."""


class Objects(NamedTuple):
    """What passes in front of some of the photos: other photos, cut to a shape."""

    over: np.ndarray
    """``(m,)``: before which of the moving photos, ascending."""
    moves: Moves
    shapes: np.ndarray
    """``(m, BLOB, BLOB)`` float32: normal numbers. The object is where their smooth enlargement, to
    :data:`BLOB_SCALE` patches a side, is above a threshold."""
    shape_maps: np.ndarray
    """``(m, T, 2, 3)``: paths over the enlargement."""


class Plan(NamedTuple):
    """``n`` clips of ``frames`` frames of ``patch``² pixels."""

    frames: int
    patch: int
    real: np.ndarray
    """``(n,)`` bool: cut from a video; the others are moving photos. Both in order."""
    crops: Crops
    moves: Moves
    objects: Objects
    flips: np.ndarray
    """``(n, 3)`` bool: mirrored left to right, then upside down, then transposed."""
    deformations: list[Deformation | None]
    """Of each crop, which is then cut as large as it needs."""


def to_and_fro(index: np.ndarray, length: int | np.ndarray) -> np.ndarray:
    """Frames of a video that is played forwards and backwards, and so on, for any index from 0 up."""
    period = np.maximum(1, 2 * length - 2)
    index = index % period
    return np.where(index >= length, period - index, index)


def draw_crops(
    shapes: np.ndarray, video: np.ndarray, frames: int, patch: int | np.ndarray, rng: np.random.Generator
) -> Crops:
    """Where and when: anywhere, at single or double speed, forwards or backwards, or a single frame all along.

    Args:
        shapes: ``(videos, 3)``: frames, height and width of each.
        video: ``(n,)``: from which video to cut.
        frames: length of the clips. Videos shorter than that are played to and fro.
        patch: height and width; a number, or ``(n,)``.
        rng: draws all of it.
    """
    n = len(video)
    length, height, width = shapes[video].T
    stride = np.where((length >= 2 * frames) & (rng.random(n) < 0.15), 2, 1)
    span = (frames - 1) * stride + 1
    start = rng.integers(np.maximum(1, length - span + 1))
    index = start[:, None] + stride[:, None] * np.arange(frames)
    index = to_and_fro(index, length[:, None])
    backwards = rng.random(n) < 0.5
    index = np.where(backwards[:, None], index[:, ::-1], index)
    stands = rng.random(n) < 0.08  # a still camera on a still scene
    index = np.where(stands[:, None], rng.integers(length)[:, None], index)
    top, left = (rng.integers(np.maximum(1, size - patch + 1)) for size in (height, width))
    return Crops(video, index, top, left)


class Planner:
    """Draws plans.

    Args:
        videos: ``(videos, 3)``: frames, height and width of each video; there may be none.
        photos: ``(photos, 2)``: height and width of each photo; there may be none.
        synthetic: share of clips made from photos, where there are both.
        augment: how likely rotations and elastic deformations are.
        rng: draws everything.
    """

    def __init__(
        self, videos: np.ndarray, photos: np.ndarray, *, synthetic: float, augment: Augment, rng: np.random.Generator
    ) -> None:
        self.videos, self.photos, self.rng = videos.reshape(-1, 3), photos.reshape(-1, 2), rng
        self.augmenter = Augmenter(augment)
        self.synthetic = 1.0 if not len(videos) else synthetic if len(photos) else 0.0
        # Long, large clips hold more to see; photos are drawn evenly.
        sizes = self.videos.prod(1) ** 0.5
        self.weights = sizes / sizes.sum() if len(videos) else sizes

    def draw(self, n: int, frames: int, patch: int) -> Plan:
        """A plan of ``n`` clips."""
        rng = self.rng
        real = rng.random(n) >= self.synthetic
        n_real = int(real.sum())
        deformations = [self.augmenter.draw(patch, rng) for _ in range(n_real)]
        sizes = np.array([d.crop if d else patch for d in deformations], int)
        video = rng.choice(len(self.videos), n_real, p=self.weights) if n_real else np.zeros(0, int)
        crops = draw_crops(self.videos, video, frames, sizes, rng)
        moves = self._moves(n - n_real, frames, patch)
        over = np.flatnonzero(rng.random(n - n_real) < 0.5) if frames > 1 else np.zeros(0, int)
        shape_sizes = np.full((len(over), 2), BLOB_SCALE * patch)
        objects = Objects(
            over,
            self._moves(len(over), frames, patch),
            rng.normal(0, 1, (len(over), BLOB, BLOB)).astype(np.float32),
            paths(frames, patch, shape_sizes, rng),
        )
        return Plan(frames, patch, real, crops, moves, objects, rng.random((n, 3)) < 0.5, deformations)

    def _moves(self, n: int, frames: int, patch: int) -> Moves:
        photo = self.rng.integers(len(self.photos), size=n) if n else np.zeros(0, int)
        return Moves(photo, paths(frames, patch, self.photos[photo], self.rng))
