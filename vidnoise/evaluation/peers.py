"""Classic filters under the same protocol, each at the best of several strengths.

FFmpeg's filters run through an ``ffmpeg`` binary (by ffmpeg-python) on 8-bit RGB converted to 4:4:4, as a
user would run them on video; OpenCV's non-local means runs on 8-bit RGB.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .protocol import Method

Run = Callable[[np.ndarray, float], np.ndarray]
"""``(noisy (T, H, W, 3) uint8, strength) -> clean`` likewise."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A filter with one strength and the factors of sigma (8-bit units) among which its best is searched."""

    name: str
    run: Run
    factors: tuple[float, ...]
    limits: tuple[float, float] = (0.0, 255.0)

    def strengths(self, sigma: float) -> list[float]:
        """Strengths to try at a noise level."""
        low, high = self.limits
        return sorted({round(min(high, max(low, f * sigma)), 2) for f in self.factors})

    def method(self, strength: float) -> Method:
        """This filter at one strength, as the protocol wants it."""

        def denoise(noisy: Tensor, _: float) -> Tensor:
            pictures = (noisy.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
            return torch.from_numpy(self.run(pictures, strength)).permute(0, 3, 1, 2).float() / 255

        return denoise


def _ffmpeg(filter_name: str, options: Callable[[float], dict[str, float]]) -> Run:
    def run(pictures: np.ndarray, strength: float) -> np.ndarray:
        import ffmpeg

        if shutil.which("ffmpeg") is None:
            raise UsageError("the ffmpeg filters need an ffmpeg binary on PATH; leave them out with --peers none")
        _, height, width, _ = pictures.shape
        raw = {"format": "rawvideo", "pix_fmt": "rgb24"}
        command = (
            ffmpeg.input("pipe:", s=f"{width}x{height}", r=25, **raw)
            .filter("format", "yuv444p")
            .filter(filter_name, **options(strength))
            .output("pipe:", **raw, sws_flags="bicubic+accurate_rnd+full_chroma_int")
            .global_args("-v", "error", "-nostdin")
            .compile()
        )
        done = subprocess.run(command, input=pictures.tobytes(), capture_output=True, check=False)
        if done.returncode:
            raise UsageError(f"ffmpeg's {filter_name} failed: {done.stderr.decode(errors='replace').strip()[:200]}")
        return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3).copy()

    return run


def _hqdn3d(s: float) -> dict[str, float]:
    return {"luma_spatial": s, "chroma_spatial": 0.75 * s, "luma_tmp": 1.5 * s, "chroma_tmp": 1.125 * s}


def _opencv_nlm(pictures: np.ndarray, strength: float) -> np.ndarray:
    return np.stack([cv2.fastNlMeansDenoisingColored(p, None, strength, strength, 7, 21) for p in pictures])


PEERS: dict[str, Peer] = {
    p.name: p
    for p in (
        Peer("hqdn3d", _ffmpeg("hqdn3d", _hqdn3d), (0.4, 0.75, 1.0, 1.4, 2.0, 2.8, 4.0)),
        Peer("nlmeans", _ffmpeg("nlmeans", lambda s: {"s": s}), (0.3, 0.4, 0.5, 0.6, 0.75, 0.9), limits=(1.0, 30.0)),
        Peer("opencv-nlm", _opencv_nlm, (0.4, 0.55, 0.7, 0.85, 1.0, 1.2)),
    )
}
"""Peers by name."""
