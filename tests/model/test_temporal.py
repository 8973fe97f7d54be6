"""What the shipped models do with the past: use it where it holds, drop it where it does not."""

from __future__ import annotations

import functools

import pytest
import torch

from support import tolerances
from support.scenes import scene
from vidnoise.evaluation.metrics import psnr, temporal_error
from vidnoise.evaluation.protocol import network_method, noisy_clip
from vidnoise.model import DenoiseNetwork
from vidnoise.weights import load_model

NAMES = ("fast", "standard", pytest.param("quality", marks=pytest.mark.slow))
"""``quality`` takes four times as long as ``standard``, from which it is grown."""
SIGMA = 25


@functools.cache
def network_of(name: str) -> DenoiseNetwork:
    return load_model(name).network


def run(name: str, clean: torch.Tensor, *, seed: str = "t", lookahead: int = 0) -> torch.Tensor:
    method = network_method(network_of(name), blind=True, lookahead=lookahead)
    return method(noisy_clip(seed, clean, SIGMA), SIGMA / 255).clamp(0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_still_scene_gets_cleaner_with_time(name: str) -> None:
    clean = scene(1).expand(12, -1, -1, -1)
    out = run(name, clean)
    quality = psnr(out, clean)
    assert quality[-1] > quality[0] + 1.5
    assert temporal_error(out[4:], clean[4:]) < 0.25 * temporal_error(noisy_clip("t", clean, SIGMA)[4:], clean[4:])


@functools.cache
def moving_square() -> torch.Tensor:
    """A bright square that moves to the right by 6 pixels a frame over a dull background."""
    background = scene(1)[0]
    background = background.mean(0, keepdim=True) + 0.3 * (background - background.mean(0, keepdim=True))
    frames = []
    for t in range(10):
        frame = background.clone()
        frame[:, 36:60, 4 + 6 * t : 28 + 6 * t] = torch.tensor([0.95, 0.9, 0.2]).view(3, 1, 1)
        frames.append(frame)
    return torch.stack(frames)


@functools.cache
def first_frame(name: str, t: int, seed: str) -> torch.Tensor:
    """The moving square's frame ``t`` as the only one of a stream."""
    return run(name, moving_square()[t : t + 1], seed=seed)[0]


def trails(name: str, *, lookahead: int, before: bool) -> tuple[float, float]:
    """Squared error where the square was two frames ago (or will be in two), and on its outline there, each by that of
    a first frame."""
    clean = moving_square()
    errors = torch.zeros(4)
    for seed in "abcd":
        out = run(name, clean, seed=seed, lookahead=lookahead)
        for t in range(7) if before else range(3, 10):
            first = first_frame(name, t, seed)
            # Its own outline is apart: it is no trail.
            left, right = 4 + 6 * t, 28 + 6 * t
            area, outline = (slice(right + 1, right + 12), slice(right, right + 1)) if before else (
                slice(left - 12, left - 1), slice(left - 1, left)
            )  # fmt: skip
            for i, (found, columns) in enumerate(((out[t], area), (out[t], outline), (first, area), (first, outline))):
                errors[i] += (found - clean[t])[:, 36:60, columns].square().sum()
    return (errors[0] / errors[2]).item(), (errors[1] / errors[3]).item()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("lookahead", "before"), [(0, False), (9, False), (9, True)])
def test_nothing_trails_behind_a_moving_object_or_goes_before_it(name: str, lookahead: int, before: bool) -> None:
    """Where a bright square has just been, or will soon be, the error is as in the first frame of a stream."""
    trail, edge = trails(name, lookahead=lookahead, before=before)
    assert trail < tolerances.TRAIL
    assert edge < tolerances.OUTLINE


@pytest.mark.parametrize("name", NAMES)
def test_a_flash_leaves_nothing_on_either_side(name: str) -> None:
    """One frame that is much brighter, as by a photographer: no frame near it is worse than it would be alone."""
    clean = scene(9, speed=1) * 0.5
    clean[4] = clean[4] * 1.6 + 0.15
    ahead = psnr(run(name, clean, lookahead=8), clean)
    alone = torch.stack([psnr(run(name, clean[t : t + 1]), clean[t : t + 1])[0] for t in range(3, 6)])
    assert (ahead[3:6] > alone - tolerances.FLASH_DB).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_cross_fade_is_no_ghost(name: str) -> None:
    """Half-way between two scenes both are seen, as they should, and before and after it neither."""
    a, b = scene(12, speed=1), scene(12, speed=1).flip(3).flip(1)
    share = torch.linspace(-0.5, 1.5, 12).clamp(0, 1).view(-1, 1, 1, 1)
    clean = a * (1 - share) + b * share
    ahead = psnr(run(name, clean, lookahead=11), clean)
    alone = torch.stack([psnr(run(name, clean[t : t + 1]), clean[t : t + 1])[0] for t in range(12)])
    assert (ahead > alone - tolerances.FADE_DB).all()


@pytest.mark.parametrize("name", ["fast", *(pytest.param(n, marks=pytest.mark.slow) for n in ("standard", "quality"))])
def test_quality_does_not_drift(name: str) -> None:
    """Over 200 frames of a camera that pans to and fro, the last pass is as good as the first."""
    there = scene(50, 48, speed=1)
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
