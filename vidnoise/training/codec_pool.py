"""Clips with codec artefacts, encoded ahead of time, as encoding on the fly would starve training.

The effect of an encoder on noise (blotches, blocks, noise that persists for a while and then jumps) has no formula, so
these clips are actually encoded: camera noise of many kinds, or none, then one of many encoders (:mod:`.transcode`).
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
"""Version of the pool's contents. Raise it when they change, so that old pools are not mistaken for new ones."""

BASES = {
    "planes": 0.38, "sensor": 0.24, "gaussian": 0.08, "correlated": 0.07, "luma": 0.09, "banding": 0.02, "none": 0.12,
}  # fmt: skip
"""Camera noise added before encoding, with its weights; without any, only the encoder's own loss is to be repaired."""

LEAD = 8
"""Maximum number of frames encoded before a clip's first and discarded, as most frames of a video follow others."""

LOST = 6 / 255
"""Clips whose gray, averaged over squares of 8 pixels, deviates by more than this are redrawn: about one in fourteen.

Strong noise at too low a bit rate leaves smears from which no denoiser can recover the picture; such clips would only
teach it to blur.
"""

logger = logging.getLogger(__name__)


ENCODED_FILE = "encoded.mkv"
"""Name of a pool that came with the training data, next to its folder, written by :mod:`.pack`; a ``.json`` file of the
same name describes its contents."""


class Encoded(NamedTuple):
    """One clip of a pool, ``(T, H, W, 3)`` uint8 each."""

    noisy: np.ndarray
    """The decoded clip."""
    clean: np.ndarray
    """The clip without noise, but in the same 8 bits and chroma subsampling, as no video has what those lose."""
    about: dict[str, Any]
    """The noise and the encoding that were drawn."""


def is_lost(noisy: np.ndarray, clean: np.ndarray) -> bool:
    """Return whether an encoder has damaged a clip ``(T, H, W, 3)`` beyond recovery."""
    length, height, width, _ = clean.shape
    rows, columns = height // 8, width // 8
    error = (noisy / 255 - clean / 255).mean(-1)[:, : 8 * rows, : 8 * columns]
    return bool(np.square(error.reshape(length, rows, 8, columns, 8).mean((2, 4))).mean() ** 0.5 > LOST)


def encoded(clip: Tensor, rng: np.random.Generator, generator: torch.Generator) -> Encoded:
    """Encode a clean clip ``(T, 3, H, W)`` in [0, 1] with random noise and a random encoding; needs PyAV."""
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
    """Yield encoded clips without end; needs PyAV."""
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
        pack: The clean clips.
        cache: Folder where the pool is kept, under a name derived from its inputs, so that a change rebuilds it.
            Without PyAV, any pool found there is used.
        settings: Number and size of the clips.
        brought: A pool that came with the data, if there is one: used whatever the settings.

    Attributes:
        pairs: ``(clips, 2, T, H, W, 3)`` uint8 RGB: the decoded clip, and the clean one.
        about: Noise and encoding of each clip.

    Raises:
        UsageError: There is no pool, and no PyAV to make one with.
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
        stem.with_suffix(".json").write_text(index)  # last: its presence means the rest is complete

    @staticmethod
    def _build(pack: ClipPack, stem: Path, settings: Pool) -> Path:
        """Make a pool, or find another one; return its path without suffix."""
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
        os.replace(index, stem.with_suffix(".json"))  # last: its presence means the rest is complete
        return stem

    @property
    def data(self) -> np.ndarray:
        """The whole pool as one row of bytes; this and the following make it a :class:`.pixels.Pack`."""
        return self.pairs.reshape(-1)

    @property
    def videos(self) -> list[np.ndarray]:
        """Decoded and clean clips in alternation."""
        return list(self.pairs.reshape(-1, *self.pairs.shape[2:]))

    @property
    def video_places(self) -> list[tuple[int, int, int]]:
        clips, _, frames, height, width, _ = self.pairs.shape
        return [(i * frames * height * width, height, width) for i in range(2 * clips)]

    photos: tuple[np.ndarray, ...] = ()
    photo_places: tuple[tuple[int, int, int], ...] = ()


def open_pool(pack: ClipPack, folders: Folders, cache: Path, config: TrainConfig) -> CodecPool | None:
    """Open the pool of a run: the one that came with the data, or its own; ``None`` if the configuration needs none."""
    if not config.noise.get(ENCODED):
        return None
    return CodecPool(pack, cache, config.pool, brought=folders.train.parent / ENCODED_FILE)


class PoolSampler:
    """Draws random parts of a pool's clips.

    Args:
        pool: Source of the clips.
        pixels: Renders them.
        rng: Random generator of all draws.
    """

    def __init__(self, pool: CodecPool, pixels: Pixels, rng: np.random.Generator) -> None:
        self.clips, _, *self.size, _ = pool.pairs.shape
        self.luma_shares = torch.tensor([LUMA_WEIGHTS[clip["matrix"]] for clip in pool.about])
        self.pixels, self.rng = pixels, rng

    def sample(self, n: int, frames: int, patch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return clean and noisy clips, and luma weights.

        Clips longer than those of the pool are played to and fro. Nine of ten begin forwards, the direction in which
        codecs predict.

        Returns:
            Clean and noisy clips, ``(n, frames, 3, patch, patch)`` each, in [0, 1]; and the luma weights ``(n, 2)`` of
            red and blue.

        Raises:
            UsageError: The pool's clips are smaller than ``patch``.
        """
        rng, (length, height, width) = self.rng, self.size
        if patch > min(height, width):
            raise UsageError(f"a patch of {patch} needs encoded clips of that size or more, got {height} lines")
        index = rng.integers(max(1, length - frames + 1), size=(n, 1)) + np.arange(frames)
        index = to_and_fro(index, length)
        index = np.where(rng.random((n, 1)) < 0.1, index[:, ::-1], index)
        top, left = rng.integers(height - patch + 1, size=n), rng.integers(width - patch + 1, size=n)
        which, flips = rng.integers(self.clips, size=n), rng.random((n, 3)) < 0.5
        places = top, left, np.ones(n, int)
        noisy, clean = (self.pixels.cut(Crops(2 * which + i, index, *places), patch, flips) / 255 for i in range(2))
        return clean, noisy, self.luma_shares[torch.from_numpy(which)]
