"""Classic filters under the same protocol, each at its best strength.

FFmpeg's filters run in an ``ffmpeg`` binary (by ffmpeg-python) on 8-bit RGB converted to 4:4:4, as a
user would run them on video; OpenCV's non-local means runs on 8-bit RGB; BM3D, in its authors' package, gets
the same unclipped floats as the networks.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidnoise.errors import UsageError
from vidnoise.evaluation.ffmpeg import binary_with, call, missing_filter
from vidnoise.evaluation.protocol import Method, mean_psnr
from vidnoise.opencv import cv2

Run = Callable[[np.ndarray, float], np.ndarray]
"""``(noisy, strength) -> clean``, both ``(T, H, W, 3)`` uint8, or float32 in [0, 1] for a ``floating`` peer."""


def _always() -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Peer:
    """A filter with one strength, and the factors of sigma (8-bit units) among which the best strength is searched."""

    name: str
    run: Run
    factors: tuple[float, ...]
    """From weak to strong; a single one disables the search."""
    limits: tuple[float, float] = (0.0, math.inf)
    """Range of the strength."""
    missing: Callable[[], str | None] = _always
    """Returns the missing prerequisite on this machine, in a few words; None if there is none."""
    idle: Run | None = None
    """The same call without the filter, to measure the cost of starting a program and piping the frames."""
    floating: bool = False
    least_frames: int = 1
    """Shortest clip that the filter supports."""

    def unusable(self, n_frames: int) -> str | None:
        """Return why it cannot run here on clips of ``n_frames``, in a few words; None if it can."""
        if n_frames < self.least_frames:
            return f"it needs clips of at least {self.least_frames} frames"
        return self.missing()

    def strengths(self, sigma: float) -> list[float]:
        """Return the strengths to try first at a noise level, from weak to strong."""
        low, high = self.limits
        return sorted({round(min(high, max(low, f * sigma)), 2) for f in self.factors})

    def method(self, strength: float) -> Method:
        """Return this filter at one strength as a method of the protocol."""
        return self._as_method(self.run, strength)

    def idle_method(self) -> Method | None:
        """Return the call without the filter, if there is one."""
        return self._as_method(self.idle, 0.0) if self.idle else None

    def _as_method(self, run: Run, strength: float) -> Method:
        def denoise(noisy: Tensor, _: float) -> Tensor:
            if len(noisy) < self.least_frames:
                raise UsageError(f"{self.name} needs clips of at least {self.least_frames} frames, got {len(noisy)}")
            frames = noisy.permute(0, 2, 3, 1)
            if not self.floating:
                frames = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
            clean = torch.from_numpy(run(frames.contiguous().numpy(), strength)).permute(0, 3, 1, 2).float()
            return clean if self.floating else clean / 255

        return denoise


def search(peer: Peer, clips: Iterable[tuple[str, Tensor]], sigma: float) -> tuple[float, bool]:
    """Find the strength with the highest PSNR at a sigma (8-bit units), of the table or halfway between neighbours.

    Returns:
        The strength, and whether it is the weakest or strongest of those tried: then a better one may lie beyond,
        or the filter has no further range.
    """
    grid = peer.strengths(sigma)
    if len(grid) == 1:
        return grid[0], False
    clips = list(clips)
    tried: dict[float, float] = {}

    def best_of(strengths: Sequence[float]) -> float:
        for s in strengths:
            tried[s] = mean_psnr(peer.method(s), clips, sigma)
        return max(tried, key=lambda s: tried[s])

    i = grid.index(best_of(grid))
    between = {round(math.sqrt(grid[i] * grid[j]), 2) for j in (i - 1, i + 1) if 0 <= j < len(grid)}
    best = best_of(sorted(between - tried.keys()))
    return best, best in (grid[0], grid[-1])


def _ffmpeg(
    filter_name: str,
    options: Callable[[float], dict[str, float | str]],
    factors: tuple[float, ...],
    *,
    name: str = "",
    limits: tuple[float, float] = (0.0, math.inf),
    least_frames: int = 1,
) -> Peer:
    """Make a filter of FFmpeg a peer; ``options`` maps the strength to the filter's options."""

    def missing() -> str | None:
        return missing_filter(filter_name) or _no_module("ffmpeg", "ffmpeg-python", "bench")

    def pipe(pictures: np.ndarray, arguments: dict[str, float | str] | None) -> np.ndarray:
        import ffmpeg

        n, height, width, _ = pictures.shape
        raw = {"format": "rawvideo", "pix_fmt": "rgb24"}
        stream = ffmpeg.input("pipe:", s=f"{width}x{height}", r=25, **raw).filter("format", "yuv444p")
        if arguments is not None:
            stream = stream.filter(filter_name, **arguments)
        command = (
            stream.output("pipe:", **raw, sws_flags="bicubic+accurate_rnd+full_chroma_int")
            .global_args("-v", "error", "-nostdin", "-filter_threads", str(torch.get_num_threads()))
            .compile(cmd=binary_with(filter_name))
        )
        out = call(command, pictures.tobytes(), what=filter_name, megapixels=n * height * width / 1e6)
        if len(out) != pictures.size:
            raise UsageError(f"ffmpeg's {filter_name} gave {len(out) // (height * width * 3)} frames for {n}")
        return np.frombuffer(out, np.uint8).reshape(pictures.shape).copy()

    return Peer(
        name or filter_name,
        lambda pictures, strength: pipe(pictures, options(strength)),
        factors,
        limits,
        missing,
        idle=lambda pictures, _: pipe(pictures, None),
        least_frames=least_frames,
    )


def _no_module(module: str, package: str, extra: str) -> str | None:
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as ex:  # OSError: its compiled part does not load on this machine
        return f"the Python package {package} is not usable ({ex}): pip install 'vidnoise[{extra}]'"
    return None


def _hqdn3d(s: float) -> dict[str, float | str]:
    return {"luma_spatial": s, "chroma_spatial": 0.75 * s, "luma_tmp": 1.5 * s, "chroma_tmp": 1.125 * s}


def _atadenoise(s: float) -> dict[str, float | str]:
    # Thresholds are shares of the full range: A for a single pixel's difference (at most 0.3), B for their sum.
    return {f"{plane}{k}": f * s / 255 for plane in range(3) for k, f in (("a", 1), ("b", 2))}


def _vaguedenoiser(s: float) -> dict[str, float | str]:
    # Up to 1 dB better than its defaults, which apply 85 % of one threshold for all bands.
    return {"threshold": s, "method": "garrote", "percent": 100, "type": "bayes"}


def _opencv_nlm(pictures: np.ndarray, strength: float) -> np.ndarray:
    """Denoise ``pictures`` as BGR, which OpenCV expects."""
    clean = [cv2.fastNlMeansDenoisingColored(p[..., ::-1], None, strength, strength, 7, 21) for p in pictures]
    return np.stack(clean)[..., ::-1].copy()


def _opencv_nlm_multi(pictures: np.ndarray, strength: float) -> np.ndarray:
    frames = [np.ascontiguousarray(p[..., ::-1]) for p in pictures]
    clean = []
    for i in range(len(frames)):
        reach = min(2, i, len(frames) - 1 - i)  # the window shrinks towards the ends
        window = 2 * reach + 1
        clean.append(cv2.fastNlMeansDenoisingColoredMulti(frames, i, window, None, strength, strength, 7, 21))
    return np.stack(clean)[..., ::-1].copy()


def _bm3d(pictures: np.ndarray, strength: float) -> np.ndarray:
    """Denoise in luminance-chrominance, or as one gray picture if all channels are equal."""
    import bm3d  # pyright: ignore[reportMissingImports]

    gray = bool((pictures == pictures[..., :1]).all())
    clean = []
    for p in pictures:
        if gray:
            clean.append(np.stack([bm3d.bm3d(p[..., 0], strength / 255)] * 3, axis=-1))
        else:
            clean.append(bm3d.bm3d_rgb(p, strength / 255))
    return np.stack(clean).astype(np.float32)


PEERS: dict[str, Peer] = {
    p.name: p
    for p in (
        _ffmpeg("hqdn3d", _hqdn3d, (0.5, 0.8, 1.25, 2.0, 3.2)),
        # It averages over 9 frames; FFmpeg 5.1 hangs on clips of fewer than 4.
        _ffmpeg("atadenoise", _atadenoise, (0.5, 1.0, 2.0, 4.0, 8.0), limits=(0.0, 0.3 * 255), least_frames=4),
        _ffmpeg("vaguedenoiser", _vaguedenoiser, (0.4, 0.6, 0.9, 1.3, 2.0)),
        _ffmpeg("owdenoise", lambda s: {"ls": s, "cs": s}, (0.25, 0.4, 0.6, 0.9, 1.4), limits=(0.0, 1000.0)),
        _ffmpeg(
            "fftdnoiz", lambda s: {"sigma": s, "prev": 1, "next": 1}, (0.5, 0.8, 1.25, 2.0, 3.2), limits=(0.0, 100.0)
        ),
        _ffmpeg("nlmeans", lambda s: {"s": s}, (0.25, 0.35, 0.5, 0.7, 1.0), limits=(1.0, 30.0)),
        _ffmpeg("bm3d", lambda s: {"sigma": s}, (0.8, 1.2, 1.7, 2.4, 3.4), name="bm3d-ffmpeg"),
        Peer("opencv-nlm", _opencv_nlm, (0.4, 0.55, 0.75, 1.0, 1.4)),
        Peer("opencv-nlm-multi", _opencv_nlm_multi, (0.3, 0.4, 0.55, 0.75, 1.0), least_frames=2),
        Peer("bm3d-pypi", _bm3d, (1.0,), missing=lambda: _no_module("bm3d", "bm3d", "peers"), floating=True),
    )
}
"""Peers by name, roughly from fast to slow."""


class Usable(Protocol):
    """Anything that can be chosen as a peer."""

    def unusable(self, n_frames: int) -> str | None: ...


AnyPeer = TypeVar("AnyPeer", bound=Usable)


def choose(names: str, n_frames: int, table: Mapping[str, AnyPeer]) -> tuple[list[AnyPeer], list[str]]:
    """Choose peers by a comma-separated list, ``all`` or ``none``.

    Args:
        names: The list.
        n_frames: Length of the clips; 1 for still pictures.
        table: Available peers by name.

    Returns:
        The peers, and a line about each that ``all`` includes but that cannot run.

    Raises:
        UsageError: One that was named does not exist or cannot run.
    """
    if names == "none":
        return [], []
    if names == "all":
        reasons = {name: peer.unusable(n_frames) for name, peer in table.items()}
        lines = [f"{name} is left out: {reason}" for name, reason in reasons.items() if reason]
        return [table[name] for name, reason in reasons.items() if not reason], lines
    chosen = []
    for name in names.split(","):
        peer = table.get(name)
        if peer is None:
            raise UsageError(f"unknown peer {name!r}; there are: {', '.join(table)}")
        if reason := peer.unusable(n_frames):
            raise UsageError(f"{name} cannot run: {reason}; leave it out of --peers")
        chosen.append(peer)
    return chosen, []
