"""The evaluation protocols for Gaussian noise.

``awgn``: a clean 8-bit RGB clip, float Gaussian noise (not clipped), seeded per clip and sigma; sigma is
given; the output is clipped to [0, 1]; PSNR and SSIM are means over frames, then over clips. ``blind`` is
the same with sigma estimated. ``stills`` is the same on single pictures, with the state reset at each; a gray
picture is denoised as three equal channels with equal noise, and the mean of the output channels is evaluated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.backends.eager import Eager
from vidnoise.backends.window import Window
from vidnoise.errors import SourceOpenError
from vidnoise.evaluation.clips import CLIP_SUFFIXES, read_clip
from vidnoise.evaluation.cost import middle, ms_per_megapixel, timed
from vidnoise.evaluation.metrics import psnr, ssim, temporal_error
from vidnoise.evaluation.vmaf import vmaf
from vidnoise.model import DenoiseNetwork
from vidnoise.model.network import MULTIPLE
from vidnoise.opencv import cv2
from vidnoise.option_values import MAX_LOOKAHEAD

Method = Callable[[Tensor, float], Tensor]
"""A method to evaluate: ``(noisy (T, 3, H, W), sigma in [0, 1] units) -> clean``."""

Rows = dict[str, dict[str, float]]
"""Scores by clip (and ``"mean"``), by metric."""


def find_clips(folder: Path, *, stills: bool = False) -> dict[str, Path]:
    """Find all clips, or all PNG pictures, below a folder, by the names that seed their noise.

    Raises:
        SourceOpenError: There are none, or two clips share a name.
    """
    if stills:
        found = {p.relative_to(folder).with_suffix("").as_posix(): p for p in sorted(folder.rglob("*.png"))}
    else:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in CLIP_SUFFIXES)
        found = {p.stem: p for p in paths}
        if twice := [p for p in paths if found[p.stem] != p]:
            raise SourceOpenError(f"two clips below {folder} are called {twice[0].stem}", str(folder))
    if not found:
        raise SourceOpenError(f"no {'PNG pictures' if stills else 'clips'} below {folder}", str(folder))
    return found


def clean_clips(folder: Path, n_frames: int = 20) -> Iterator[tuple[str, Tensor]]:
    """Yield names and frames ``(T, 3, H, W)`` in [0, 1] of all clips below a folder.

    Raises:
        SourceOpenError: There are none, or one cannot be read.
    """
    for name, path in find_clips(folder).items():
        yield name, torch.from_numpy(read_clip(path, n_frames)).permute(0, 3, 1, 2).float() / 255


def clean_stills(folder: Path, limit: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield names and pictures ``(1, C, H, W)`` in [0, 1], gray (C = 1) or RGB, of (the first) PNG files in a folder.

    Raises:
        SourceOpenError: There are none, or one cannot be read.
    """
    for name, path in list(find_clips(folder, stills=True).items())[:limit]:
        picture = cv2.imread(str(path), cv2.IMREAD_ANYCOLOR)
        if picture is None:
            raise SourceOpenError(f"cannot decode {path}", str(path))
        picture = picture[..., None] if picture.ndim == 2 else picture[..., ::-1]
        yield name, torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32)) / 255


def noisy_clip(name: str, clean: Tensor, sigma: float) -> Tensor:
    """Add the protocol's Gaussian noise to ``clean``; ``sigma`` in 8-bit units."""
    rng = np.random.default_rng(zlib.crc32(f"{name}:{sigma:g}".encode()))
    return clean + torch.from_numpy(rng.standard_normal(clean.shape, np.float32)) * (sigma / 255)


def network_method(
    network: DenoiseNetwork,
    *,
    blind: bool = False,
    frame_wise: bool = False,
    lookahead: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Method:
    """Make a network a method, which runs as in a stream.

    Args:
        network: In evaluation mode, on ``device``.
        blind: Estimate sigma instead of using the given one.
        frame_wise: Reset the state at every frame, which leaves the spatial core and its noise map.
        lookahead: Frames that may wait for those after them, see :class:`~vidnoise.backends.window.Window`.
        device: Device of the network.
        dtype: Precision of the convolutions; ``None`` for int8 if the network is quantised, otherwise float32.
    """
    if dtype is None:
        dtype = torch.int8 if network.config.quantised else torch.float32
    backend = Eager(network, device=torch.device(device), dtype=dtype)

    @torch.inference_mode()
    def method(noisy: Tensor, sigma: float) -> Tensor:
        _, _, height, width = noisy.shape
        bottom, right = -height % MULTIPLE, -width % MULTIPLE
        padded = (F.pad(f[None].to(device), [0, right, 0, bottom], mode="reflect") for f in noisy)
        known = None if blind else sigma
        steps = _frame_wise(backend, padded, known) if frame_wise else _in_stream(backend, padded, known, lookahead)
        return torch.stack([clean[0, :, :height, :width].float().cpu() for clean in steps])

    return method


def _frame_wise(backend: Eager, frames: Iterable[Tensor], sigma: float | None) -> Iterator[Tensor]:
    network = backend.network
    for noisy in frames:
        state = backend.initial_state(1, *noisy.shape[-2:])
        level, _ = backend.measure(noisy, sigma, torch.zeros(1, dtype=torch.bool, device=noisy.device), state)
        yield network.still(noisy, level)


def _in_stream(backend: Eager, frames: Iterable[Tensor], sigma: float | None, lookahead: int) -> Iterator[Tensor]:
    window, known = Window[None](backend, lookahead), False
    for noisy in frames:
        continues = torch.full((1,), known, device=noisy.device)
        yield from (done.clean for _, done in window.push(None, noisy, sigma, 1.0, continues))
        known = True
    yield from (done.clean for _, done in window.flush())


def _given(name: str, clean: Tensor, sigma: float) -> Tensor:
    """Return a method's input: a noisy clip, in colour."""
    noisy = noisy_clip(name, clean, sigma)
    return noisy.expand(-1, 3, -1, -1).contiguous() if clean.shape[1] == 1 else noisy


def _judged(out: Tensor, clean: Tensor) -> Tensor:
    """Clip a method's output to [0, 1], with the channels of ``clean``."""
    out = out.clamp(0, 1)
    return out.mean(1, keepdim=True) if clean.shape[1] == 1 else out


def mean_psnr(method: Method, clips: Iterable[tuple[str, Tensor]], sigma: float) -> float:
    """Return the PSNR in dB at one sigma (8-bit units), mean over frames, then over clips, for searching strengths."""
    found = [psnr(_judged(method(_given(n, c, sigma), sigma / 255), c), c).mean().item() for n, c in clips]
    return sum(found) / len(found)


def score(
    method: Method, name: str, clean: Tensor, sigma: float, idle: Method | None = None, *, with_vmaf: bool = False
) -> dict[str, float]:
    """Compute all metrics of one clip at one sigma (8-bit units).

    PSNR and SSIM are means over frames. ``temporal_error`` and the first frame's PSNR are omitted for a single
    picture. ``ms_per_megapixel`` is the time of the method's single call.

    Args:
        method: The method to evaluate.
        name: Name of the clip, which seeds the noise.
        clean: ``(T, C, H, W)``, C of 1 or 3.
        sigma: Standard deviation of the noise.
        idle: The same call without the filter; its time (the shorter of two runs) is subtracted.
        with_vmaf: Whether to compute VMAF, too.
    """
    given = _given(name, clean, sigma)
    out, seconds = timed(partial(method, given, sigma / 255))
    if idle is not None:
        starts = [timed(partial(idle, given, sigma / 255))[1] for _ in range(2)]
        # A filter that is faster than the jitter of starting its program still took some time.
        seconds = max(seconds - min(starts), 0.01 * seconds)
    out = _judged(out, clean)
    frames = psnr(out, clean)
    scores = {"psnr": frames.mean().item(), "ssim": ssim(out, clean).mean().item()}
    if len(clean) > 1:
        scores |= {"temporal_error": temporal_error(out, clean), "psnr_first": frames[0].item()}
    scores |= {"vmaf": vmaf(out, clean)} if with_vmaf else {}
    return scores | {"ms_per_megapixel": ms_per_megapixel(seconds, clean)}


def evaluate(
    method: Method,
    clips: Iterable[tuple[str, Tensor]],
    sigma: float,
    *,
    idle: Method | None = None,
    with_vmaf: bool = False,
) -> Rows:
    """Compute scores by clip at one sigma (8-bit units), and over all clips under ``"mean"``."""
    rows = {name: score(method, name, clean, sigma, idle, with_vmaf=with_vmaf) for name, clean in clips}
    return rows | {"mean": middle(list(rows.values()))}


@lru_cache(maxsize=1)
def centre_crops(folder: Path, n_frames: int = 10, size: int = 192) -> list[tuple[str, Tensor]]:
    """Return names and centres ``(T, 3, size, size)`` of the first frames of all clips below a folder."""
    crops = []
    for name, clip in clean_clips(folder, n_frames):
        top, left = (clip.shape[2] - size) // 2, (clip.shape[3] - size) // 2
        crops.append((name, clip[..., top : top + size, left : left + size].clone()))
    return crops


def quick_validation(
    network: DenoiseNetwork,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> dict[str, float]:
    """Compute a quick validation score, on centre crops of the first frames, as a compass for training.

    Returns:
        PSNR by sigma (10, 30, 50), and at sigma 30 blind, with lookahead and of first frames.
    """
    method = partial(network_method, network, device=device, dtype=dtype)
    told, blind, both, still = method(), method(blind=True), method(lookahead=MAX_LOOKAHEAD), method(frame_wise=True)
    crops = centre_crops(folder)
    result = {}
    for label, sigma, method, n_frames in (
        ("10", 10, told, None), ("30", 30, told, None), ("50", 50, told, None),
        ("30blind", 30, blind, None), ("30both", 30, both, None), ("30first", 30, still, 2),
    ):  # fmt: skip
        values = [
            psnr(method(noisy_clip(n, c, sigma)[:n_frames], sigma / 255).clamp(0, 1), c[:n_frames]).mean().item()
            for n, c in crops
        ]
        result[label] = sum(values) / len(values)
    return result
