"""Clean clips from disk, for training and evaluation.

OpenCV decodes them, so that both run where PyAV is not installed.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from vidnoise.errors import SourceOpenError
from vidnoise.opencv import cv2

CLIP_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v"}


def find_data(option: str | os.PathLike[str] | None = None) -> Path:
    """Return the data folder, given by the option or the environment variable ``VIDNOISE_DATA``.

    Raises:
        SourceOpenError: Neither is given, or it is not a folder.
    """
    value = option or os.environ.get("VIDNOISE_DATA")
    if not value:
        raise SourceOpenError("no data folder: give --data DIR or set VIDNOISE_DATA")
    path = Path(value)
    if not path.is_dir():
        raise SourceOpenError(f"the data folder does not exist: {path}", str(path))
    return path


def read_clip(path: Path, n_frames: int | None = None) -> np.ndarray:
    """Decode a clip to ``(T, H, W, 3)`` uint8 RGB.

    Raises:
        SourceOpenError: Nothing can be decoded.
    """
    capture = cv2.VideoCapture(str(path))
    frames = []
    while n_frames is None or len(frames) < n_frames:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    capture.release()
    if not frames:
        raise SourceOpenError(f"cannot decode {path}", str(path))
    return np.stack(frames)
