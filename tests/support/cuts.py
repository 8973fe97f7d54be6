"""A clip of three scenes with noise, at uneven times, with audio."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from support.clips import Recipe, _audio_frames

SCENE_FRAMES = 26
WIDTH, HEIGHT = 64, 48


def three_scenes(path: Path) -> Path:
    """Write the clip, losslessly."""
    rng = np.random.default_rng(3)
    recipe = Recipe(".mkv", "ffv1", width=WIDTH, height=HEIGHT)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25, time_base=Fraction(1, 1000))
        video.width, video.height, video.pix_fmt = recipe.width, recipe.height, recipe.pix_fmt
        audio = container.add_stream("flac", rate=48000)
        audio.codec_context.layout = "stereo"
        for i in range(3 * SCENE_FRAMES):
            scene, step = divmod(i, SCENE_FRAMES)
            coarse = np.random.default_rng(scene).random((6, 12), np.float32)
            canvas = cv2.resize(coarse, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[:, step : step + WIDTH]
            luma = (40 + 160 * canvas + rng.normal(0, 12, canvas.shape)).clip(0, 255).astype(np.uint8)
            chroma = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            frame.pts, frame.time_base = 40 * i + 7 * (i % 3), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for frame in _audio_frames(audio, 0.12 * SCENE_FRAMES, 440):
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path
