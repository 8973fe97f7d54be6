"""The blind noise level of the shipped models: right, steady, and not fooled by what is no noise."""

from __future__ import annotations

import pytest
import torch

from support import tolerances
from support.scenes import scene
from vidnoise.evaluation.protocol import noisy_clip
from vidnoise.weights import load_model

NAMES = ("fast", "standard")


@torch.no_grad()
def levels(name: str, frames: torch.Tensor) -> torch.Tensor:
    """Estimated maps ``(T, H/2, W/2)`` in 8-bit units over a stream, mean over channels and bands."""
    network = load_model(name).network
    memory = network.initial_state(1, *frames.shape[-2:]).memory
    maps = []
    for frame in frames:
        sigma, memory = network.estimate_sigma(frame[None], memory)
        low, detail = sigma[0].square().chunk(2)
        maps.append(((low + 3 * detail) / 4).mean(0).sqrt() * 255)
    return torch.stack(maps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma", [5, 10, 25, 50])
def test_white_noise_is_measured(name: str, sigma: int) -> None:
    found = levels(name, noisy_clip("n", scene(4, 128), sigma))[-1].mean().item()
    assert found == pytest.approx(sigma, rel=tolerances.NOISE_LEVEL)


@pytest.mark.parametrize("name", NAMES)
def test_bars_do_not_hide_the_noise(name: str) -> None:
    noisy = noisy_clip("n", scene(4, 128), 25)
    noisy[:, :, :32] = noisy[:, :, -32:] = 0
    found = levels(name, noisy)[-1]
    assert found[20:44].mean().item() == pytest.approx(25, rel=2 * tolerances.NOISE_LEVEL)
    assert found[:10].mean() < 5
    assert found[-10:].mean() < 5


@pytest.mark.parametrize("name", NAMES)
def test_a_still_panel_is_left_alone(name: str) -> None:
    noisy = noisy_clip("n", scene(6, 128), 25)
    noisy[..., 16:80, 16:80] = torch.tensor([0.1, 0.3, 0.7]).view(3, 1, 1)
    found = levels(name, noisy)[-1]
    assert found[14:34, 14:34].mean() < 5
    assert found[48:, 48:].mean().item() == pytest.approx(25, rel=2 * tolerances.NOISE_LEVEL)


@pytest.mark.parametrize("name", NAMES)
def test_texture_is_no_noise(name: str) -> None:
    """Fine texture under a camera that stands or pans, without any noise."""
    generator = torch.Generator().manual_seed(0)
    grain = torch.rand(1, 3, 128, 160, generator=generator).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    grain = torch.nn.functional.avg_pool2d(grain, 3, stride=1, padding=1)
    textured = (0.6 * scene(1, 160)[:, :, :128] + 0.8 * (grain - 0.3)).clamp(0, 1)
    still = textured[..., :128].expand(6, -1, -1, -1)
    assert levels(name, still)[-1].mean() < tolerances.TEXTURE_LEVEL


@pytest.mark.parametrize("name", NAMES)
def test_blown_highlights_do_not_hide_the_noise(name: str) -> None:
    clean = scene(4, 128) * 0.7
    clean[..., 64:] = 1.3
    noisy = noisy_clip("n", clean, 25).clamp(0, 1)
    found = levels(name, noisy)[-1]
    assert found[:, 4:28].mean().item() == pytest.approx(25, rel=2 * tolerances.NOISE_LEVEL)


@pytest.mark.parametrize("name", NAMES)
def test_the_level_is_steady_and_follows_a_change(name: str) -> None:
    clean = scene(24, 96, speed=1)
    noisy = torch.cat([noisy_clip("a", clean[:14], 15), noisy_clip("b", clean[14:], 35)])
    found = levels(name, noisy).mean((1, 2))
    settled = found[6:14]
    assert settled.std() < 0.03 * settled.mean()
    assert found[-1] > 1.7 * settled.mean()
