"""Streams of frames through a denoiser with a tiny network."""

from __future__ import annotations

import torch

from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.session.denoiser import Denoiser

RGB = PIXEL_FORMATS["gbrpf32le"]


def frames(n: int, height: int = 32, width: int = 48, seed: int = 0) -> list[Frame]:
    """A smooth random scene under noise, as planar float RGB."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    scene = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    pictures = [scene + 0.05 * torch.randn(scene.shape, generator=generator) for _ in range(n)]
    return [Frame(tuple(p), RGB, index=i, pts=i) for i, p in enumerate(pictures)]


def values(frame: Frame) -> torch.Tensor:
    return torch.stack(frame.planes)


def denoise(network: DenoiseNetwork, stream: list[Frame], **options: object) -> list[torch.Tensor]:
    denoiser = Denoiser(network, device="cpu", precision="fp32", **{"sigma": 13, **options})  # type: ignore[arg-type]
    return [values(f) for f in denoiser(stream)]


def moving_scene(seed: int, n: int, speed: int) -> list[torch.Tensor]:
    """A textured scene panned by ``speed`` pixels a frame, with noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 60, generator=generator)
    scene = torch.nn.functional.interpolate(coarse, size=(144, 960), mode="bicubic")[0]
    pictures = [scene[..., i * speed : i * speed + 256] for i in range(n)]
    return [p + 0.1 * torch.randn(p.shape, generator=generator) for p in pictures]
