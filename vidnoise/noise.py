"""Synthetic noise, shared by training and evaluation.

A noise type is a function ``(clean, generator) -> noisy`` over a clip ``(T, 3, H, W)`` in [0, 1]; its
strength is drawn from the generator. Independent from frame to frame unless its docstring says
otherwise. A new one is one function and one line in :data:`NOISES`.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Noise = Callable[[Tensor, Generator], Tensor]

GAMMA = 2.2
"""A plain power law stands for every camera's curve; sensors count light, files store its root."""

_RGB_TO_YUV = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
"""JPEG's (JFIF) matrix: chroma subsampling in cameras happens in this space."""


def _uniform(generator: Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _normal(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator)


def none(clean: Tensor, generator: Generator) -> Tensor:
    """No noise at all: what must come out untouched."""
    return clean.clone()


def add_gaussian(clean: Tensor, sigma: float, generator: Generator) -> Tensor:
    """White Gaussian noise of standard deviation ``sigma`` ([0, 1] units), not clipped."""
    return clean + sigma * _normal(clean, generator)


def gaussian(clean: Tensor, generator: Generator) -> Tensor:
    """White Gaussian noise, sigma 0 to 55/255."""
    return add_gaussian(clean, _uniform(generator, 0, 55) / 255, generator)


def poisson_gaussian(clean: Tensor, generator: Generator) -> Tensor:
    """Photon and read noise in linear light under per-channel white-balance gains, clipped by the sensor."""
    gains = torch.tensor([_uniform(generator, 1.0, 2.4), 1.0, _uniform(generator, 1.0, 2.4)]).view(3, 1, 1)
    # Log-uniform: one photographic stop is as likely as the next.
    shot = 10 ** _uniform(generator, -4.0, -1.9)
    read = 10 ** _uniform(generator, -3.0, -1.7)
    linear = clean.clamp(0, 1) ** GAMMA
    deviation = (shot * gains * linear + (read * gains) ** 2).sqrt()
    return (linear + deviation * _normal(clean, generator)).clamp(0, 1) ** (1 / GAMMA)


def correlated(clean: Tensor, generator: Generator) -> Tensor:
    """Gaussian noise smoothed by a small kernel, as demosaicking and scaling leave it."""
    sigma = _uniform(generator, 2, 40) / 255
    spread = _uniform(generator, 0.35, 1.1)
    x = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / spread) ** 2)
    kernel = torch.outer(kernel, kernel)
    kernel = (kernel / kernel.square().sum().sqrt()).expand(3, 1, 7, 7)  # unit energy keeps sigma
    noise = F.conv2d(F.pad(_normal(clean, generator), [3] * 4, mode="circular"), kernel, groups=3)
    return clean + sigma * noise


def chroma_subsampled(clean: Tensor, generator: Generator) -> Tensor:
    """Camera noise whose colour part was stored at half resolution (4:2:0), often the stronger part."""
    base = poisson_gaussian if _uniform(generator, 0, 1) < 0.5 else gaussian
    noise = base(clean, generator) - clean
    yuv = torch.einsum("ij,tjhw->tihw", _RGB_TO_YUV, noise)
    chroma = F.interpolate(F.avg_pool2d(yuv[:, 1:], 2), scale_factor=2, mode="bilinear", align_corners=False)
    yuv = torch.cat([yuv[:, :1], chroma * _uniform(generator, 1.0, 2.0)], 1)
    return clean + torch.einsum("ij,tjhw->tihw", torch.linalg.inv(_RGB_TO_YUV), yuv)


def luma(clean: Tensor, generator: Generator) -> Tensor:
    """Noise (nearly) equal in red, green and blue, as gray footage and filtered chroma have it.

    A network that has only seen independent channels takes such noise for texture.
    """
    base = (poisson_gaussian, gaussian, correlated)[int(_uniform(generator, 0, 3))]
    noise = base(clean, generator) - clean
    common = noise.sum(1, keepdim=True) / 3**0.5
    return clean + common + (noise - common / 3**0.5) * _uniform(generator, 0.0, 0.4) ** 2


def salt_and_pepper(clean: Tensor, generator: Generator) -> Tensor:
    """Dead samples, black or white, up to 2 %, over light Gaussian noise."""
    noisy = add_gaussian(clean, _uniform(generator, 0, 15) / 255, generator)
    density = _uniform(generator, 0.0005, 0.02)
    chance = torch.rand(clean[:, :1].shape, generator=generator)
    return torch.where(chance < density / 2, 0.0, torch.where(chance > 1 - density / 2, 1.0, noisy))


def banding(clean: Tensor, generator: Generator) -> Tensor:
    """Row noise of a sensor's read-out over Poisson-Gaussian noise."""
    rows = torch.randn(clean.shape[0], 1, clean.shape[2], 1, generator=generator)
    return poisson_gaussian(clean, generator) + rows * _uniform(generator, 0.5, 5) / 255


def compressed(clean: Tensor, generator: Generator) -> Tensor:
    """Camera noise after lossy compression with 4:2:0 chroma (JPEG, quality 40 to 95)."""
    base = (poisson_gaussian, gaussian, chroma_subsampled)[int(_uniform(generator, 0, 3))]
    pictures = (base(clean, generator).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    quality = int(_uniform(generator, 40, 95))
    decoded = []
    for picture in pictures:
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert picture is not None  # OpenCV reads what it has just written
        decoded.append(picture[..., ::-1])
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255


NOISES: dict[str, Noise] = {
    "none": none,
    "gaussian": gaussian,
    "poisson_gaussian": poisson_gaussian,
    "correlated": correlated,
    "chroma_subsampled": chroma_subsampled,
    "luma": luma,
    "salt_and_pepper": salt_and_pepper,
    "banding": banding,
    "compressed": compressed,
}
"""Noise types by the names that training configurations use."""
