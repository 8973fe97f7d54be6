"""The protocols by which quality is judged.

``awgn``: a clean 8-bit RGB clip, float Gaussian noise (not clipped), seeded per clip and sigma; sigma is
given; the output is clipped to [0, 1]; PSNR and SSIM are means over frames, then over clips. ``blind`` is
the same with sigma estimated. ``stills`` is the same on single pictures, the state forgotten at each; a gray
picture goes in as three equal channels under equal noise, and the mean of the three that come out is judged.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import cv2
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
from vidnoise.model import DenoiseNetwork
from vidnoise.model.network import MULTIPLE
from vidnoise.options import MAX_LOOKAHEAD

Method = Callable[[Tensor, float], Tensor]
"""``(noisy (T, 3, H, W), sigma in [0, 1] units) -> clean``: what is evaluated."""

Rows = dict[str, dict[str, float]]
"""By clip (and ``"mean"``), by metric."""


def find_clips(folder: Path, *, stills: bool = False) -> dict[str, Path]:
    """All clips, or all PNG pictures, below a folder, by the names that seed their noise.

    Raises:
        SourceOpenError: there are none, or two clips share a name.
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
    """Names and frames ``(T, 3, H, W)`` in [0, 1] of all clips below a folder.

    Raises:
        SourceOpenError: there are none, or one cannot be read.
    """
    for name, path in find_clips(folder).items():
        yield name, torch.from_numpy(read_clip(path, n_frames)).permute(0, 3, 1, 2).float() / 255


def clean_stills(folder: Path, limit: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """Names and pictures ``(1, C, H, W)`` in [0, 1], gray (C = 1) or RGB, of the (first) PNG files below a folder.

    Raises:
        SourceOpenError: there are none, or one cannot be read.
    """
    for name, path in list(find_clips(folder, stills=True).items())[:limit]:
        picture = cv2.imread(str(path), cv2.IMREAD_ANYCOLOR)
        if picture is None:
            raise SourceOpenError(f"cannot decode {path}", str(path))
        picture = picture[..., None] if picture.ndim == 2 else picture[..., ::-1]
        yield name, torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32)) / 255


def noisy_clip(name: str, clean: Tensor, sigma: float) -> Tensor:
    """``clean`` with the protocol's Gaussian noise; ``sigma`` in 8-bit units."""
    rng = np.random.default_rng(zlib.crc32(f"{name}:{sigma:g}".encode()))
    return clean + torch.from_numpy(rng.standard_normal(clean.shape, np.float32)) * (sigma / 255)


def network_method(
    network: DenoiseNetwork,
    *,
    blind: bool = False,
    frame_wise: bool = False,
    lookahead: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Method:
    """A network as a method: frame by frame, the state kept, as it runs in a stream.

    Args:
        network: in evaluation mode, on ``device``.
        blind: sigma is estimated instead of told.
        frame_wise: the state is forgotten at every frame: the spatial core and its noise map alone.
        lookahead: frames that may wait for those after them, see :class:`~vidnoise.backends.window.Window`.
        device: where it runs.
        dtype: of its convolutions.
    """
    backend = Eager(network, device=torch.device(device), dtype=dtype)

    @torch.inference_mode()
    def method(noisy: Tensor, sigma: float) -> Tensor:
        _, _, height, width = noisy.shape
        bottom, right = -height % MULTIPLE, -width % MULTIPLE
        padded = (F.pad(f[None].to(device), [0, right, 0, bottom], mode="reflect") for f in noisy)
        told = None if blind else sigma
        steps = _frame_wise(backend, padded, told) if frame_wise else _in_stream(backend, padded, told, lookahead)
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
        keep = torch.full((1,), known, device=noisy.device)
        yield from (done.clean for _, done in window.push(None, noisy, sigma, 1.0, keep))
        known = True
    yield from (done.clean for _, done in window.flush())


def _given(name: str, clean: Tensor, sigma: float) -> Tensor:
    """What a method gets: a noisy clip, in colour."""
    noisy = noisy_clip(name, clean, sigma)
    return noisy.expand(-1, 3, -1, -1).contiguous() if clean.shape[1] == 1 else noisy


def _judged(out: Tensor, clean: Tensor) -> Tensor:
    """What is compared with ``clean`` of what a method made."""
    out = out.clamp(0, 1)
    return out.mean(1, keepdim=True) if clean.shape[1] == 1 else out


def mean_psnr(method: Method, clips: Iterable[tuple[str, Tensor]], sigma: float) -> float:
    """PSNR in dB at one sigma (8-bit units), mean over frames, then over clips: what strengths are searched by."""
    found = [psnr(_judged(method(_given(n, c, sigma), sigma / 255), c), c).mean().item() for n, c in clips]
    return sum(found) / len(found)


def score(method: Method, name: str, clean: Tensor, sigma: float, idle: Method | None = None) -> dict[str, float]:
    """All metrics of one clip at one sigma (8-bit units).

    PSNR and SSIM are means over frames. ``temporal_error`` and the first frame's PSNR are left out for a single
    picture. ``ms_per_megapixel`` is the time of the method's one call.

    Args:
        method: what is judged.
        name: of the clip; seeds the noise.
        clean: ``(T, C, H, W)``, C of 1 or 3.
        sigma: standard deviation of the noise.
        idle: the same call with nothing to do in it; its time (the shorter of two runs) is taken off.
    """
    given = _given(name, clean, sigma)
    out, seconds = timed(partial(method, given, sigma / 255))
    if idle is not None:
        starts = [timed(partial(idle, given, sigma / 255))[1] for _ in range(2)]
        # A filter that is lost in the noise of starting its program still took some time.
        seconds = max(seconds - min(starts), 0.01 * seconds)
    out = _judged(out, clean)
    frames = psnr(out, clean)
    scores = {"psnr": frames.mean().item(), "ssim": ssim(out, clean).mean().item()}
    if len(clean) > 1:
        scores |= {"temporal_error": temporal_error(out, clean), "psnr_first": frames[0].item()}
    return scores | {"ms_per_megapixel": ms_per_megapixel(seconds, clean)}


def evaluate(method: Method, clips: Iterable[tuple[str, Tensor]], sigma: float, *, idle: Method | None = None) -> Rows:
    """Scores by clip at one sigma (8-bit units), and over all clips under ``"mean"``."""
    rows = {name: score(method, name, clean, sigma, idle) for name, clean in clips}
    return rows | {"mean": middle(list(rows.values()))}


@lru_cache(maxsize=1)
def centre_crops(folder: Path, n_frames: int = 10, size: int = 192) -> list[tuple[str, Tensor]]:
    """Names and centres ``(T, 3, size, size)`` of the first frames of all clips below a folder."""
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
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """PSNR by sigma (10, 30, 50), blind, both ways and of first frames at 30, on centre crops of the first frames: a
    compass for training."""
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
