"""Data and configurations for the tests of training: as little as shows that it works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from vidnoise.training.config import Stage, TrainConfig


def make_data(root: Path) -> Path:
    """A data folder with two short clips and a photo in ``train`` and one clip in ``val``."""
    rng = np.random.default_rng(0)
    for name, shift in (("train/a", 2), ("train/b", 0), ("val/c", 1)):
        path = root / f"{name}.avi"
        path.parent.mkdir(exist_ok=True)
        scene = cv2.resize(rng.integers(0, 256, (20, 40, 3), np.uint8), (400, 200), interpolation=cv2.INTER_CUBIC)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 25, (224, 200))
        for t in range(10):
            writer.write(np.ascontiguousarray(scene[:, shift * t : shift * t + 224]))
        writer.release()
    cv2.imwrite(str(root / "train" / "photo.png"), cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (96, 80)))
    return root


STAGES = (Stage("spatial", 2, 1, 16, steps=3), Stage("recurrent", 2, 3, 32, steps=3))
SIZES = {"widths": [8, 8, 8], "blocks": [0, 1, 1, 0, 0], "hidden": 4}


def config(**changes: object) -> TrainConfig:
    """Two stages of three steps each, on a tiny network."""
    plain = TrainConfig("tiny", "fast", {"gaussian": 1.0}, STAGES, model=SIZES)
    return replace(plain, **changes)  # type: ignore[arg-type]
