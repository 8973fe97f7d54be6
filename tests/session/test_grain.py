"""Fresh grain: as strong and as coarse as the noise removed, new in each frame, and only where there was noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from support.grain import noise
from support.streams import denoise, frames, values
from vidnoise.errors import UsageError
from vidnoise.model import DenoiseNetwork
from vidnoise.options import DenoiseOptions
from vidnoise.session.grain import GrainSynthesis

FLAT = torch.full((1, 3, 128, 192), 0.5)


def correlation(x: Tensor, lag: int) -> float:
    a, b = x[..., lag:], x[..., :-lag]
    return float((a * b).mean() / x.square().mean())


def grain_of(removed: Tensor, amount: float = 1.0, n_frames: int = 4, seed: int = 0) -> list[Tensor]:
    synthesis = GrainSynthesis(amount, seed)
    return [synthesis.fresh(FLAT + removed, -removed) for _ in range(n_frames)]


@pytest.mark.parametrize("amount", [0.5, 1.0])
@pytest.mark.parametrize("blur", [1, 3])
def test_it_is_as_strong_and_as_coarse(amount, blur):
    removed = noise(blur=blur)
    grain = grain_of(removed, amount)[-1]
    assert float(grain.std()) == pytest.approx(amount * 0.05, rel=0.1)
    for lag in (1, 2):
        assert correlation(grain, lag) == pytest.approx(correlation(removed, lag), abs=0.07)


def test_colour_and_brightness_keep_their_own_strength():
    removed = noise(0.02, shape=(1, 1, 128, 192)).expand(1, 3, -1, -1)  # gray noise
    grain = grain_of(removed)[-1]
    assert (grain.amax(1) - grain.amin(1)).max() < 1e-3
    assert float(grain.std()) == pytest.approx(0.02, rel=0.1)


def test_it_is_new_in_each_frame_and_the_same_for_the_same_seed():
    removed = noise()
    first, second = grain_of(removed)[-2:]
    assert abs(float((first * second).mean() / first.square().mean())) < 0.02
    assert all(torch.equal(a, b) for a, b in zip(grain_of(removed), grain_of(removed), strict=True))
    assert not torch.equal(grain_of(removed)[0], grain_of(removed, seed=1)[0])


def test_still_graphics_get_none():
    removed = noise()
    removed[..., 40:88, 64:128] = 0  # a logo, untouched
    grain = grain_of(removed)[-1]
    assert grain[..., 48:80, 72:120].abs().max() == 0
    assert float(grain[..., :32, :].std()) == pytest.approx(0.05, rel=0.1)


def test_it_follows_the_brightness_that_the_noise_depends_on():
    removed = noise()
    removed[..., :96] *= 0.25
    grain = grain_of(removed)[-1]
    assert float(grain[..., 8:80].std()) == pytest.approx(0.0125, rel=0.15)
    assert float(grain[..., 112:].std()) == pytest.approx(0.05, rel=0.15)


def test_tiny_pictures_get_white_grain():
    assert torch.isfinite(GrainSynthesis(1).fresh(FLAT[..., :5, :7], noise(shape=(1, 3, 5, 7)))).all()


@pytest.mark.parametrize("amount", [-0.1, 2.5])
def test_amounts_out_of_range(amount):
    with pytest.raises(UsageError, match="grain_seed must be a number of 64 bits"):
        DenoiseOptions(grain=1.0, grain_seed=10**30)
    with pytest.raises(UsageError, match="grain must be between 0 and 2"):
        DenoiseOptions(grain=amount)


def test_nothing_removed_is_still_identical(network: DenoiseNetwork):
    stream = frames(2, 48, 64)
    assert all(
        torch.equal(values(a), b) for a, b in zip(stream, denoise(network, stream, strength=0, grain=1), strict=True)
    )
    mask = torch.zeros(48, 64)
    mask[:, 32:] = 1
    for a, b in zip(stream, denoise(network, stream, mask=mask, grain=1), strict=True):
        assert torch.equal(values(a)[..., :32], b[..., :32])


def test_grain_comes_on_top_of_the_clean_picture(network: DenoiseNetwork):
    stream = frames(3, 96, 128)
    clean, grainy = denoise(network, stream), denoise(network, stream, grain=1)
    for source, a, b in zip(stream, clean, grainy, strict=True):
        removed, added = values(source) - a, b - a
        assert float(added.std()) == pytest.approx(float(removed.std()), rel=0.25)
        assert abs(float((removed * added).mean())) < 0.1 * float(removed.square().mean())
