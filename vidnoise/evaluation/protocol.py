"""The protocols by which quality is judged.

``awgn``: a clean 8-bit RGB clip, float Gaussian noise (not clipped), seeded per clip and sigma; sigma is
given; the output is clipped to [0, 1]; PSNR and SSIM are means over frames, then over clips. ``blind`` is
the same with sigma estimated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import SourceOpenError
from ..model import DenoiseNetwork, uniform_sigma
from ..model.network import MULTIPLE
from .clips import CLIP_SUFFIXES, read_clip
from .metrics import psnr, ssim, temporal_error

Method = Callable[[Tensor, float], Tensor]
"""``(noisy (T, 3, H, W), sigma in [0, 1] units) -> clean``: what is evaluated."""

Scores = dict[str, dict[str, dict[str, float]]]
"""By sigma, by clip (and ``"mean"``), by metric."""


def clean_clips(folder: Path, n_frames: int = 20) -> Iterator[tuple[str, Tensor]]:
    """Names and frames ``(T, 3, H, W)`` in [0, 1] of all clips below a folder.

    Raises:
        SourceOpenError: there are none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in CLIP_SUFFIXES)
    if not paths:
        raise SourceOpenError(f"no clips below {folder}", str(folder))
    for path in paths:
        yield path.stem, torch.from_numpy(read_clip(path, n_frames)).permute(0, 3, 1, 2).float() / 255


def noisy_clip(name: str, clean: Tensor, sigma: float) -> Tensor:
    """``clean`` with the protocol's Gaussian noise; ``sigma`` in 8-bit units."""
    rng = np.random.default_rng(zlib.crc32(f"{name}:{sigma:g}".encode()))
    return clean + torch.from_numpy(rng.standard_normal(clean.shape, np.float32)) * (sigma / 255)


def network_method(network: DenoiseNetwork, *, blind: bool = False, device: torch.device | str = "cpu") -> Method:
    """A network as a method: frame by frame, the state kept, as it runs in a stream."""

    @torch.no_grad()
    def method(noisy: Tensor, sigma: float) -> Tensor:
        _, _, height, width = noisy.shape
        bottom, right = -height % MULTIPLE, -width % MULTIPLE
        state, out = None, []
        for frame in noisy:
            x = torch.nn.functional.pad(frame[None].to(device), [0, right, 0, bottom], mode="reflect")
            x = x.contiguous(memory_format=torch.channels_last)
            if state is None:
                state = network.initial_state(1, *x.shape[-2:], device=device)
            level = network.estimate_sigma(x) if blind else uniform_sigma(sigma, x)
            clean, state = network(x, level, state)
            out.append(clean[0, :, :height, :width].float().cpu())
        return torch.stack(out)

    return method


def score(method: Method, name: str, clean: Tensor, sigma: float) -> dict[str, float]:
    """PSNR, SSIM, temporal error and the first frame's PSNR of one clip at one sigma (8-bit units)."""
    out = method(noisy_clip(name, clean, sigma), sigma / 255).clamp(0, 1)
    frames = psnr(out, clean)
    return {
        "psnr": frames.mean().item(), "ssim": ssim(out, clean).mean().item(),
        "temporal_error": temporal_error(out, clean), "psnr_first": frames[0].item(),
    }  # fmt: skip


def evaluate(method: Method, folder: Path, sigmas: tuple[float, ...], n_frames: int = 20) -> Scores:
    """Scores by sigma, then by clip, with the mean over clips under ``"mean"``."""
    result: Scores = {}
    for sigma in sigmas:
        rows = {name: score(method, name, clean, sigma) for name, clean in clean_clips(folder, n_frames)}
        keys = next(iter(rows.values()))
        rows["mean"] = {k: sum(r[k] for r in rows.values()) / len(rows) for k in keys}
        result[f"{sigma:g}"] = rows
    return result


@lru_cache(maxsize=1)
def _crops(folder: Path, n_frames: int, size: int) -> list[tuple[str, Tensor]]:
    crops = []
    for name, clip in clean_clips(folder, n_frames):
        top, left = (clip.shape[2] - size) // 2, (clip.shape[3] - size) // 2
        crops.append((name, clip[..., top : top + size, left : left + size].clone()))
    return crops


def quick_validation(network: DenoiseNetwork, folder: Path, *, device: torch.device | str = "cpu") -> dict[str, float]:
    """PSNR by sigma (10, 30, 50, blind at 30) on centre crops of the first frames: a compass for training."""
    known, blind = (network_method(network, blind=b, device=device) for b in (False, True))
    crops = _crops(folder, 10, 192)
    result = {}
    for label, sigma, method in (("10", 10, known), ("30", 30, known), ("50", 50, known), ("30b", 30, blind)):
        values = [psnr(method(noisy_clip(n, c, sigma), sigma / 255).clamp(0, 1), c).mean().item() for n, c in crops]
        result[label] = sum(values) / len(values)
    return result
