"""What the shipped models do with the past: use it where it holds, drop it where it does not."""

from __future__ import annotations

import pytest
import torch

import tolerances
from test_evaluation import scene
from vidnoise.evaluation.metrics import psnr, temporal_error
from vidnoise.evaluation.protocol import network_method, noisy_clip
from vidnoise.weights import load_model

NAMES = ("fast", "standard", "quality")
SIGMA = 25


def run(name: str, clean: torch.Tensor, *, seed: str = "t") -> torch.Tensor:
    network, _ = load_model(name)
    return network_method(network, blind=True)(noisy_clip(seed, clean, SIGMA), SIGMA / 255).clamp(0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_still_scene_gets_cleaner_with_time(name: str) -> None:
    clean = scene(1).expand(12, -1, -1, -1)
    out = run(name, clean)
    quality = psnr(out, clean)
    assert quality[-1] > quality[0] + 1.5
    assert temporal_error(out[4:], clean[4:]) < 0.25 * temporal_error(noisy_clip("t", clean, SIGMA)[4:], clean[4:])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_trails_behind_a_moving_object(name: str) -> None:
    """Where a bright square has just been, the error is as in the first frame of a stream."""
    background = scene(1)[0]
    background = background.mean(0, keepdim=True) + 0.3 * (background - background.mean(0, keepdim=True))
    frames = []
    for t in range(10):
        frame = background.clone()
        frame[:, 36:60, 4 + 6 * t : 28 + 6 * t] = torch.tensor([0.95, 0.9, 0.2]).view(3, 1, 1)
        frames.append(frame)
    clean = torch.stack(frames)
    trail, edge, first_trail, first_edge = 0.0, 0.0, 0.0, 0.0
    for seed in "abcd":
        out = run(name, clean, seed=seed)
        for t in range(3, 10):
            first = run(name, clean[t : t + 1], seed=seed)[0]
            # Where the square was two frames ago and is not now; its own outline is apart, it is no trail.
            right = 4 + 6 * t
            area, outline = (
                (..., slice(36, 60), slice(right - 12, right - 1)),
                (..., slice(36, 60), slice(right - 1, right)),
            )
            trail += (out[t][area] - clean[t][area]).square().sum().item()
            edge += (out[t][outline] - clean[t][outline]).square().sum().item()
            first_trail += (first[area] - clean[t][area]).square().sum().item()
            first_edge += (first[outline] - clean[t][outline]).square().sum().item()
    assert trail < tolerances.TRAIL * first_trail
    assert edge < tolerances.OUTLINE * first_edge


@pytest.mark.parametrize("name", NAMES)
def test_quality_does_not_drift(name: str) -> None:
    """Over 200 frames of a camera that pans to and fro, the last pass is as good as the first."""
    there = scene(50, 64, speed=1)
    clean = torch.cat([there, there.flip(0)] * 2)
    quality = torch.stack([psnr(run(name, clean, seed=seed), clean) for seed in "ab"]).mean(0)
    assert quality[150:].mean() > quality[50:100].mean() - tolerances.DRIFT_DB


@pytest.mark.slow
def test_two_thousand_frames_do_not_drift() -> None:
    """PSNR of the last 100 frames is not below that of frames 20 to 120."""
    there = scene(50, 64, speed=1)
    clean = torch.cat([there, there.flip(0)] * 20)
    quality = psnr(run("fast", clean), clean)
    assert quality[-100:].mean() > quality[20:120].mean() - 0.05
