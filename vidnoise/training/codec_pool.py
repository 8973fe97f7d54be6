"""Noise as codecs leave it: clips encoded ahead of time, since encoding on the fly would starve training.

What an encoder makes of noise (blotches, blocks, noise that stays for a while and then jumps) follows from no formula,
so these clips are really encoded: camera noise of many kinds, or none, then one of many encoders (:mod:`.transcode`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidnoise.color import to_rgb
from vidnoise.color.colorimetry import LUMA_WEIGHTS
from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.evaluation.clips import read_clip
from vidnoise.frame import Frame
from vidnoise.training.config import ENCODED, Pool, TrainConfig
from vidnoise.training.data import ClipPack, ClipSampler, Folders
from vidnoise.training.noise import NOISES
from vidnoise.training.pixels import FilePixels, Pixels
from vidnoise.training.plan import Crops, to_and_fro

RECIPE = 3
"""To be raised by whoever changes what a pool is made of, so that old pools are not taken for new ones."""

BASES = {
    "planes": 0.38, "sensor": 0.24, "gaussian": 0.08, "correlated": 0.07, "luma": 0.09, "banding": 0.02, "none": 0.12,
}  # fmt: skip
"""What the camera adds before the encoder sees the picture; with nothing, only the encoder's own loss is repaired."""

LEAD = 8
"""Up to so many frames before a clip's first are encoded and thrown away: most frames follow others."""

LOST = 6 / 255
"""Clips whose gray, averaged over squares of 8 pixels, is further off than this are drawn anew: about one in fourteen.

Too few bits for strong noise leave smears in which no denoiser finds the picture; they would only teach it to blur.
"""

logger = logging.getLogger(__name__)


ENCODED_FILE = "encoded.mkv"
"""Beside the folder of training data: a pool that came with it, written by :mod:`.pack`. What is in it says a file of
the same name, ``.json``."""


class Encoded(NamedTuple):
    """One clip of a pool, ``(T, H, W, 3)`` uint8 each."""

    noisy: np.ndarray
    """As it was decoded."""
    clean: np.ndarray
    """Without noise, but stored alike: in 8 bits and with chroma at its size, as what that loses is in no video."""
    about: dict[str, Any]
    """Which noise and which encoding."""


def is_lost(noisy: np.ndarray, clean: np.ndarray) -> bool:
    """Whether an encoder has left nothing of a clip ``(T, H, W, 3)`` that could be brought back."""
    length, height, width, _ = clean.shape
    rows, columns = height // 8, width // 8
    error = (noisy / 255 - clean / 255).mean(-1)[:, : 8 * rows, : 8 * columns]
    return bool(np.square(error.reshape(length, rows, 8, columns, 8).mean((2, 4))).mean() ** 0.5 > LOST)


def encoded(clip: Tensor, rng: np.random.Generator, generator: torch.Generator) -> Encoded:
    """A clean clip ``(T, 3, H, W)`` in [0, 1] under noise and an encoding of random kinds; needs PyAV."""
    from vidnoise.training.transcode import as_stored, draw_encoding, transcode

    name = str(rng.choice(list(BASES), p=list(BASES.values())))
    encoding = draw_encoding(rng, clip.shape[2] * clip.shape[3])
    noisy = NOISES[name](clip[None], generator)[0].clamp(0, 1)

    def codes(frames: list[Frame]) -> np.ndarray:
        rgb = torch.cat([to_rgb(frame) for frame in frames]).clamp(0, 1)
        return (rgb * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    decoded = transcode(as_stored(noisy, encoding), encoding)
    return Encoded(codes(decoded), codes(as_stored(clip, encoding)), {"noise": name, **asdict(encoding)})


def encoded_clips(pack: ClipPack, settings: Pool, seed: int = 0) -> Iterator[Encoded]:
    """Clips as a pool has them, for ever; needs PyAV."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    sampler = ClipSampler(pack, FilePixels(pack), synthetic=0.35, rng=rng)
    last = slice(-settings.frames, None)
    while True:
        (clip,) = sampler.sample(1, settings.frames + int(rng.integers(LEAD + 1)), settings.size)
        noisy, clean, about = encoded(clip, rng, generator)
        if not is_lost(noisy[last], clean[last]):
            yield Encoded(noisy[last], clean[last], about)


class CodecPool:
    """Encoded clips in a memory-mapped file beside the decoded training data.

    Args:
        pack: the clean clips.
        cache: where the pool is kept; named by what it is made of, so a change makes it anew. Without PyAV, any pool
            that lies there is taken.
        settings: how many clips, of which size.
        brought: a pool that came with the data, if there is one: taken whatever the settings.

    Attributes:
        pairs: ``(clips, 2, T, H, W, 3)`` uint8 RGB: what was decoded, and what it should have been.
        about: for each clip, which noise and which encoding.

    Raises:
        UsageError: there is no pool, and no PyAV to make one with.
    """

    def __init__(self, pack: ClipPack, cache: Path, settings: Pool, *, brought: Path | None = None) -> None:
        recipe = json.dumps([pack.name, RECIPE, asdict(settings)])
        if brought and brought.is_file():
            recipe = f"{brought.stat().st_size} {brought.with_suffix('.json').read_text()}"
        stem = cache / f"pool-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        if not stem.with_suffix(".json").is_file():
            if brought and brought.is_file():
                self._unpack(brought, stem)
            else:
                stem = self._build(pack, stem, settings)
        index = json.loads(stem.with_suffix(".json").read_text())
        self.about: list[dict[str, Any]] = index["clips"]
        self.pairs: np.ndarray = np.memmap(stem.with_suffix(".raw"), np.uint8, "r", shape=tuple(index["shape"]))

    @staticmethod
    def _unpack(brought: Path, stem: Path) -> None:
        index = brought.with_suffix(".json").read_text()
        frames, shape = read_clip(brought), json.loads(index)["shape"]
        if list(frames.shape) != [math.prod(shape[:3]), *shape[3:]]:
            raise SourceOpenError(f"{brought} is not what {brought.stem}.json says", str(brought))
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".raw").write_bytes(frames.tobytes())
        stem.with_suffix(".json").write_text(index)  # last: its presence says the rest is there

    @staticmethod
    def _build(pack: ClipPack, stem: Path, settings: Pool) -> Path:
        """Make a pool, or find another one; returns its path without suffix."""
        try:
            from vidnoise.training.transcode import transcode  # noqa: F401
        except ImportError as ex:
            others = sorted(stem.parent.glob("pool-*.json"), key=lambda path: path.stat().st_mtime)
            if not others:
                raise UsageError(
                    f"noise type encoded needs PyAV to make its clips with (pip install av), or a pool in {stem.parent}"
                ) from ex
            logger.info("no PyAV to make %s with: taking %s", stem.name, others[-1].stem)
            return others[-1].with_suffix("")
        logger.info("encoding %d clips to %s.raw (once)", settings.clips, stem)
        stem.parent.mkdir(parents=True, exist_ok=True)
        part = stem.with_suffix(f".{os.getpid()}.part")
        begun, about = time.monotonic(), []
        try:
            with part.open("wb") as out:
                for clip in islice(encoded_clips(pack, settings), settings.clips):
                    out.write(clip.noisy.tobytes())
                    out.write(clip.clean.tobytes())
                    about.append(clip.about)
                    if len(about) % 100 == 0:
                        logger.info("%d clips in %.0f s", len(about), time.monotonic() - begun)
            os.replace(part, stem.with_suffix(".raw"))
        finally:
            part.unlink(missing_ok=True)
        shape = [settings.clips, 2, settings.frames, settings.size, settings.size, 3]
        index = stem.with_suffix(f".{os.getpid()}.part")
        index.write_text(json.dumps({"shape": shape, "clips": about}))
        os.replace(index, stem.with_suffix(".json"))  # last: its presence says the rest is there
        return stem

    @property
    def data(self) -> np.ndarray:
        """All of it as one row of bytes; this and what follows is what :mod:`.pixels` wants of a pack."""
        return self.pairs.reshape(-1)

    @property
    def videos(self) -> list[np.ndarray]:
        """What was decoded and what it should have been, by turns."""
        return list(self.pairs.reshape(-1, *self.pairs.shape[2:]))

    @property
    def video_places(self) -> list[tuple[int, int, int]]:
        clips, _, frames, height, width, _ = self.pairs.shape
        return [(i * frames * height * width, height, width) for i in range(2 * clips)]

    photos: tuple[np.ndarray, ...] = ()
    photo_places: tuple[tuple[int, int, int], ...] = ()


def open_pool(pack: ClipPack, folders: Folders, cache: Path, config: TrainConfig) -> CodecPool | None:
    """The pool of a run: the one that came with the data, or its own; nothing if the configuration needs none."""
    if not config.noise.get(ENCODED):
        return None
    return CodecPool(pack, cache, config.pool, brought=folders.train.parent / ENCODED_FILE)


class PoolSampler:
    """Random parts of a pool's clips.

    Args:
        pool: where they are from.
        pixels: renders them.
        rng: draws everything.
    """

    def __init__(self, pool: CodecPool, pixels: Pixels, rng: np.random.Generator) -> None:
        self.clips, _, *self.size, _ = pool.pairs.shape
        self.luma_shares = torch.tensor([LUMA_WEIGHTS[clip["matrix"]] for clip in pool.about])
        self.pixels, self.rng = pixels, rng

    def sample(self, n: int, frames: int, patch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Clean and noisy, ``(n, frames, 3, patch, patch)`` each, in [0, 1]; and the shares ``(n, 2)`` of red and blue
        in their luma.

        Longer clips than the pool has are played to and fro. Nine of ten begin forwards, as codecs look back.
        """
        rng, (length, height, width) = self.rng, self.size
        if patch > min(height, width):
            raise UsageError(f"a patch of {patch} needs encoded clips of that size or more, got {height} lines")
        index = rng.integers(max(1, length - frames + 1), size=(n, 1)) + np.arange(frames)
        index = to_and_fro(index, length)
        index = np.where(rng.random((n, 1)) < 0.1, index[:, ::-1], index)
        top, left = rng.integers(height - patch + 1, size=n), rng.integers(width - patch + 1, size=n)
        which, flips = rng.integers(self.clips, size=n), rng.random((n, 3)) < 0.5
        noisy, clean = (self.pixels.cut(Crops(2 * which + i, index, top, left), patch, flips) / 255 for i in range(2))
        return clean, noisy, self.luma_shares[torch.from_numpy(which)]
