"""Moments of the synthetic noise."""

from __future__ import annotations

import pytest
import torch

from vidnoise.noise import NOISES, add_gaussian, correlated


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gaussian_has_the_stated_deviation_and_is_not_clipped() -> None:
    clean = torch.zeros(2, 3, 64, 64)
    noise = add_gaussian(clean, 0.2, generator())
    assert noise.mean().abs() < 0.005  # 5 standard errors of 24,576 samples
    assert abs(noise.std() - 0.2) < 0.005
    assert noise.min() < 0


@pytest.mark.parametrize("name", sorted(set(NOISES) - {"none"}))
def test_every_type_is_reproducible_and_adds_noise(name: str) -> None:
    clean = torch.full((3, 3, 32, 32), 0.4)
    # Strength is drawn at random, and compression wipes out weak noise: look at several draws.
    noisy = max((NOISES[name](clean, generator(seed)) for seed in range(8)), key=lambda x: (x - clean).std().item())
    assert noisy.shape == clean.shape
    assert noisy.dtype == torch.float32
    assert torch.isfinite(noisy).all()
    assert (noisy - clean).std() > 2 / 255
    assert not torch.equal(noisy[0], noisy[1])  # new noise in every frame
    assert torch.equal(NOISES[name](clean, generator(3)), NOISES[name](clean, generator(3)))


def test_photon_noise_grows_with_light() -> None:
    """In linear light the variance is affine in the signal; here it is seen after the gamma curve."""
    ratios = []
    for seed in range(12):
        dark, bright = (NOISES["poisson_gaussian"](torch.full((1, 3, 64, 64), v), generator(seed)) for v in (0.3, 0.7))
        linear = [(x**2.2).std().item() for x in (dark, bright)]
        ratios.append(linear[1] / linear[0])
    assert min(ratios) > 0.99
    assert max(ratios) > 1.5


def test_correlated_noise_is_smoother_than_white() -> None:
    noise = correlated(torch.zeros(4, 3, 64, 64), generator(1))
    lag = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert lag > 0.05
