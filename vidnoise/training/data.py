"""Clean clips for training: decoded once into a cache, then cropped and augmented at random."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import SourceOpenError
from ..evaluation.clips import CLIP_SUFFIXES, read_clip
from .augment import Augmenter
from .config import Augment
from .motion import moving_photo

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}

logger = logging.getLogger(__name__)


def _read_photo(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceOpenError(f"cannot decode {path}", str(path))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None]


class Folders(NamedTuple):
    """Where training data lies; each folder is searched recursively."""

    train: Path
    """Clips and photos."""
    val: Path | None
    """Clips, at least one; ``None``: there is no validation."""

    @classmethod
    def of(cls, train: Path, val: Path | None) -> Folders:
        """The folders, without ``val`` if there are no clips in it."""
        clips = val is not None and any(p.suffix.lower() in CLIP_SUFFIXES for p in val.rglob("*"))
        return cls(train, val if clips else None)

    @classmethod
    def below(cls, data: Path) -> Folders:
        """``data/train`` and ``data/val``; ``data`` itself for training if it has neither."""
        divided = (data / "train").is_dir() or (data / "val").is_dir()
        return cls.of(data / "train" if divided else data, data / "val" if divided else None)


def turned(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures ``(..., H, W, 3)``, all flipped and transposed alike."""
    if rng.random() < 0.5:
        pictures = pictures[..., ::-1, :]
    if rng.random() < 0.5:
        pictures = pictures[..., ::-1, :, :]
    return pictures.swapaxes(-3, -2) if rng.random() < 0.5 else pictures


def as_clip(pictures: np.ndarray) -> Tensor:
    """``(..., H, W, 3)`` uint8 to ``(..., 3, H, W)`` float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, -3))).float().div_(255)


class ClipPack:
    """All clips and photos below a folder, decoded once into a memory-mapped file.

    Args:
        folder: searched recursively for videos and pictures.
        cache: where the decoded file is kept; named by the folder's contents, so a change makes it anew.

    Attributes:
        name: of the file, without suffix.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in CLIP_SUFFIXES | PHOTO_SUFFIXES)
        if not files:
            raise SourceOpenError(f"no clips or photos below {folder}", str(folder))
        listing = "\n".join(f"{p.relative_to(folder)} {p.stat().st_size}" for p in files)
        stem = cache / f"pack-{hashlib.sha256(listing.encode()).hexdigest()[:12]}"
        self.name = stem.name
        if not stem.with_suffix(".json").is_file():
            self._decode(files, stem)
        self.shapes: list[tuple[int, ...]] = [tuple(s) for s in json.loads(stem.with_suffix(".json").read_text())]
        data = np.memmap(stem.with_suffix(".raw"), np.uint8, "r")
        self.clips: list[np.ndarray] = []
        offset = 0
        for shape in self.shapes:
            size = int(np.prod(shape))
            self.clips.append(data[offset : offset + size].reshape(shape))
            offset += size
        self.videos = [c for c in self.clips if len(c) > 1]
        self.photos = [c[0] for c in self.clips if len(c) == 1]

    @staticmethod
    def _decode(files: list[Path], stem: Path) -> None:
        logger.info("decoding %d clips and photos to %s.raw (once)", len(files), stem)
        stem.parent.mkdir(parents=True, exist_ok=True)
        shapes = []
        part = stem.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as out:
            for path in files:
                clip = _read_photo(path) if path.suffix.lower() in PHOTO_SUFFIXES else read_clip(path)
                shapes.append(clip.shape)
                out.write(clip.tobytes())
        os.replace(part, stem.with_suffix(".raw"))
        stem.with_suffix(".json").write_text(json.dumps(shapes))  # last: its presence says the rest is there


class ClipSampler:
    """Endless random clean clips ``(T, 3, patch, patch)`` float32 in [0, 1].

    Real clips are cropped, played at single or double speed, backwards or forwards; photos are moved
    synthetically. All are flipped, transposed and jittered in brightness, contrast and colour. ``augment`` adds
    more: see :mod:`vidnoise.training.augment`.
    """

    def __init__(
        self, pack: ClipPack, *, synthetic: float, rng: np.random.Generator, augment: Augment | None = None
    ) -> None:
        self.pack = pack
        self.augment = augment or Augment()
        self.augmenter = Augmenter(self.augment)
        self.synthetic = synthetic if pack.videos else 1.0
        self.rng = rng
        # Long, large clips hold more to see; photos are drawn evenly.
        sizes = np.array([float(np.prod(v.shape)) ** 0.5 for v in pack.videos]) if pack.videos else np.ones(1)
        self.video_weights = sizes / sizes.sum()

    def clips(self, frames: int, patch: int) -> Iterator[Tensor]:
        """Clips of the given size, for ever."""
        while True:
            yield self.sample(frames, patch)

    def sample(self, frames: int, patch: int) -> Tensor:
        """One clip."""
        rng, deform = self.rng, None
        if self.pack.photos and rng.random() < self.synthetic:
            clip = moving_photo(self.pack.photos, frames, patch, rng)
        else:
            deform = self.augmenter.draw(patch, rng)
            video = self.pack.videos[rng.choice(len(self.video_weights), p=self.video_weights)]
            clip = self._crop(video, frames, deform.crop if deform else patch)
        tensor = as_clip(turned(clip, rng))
        return self.augmenter.colour(self._jitter(deform(tensor) if deform else tensor), rng)

    def _crop(self, video: np.ndarray, frames: int, patch: int) -> np.ndarray:
        rng = self.rng
        length, height, width, _ = video.shape
        stride = 2 if length >= 2 * frames and rng.random() < 0.15 else 1
        if rng.random() < 0.08:  # a still camera on a still scene
            index = np.full(frames, rng.integers(length))
        else:
            span = (frames - 1) * stride + 1
            index = rng.integers(max(1, length - span + 1)) + stride * np.arange(frames)
            # Clips shorter than asked are played to and fro.
            index = index % (2 * length - 2)
            index = np.where(index >= length, 2 * length - 2 - index, index)
            if rng.random() < 0.5:
                index = index[::-1]
        top, left = rng.integers(max(1, height - patch + 1)), rng.integers(max(1, width - patch + 1))
        clip = video[index, top : top + patch, left : left + patch]
        missing = [(0, max(0, patch - n)) for n in clip.shape[1:3]]
        return np.pad(clip, [(0, 0), *missing, (0, 0)], mode="symmetric") if any(m[1] for m in missing) else clip

    def _jitter(self, clip: Tensor) -> Tensor:
        rng = self.rng
        if rng.random() < self.augment.contrast:
            contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
            clip = (clip - 0.5) * contrast + 0.5 + brightness
        if rng.random() < 0.35:
            gray = clip.mean(1, keepdim=True)
            # Photos are rarely as colourful as drawings and stage lights are.
            clip = gray + (clip - gray) * rng.uniform(0.5, 1.3 if rng.random() < 0.5 else 3.5)
        if rng.random() < 0.25:
            clip = clip[:, rng.permutation(3).tolist()]
        if rng.random() < 0.3:
            clip = clip * torch.tensor(rng.uniform(0.85, 1.1, 3), dtype=torch.float32).view(3, 1, 1)
        if rng.random() < 0.2:  # night: noisy footage is dark footage
            clip = clip.clamp(0, 1) ** rng.uniform(1.0, 2.0) * rng.uniform(0.4, 1.0)
        return clip.clamp(0, 1)
