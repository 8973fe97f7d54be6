"""Random plans of the clips of a batch, drawn for all of them at once.

The plans are independent of the renderer (:mod:`.pixels`), so the distribution of clips is the same with OpenCV and on
a GPU.
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
    """``(n,)``: index of the video."""
    frames: np.ndarray
    """``(n, T)``: frames of the video, in any order."""
    top: np.ndarray
    left: np.ndarray
    """``(n,)``: first row and column. Videos smaller than the square are mirrored at their lower and right edges."""
    row_step: np.ndarray
    """``(n,)``: 2 takes every second row, as the field of an interlaced video has them; otherwise 1."""


class Moves(NamedTuple):
    """Photos under a moving camera; ``n`` of them."""

    photo: np.ndarray
    """``(n,)``: index of the photo."""
    maps: np.ndarray
    """``(n, T, 2, 3)``: see :func:`.motion.paths`."""


class Objects(NamedTuple):
    """Objects that pass in front of some of the photos: other photos, cut to a shape; ``m`` of them."""

    over: np.ndarray
    """``(m,)``: index of the moving photo in front of which the object passes, ascending."""
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
    """``(n,)`` bool: true for clips cut from a video, false for moving photos; ``crops`` and ``moves`` are in order."""
    crops: Crops
    moves: Moves
    objects: Objects
    flips: np.ndarray
    """``(n, 3)`` bool: mirror left to right, then upside down, then transpose."""
    deformations: list[Deformation | None]
    """Deformation of each crop, which is cut as large as that requires."""


def to_and_fro(index: np.ndarray, length: int | np.ndarray) -> np.ndarray:
    """Map indices from 0 up to frames of a video that is played forwards and backwards alternately."""
    period = np.maximum(1, 2 * length - 2)
    index = index % period
    return np.where(index >= length, period - index, index)


def draw_crops(
    shapes: np.ndarray,
    video: np.ndarray,
    frames: int,
    patch: int | np.ndarray,
    rng: np.random.Generator,
    row_step: np.ndarray | None = None,
) -> Crops:
    """Draw crops at any place and time, at single or double speed, forwards, backwards or standing still.

    Args:
        shapes: ``(videos, 3)``: frames, height and width of each.
        video: ``(n,)``: index of the video to cut from.
        frames: Length of the clips. Shorter videos are played to and fro.
        patch: Height and width; a number, or ``(n,)``.
        rng: Random generator of all draws.
        row_step: ``(n,)``: see :attr:`Crops.row_step`; by default 1.
    """
    n = len(video)
    row_step = np.ones(n, int) if row_step is None else row_step
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
    top, left = (
        rng.integers(np.maximum(1, size - extent + 1)) for size, extent in ((height, patch * row_step), (width, patch))
    )
    return Crops(video, index, top, left, row_step)


class Planner:
    """Draws plans.

    Args:
        videos: ``(videos, 3)``: frames, height and width of each video; may be empty.
        photos: ``(photos, 2)``: height and width of each photo; may be empty.
        synthetic: Share of clips made from photos, if there are both.
        augment: Has the probabilities of rotations and elastic deformations.
        rng: Random generator of all draws.
    """

    def __init__(
        self, videos: np.ndarray, photos: np.ndarray, *, synthetic: float, augment: Augment, rng: np.random.Generator
    ) -> None:
        self.videos, self.photos, self.rng = videos.reshape(-1, 3), photos.reshape(-1, 2), rng
        self.augmenter = Augmenter(augment)
        self.synthetic = 1.0 if not len(videos) else synthetic if len(photos) else 0.0
        # Long and large clips have more content, so they are drawn more often; photos are drawn uniformly.
        sizes = self.videos.prod(1) ** 0.5
        self.weights = sizes / sizes.sum() if len(videos) else sizes

    def draw(self, n: int, frames: int, patch: int) -> Plan:
        """Draw a plan of ``n`` clips."""
        rng = self.rng
        real = rng.random(n) >= self.synthetic
        n_real = int(real.sum())
        deformations = [self.augmenter.draw(patch, rng) for _ in range(n_real)]
        is_field = self.augmenter.draw_fields(n_real, rng)
        sizes = np.array([d.crop if d else patch for d in deformations], int)
        video = rng.choice(len(self.videos), n_real, p=self.weights) if n_real else np.zeros(0, int)
        crops = draw_crops(self.videos, video, frames, sizes, rng, 1 + is_field)
        moves = self._moves(n - n_real, frames, patch)
        over = np.flatnonzero(rng.random(n - n_real) < 0.5) if frames > 1 else np.zeros(0, int)
        shape_sizes = np.full((len(over), 2), BLOB_SCALE * patch)
        objects = Objects(
            over,
            self._moves(len(over), frames, patch),
            rng.normal(0, 1, (len(over), BLOB, BLOB)).astype(np.float32),
            paths(frames, patch, shape_sizes, rng),
        )
        flips = rng.random((n, 3)) < 0.5
        flips[np.flatnonzero(real)[is_field], 2] = False  # the rows of a field stay rows
        return Plan(frames, patch, real, crops, moves, objects, flips, deformations)

    def _moves(self, n: int, frames: int, patch: int) -> Moves:
        photo = self.rng.integers(len(self.photos), size=n) if n else np.zeros(0, int)
        return Moves(photo, paths(frames, patch, self.photos[photo], self.rng))
