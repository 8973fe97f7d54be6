"""Clean clips for training: decoded once into a cache, then sampled at random."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vidnoise.errors import SourceOpenError
from vidnoise.evaluation.clips import CLIP_SUFFIXES, read_clip
from vidnoise.opencv import cv2
from vidnoise.training.colours import recoloured
from vidnoise.training.config import Augment
from vidnoise.training.pixels import Pack, Pixels
from vidnoise.training.plan import Planner

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}

logger = logging.getLogger(__name__)


def _read_photo(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceOpenError(f"cannot decode {path}", str(path))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None]


class Folders(NamedTuple):
    """Folders of training data, searched recursively."""

    train: Path
    """Clips and photos."""
    val: Path | None
    """Validation clips, at least one; ``None`` for no validation."""

    @classmethod
    def of(cls, train: Path, val: Path | None) -> Folders:
        """Return the folders, without ``val`` if it has no clips."""
        clips = val is not None and any(p.suffix.lower() in CLIP_SUFFIXES for p in val.rglob("*"))
        return cls(train, val if clips else None)

    @classmethod
    def below(cls, data: Path) -> Folders:
        """Return ``data/train`` and ``data/val``; ``data`` itself for training if it has neither."""
        divided = (data / "train").is_dir() or (data / "val").is_dir()
        return cls.of(data / "train" if divided else data, data / "val" if divided else None)


class ClipPack:
    """All clips and photos below a folder, decoded once into a memory-mapped file.

    Args:
        folder: Searched recursively for videos and pictures.
        cache: Folder where the decoded file is kept, under a name derived from the contents of ``folder``, so that a
            change rebuilds it.

    Attributes:
        name: Name of the decoded file, without suffix.
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
        shapes: list[tuple[int, ...]] = [tuple(s) for s in json.loads(stem.with_suffix(".json").read_text())]
        self.data = np.memmap(stem.with_suffix(".raw"), np.uint8, "r")
        """All clips and photos, one after the other."""
        self.videos: list[np.ndarray] = []
        """Each ``(T, H, W, 3)``."""
        self.photos: list[np.ndarray] = []
        """Each ``(H, W, 3)``."""
        self.video_places: list[tuple[int, int, int]] = []
        self.photo_places: list[tuple[int, int, int]] = []
        """Offset of each photo in ``data``, in pixels, with its height and width."""
        offset = 0
        for shape in shapes:
            size = int(np.prod(shape))
            clip, place = self.data[offset : offset + size].reshape(shape), (offset // 3, shape[1], shape[2])
            if len(clip) > 1:
                self.videos.append(clip)
                self.video_places.append(place)
            else:
                self.photos.append(clip[0])
                self.photo_places.append(place)
            offset += size

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
        stem.with_suffix(".json").write_text(json.dumps(shapes))  # last: its presence means the rest is complete


class ClipSampler:
    """Sampler of random clean clips.

    Real clips are cropped, and played at single or double speed, backwards or forwards; photos are moved
    synthetically. All are flipped, transposed and jittered in brightness, contrast and colour. ``augment`` adds
    more: see :mod:`vidnoise.training.augment`.

    Args:
        pack: Source of the clips.
        pixels: Renders them.
        synthetic: Share of clips made from photos.
        rng: Random generator of all draws.
        augment: Probabilities of the augmentations.
    """

    def __init__(
        self,
        pack: Pack,
        pixels: Pixels,
        *,
        synthetic: float,
        rng: np.random.Generator,
        augment: Augment | None = None,
    ) -> None:
        self.pixels, self.rng, self.augment = pixels, rng, augment or Augment()
        videos = np.array([v.shape[:3] for v in pack.videos], int)
        photos = np.array([p.shape[:2] for p in pack.photos], int)
        self.planner = Planner(videos, photos, synthetic=synthetic, augment=self.augment, rng=rng)

    def sample(self, n: int, frames: int, patch: int) -> Tensor:
        """Return ``n`` clips ``(n, frames, 3, patch, patch)``, float32 in [0, 1], on the device of ``pixels``."""
        return recoloured(self.pixels.render(self.planner.draw(n, frames, patch)), self.augment, self.rng)
