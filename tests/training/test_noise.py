"""Moments and spectra of the synthetic noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidnoise.training.noise import NOISES, _demosaiced, add_gaussian

NOISY = sorted(set(NOISES) - {"none"})

RANGES = {
    "gaussian": (0, 55.5), "planes": (0.3, 60), "centred_planes": (0.3, 60),
    "sensor": (0.1, 60), "correlated": (0.9, 42), "luma": (0.9, 47),
    "salt_and_pepper": (1, 80), "banding": (0.5, 60),
}  # fmt: skip
"""Least and largest deviation of a clip on middle gray, in 8-bit units."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gray(n: int, size: int = 64, level: float = 0.5, frames: int = 1) -> Tensor:
    return torch.full((n, frames, 3, size, size), level)


def noise_of(name: str, clean: Tensor, seed: int = 0) -> Tensor:
    return NOISES[name](clean, generator(seed)) - clean


def neighbours(noise: Tensor, dim: int) -> Tensor:
    """Correlation of neighbours along a dimension, by clip."""
    pairs = (noise * noise.roll(1, dim)).mean((1, 2, 3, 4))
    return pairs / noise.square().mean((1, 2, 3, 4))


def luma_and_chroma(noise: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation of Y, and of R-Y and B-Y together, by clip: by BT.601 or BT.709, whichever finds less in Y."""
    found = []
    for weights in ([0.299, 0.587, 0.114], [0.2126, 0.7152, 0.0722]):
        y = (noise * torch.tensor(weights).view(3, 1, 1)).sum(2, keepdim=True)
        found.append((y.std((1, 2, 3, 4)), (noise[:, :, ::2] - y).std((1, 2, 3, 4))))
    by_601 = found[0][0] < found[1][0]
    return tuple(torch.where(by_601, a, b) for a, b in zip(*found, strict=True))  # type: ignore[return-value]


def test_gaussian_has_the_stated_deviation_and_is_not_clipped() -> None:
    clean = torch.zeros(2, 3, 64, 64)
    noise = add_gaussian(clean, 0.2, generator())
    assert noise.mean().abs() < 0.005  # 5 standard errors of 24,576 samples
    assert abs(noise.std() - 0.2) < 0.005
    assert noise.min() < 0


@pytest.mark.parametrize("name", NOISY)
def test_every_type_is_reproducible_and_drawn_for_each_clip(name: str) -> None:
    clean = gray(24, 32, frames=2)
    noisy = NOISES[name](clean, generator(3))
    assert noisy.shape == clean.shape
    assert noisy.dtype == torch.float32
    assert noisy.isfinite().all()
    assert torch.equal(noisy, NOISES[name](clean, generator(3)))
    assert torch.equal(clean, gray(24, 32, frames=2))  # left as it was
    assert not torch.equal(noisy[:, 0], noisy[:, 1])  # new noise in every frame
    strengths = (noisy - clean).std((1, 2, 3, 4)) * 255
    assert strengths.max() > 2 * strengths.min()
    low, high = RANGES[name]
    assert strengths.min() > low
    assert strengths.max() < high


@pytest.mark.parametrize("name", [*NOISY, "none"])
def test_every_type_takes_one_clip_of_any_layout_and_content(name: str) -> None:
    clip = torch.rand(1, 2, 16, 18, 3, generator=generator()).permute(0, 1, 4, 2, 3)
    clip[..., :8, :] = 0  # black, where roots have no slope
    clip[..., 12:, :] = 1
    noisy = NOISES[name](clip, generator(1))
    assert noisy.shape == clip.shape
    assert noisy.isfinite().all()
    assert torch.equal(noisy, clip) == (name == "none")


@pytest.mark.parametrize("name", ["gaussian", "planes", "sensor", "correlated", "luma", "banding"])
def test_noise_leaves_the_mean_in_the_middle_of_the_range(name: str) -> None:
    noise = noise_of(name, gray(32))
    deviations = noise.mean((1, 2, 3, 4)).abs() / noise.std((1, 2, 3, 4))
    # Chroma smeared over 16 pixels is the most correlated: 64² pixels are as few as 100 samples of it. Rows are 64.
    assert deviations.median() < 0.08
    assert deviations.max() < 0.3


def test_in_centred_rgb_planes_keep_their_noise_to_themselves() -> None:
    """Where plain RGB has noise of U and V in the mean of its channels, too."""
    plain, centred = noise_of("planes", gray(64), 5), noise_of("centred_planes", gray(64), 5)
    luma, chroma = luma_and_chroma(plain)
    alone = luma < 0.02 * chroma
    assert alone.sum() > 3
    mean = centred.mean(2)
    assert mean[alone].abs().max() < 1e-6
    assert plain.mean(2)[alone].abs().amax((1, 2, 3)).min() > 1 / 255
    torch.testing.assert_close(centred - mean.unsqueeze(2), plain - plain.mean(2, keepdim=True), atol=1e-6, rtol=0)


def test_planes_have_chroma_from_none_to_alone_and_at_half_size() -> None:
    noise = noise_of("planes", gray(64))
    luma, chroma = luma_and_chroma(noise)
    colourless, alone = chroma < 1e-6, luma < 0.02 * chroma
    assert 4 < colourless.sum() < 28  # a fifth of 64
    assert 3 < alone.sum() < 24
    both = ~colourless & ~alone
    assert (chroma / luma)[both].max() > 1.5
    assert (chroma / luma)[both].min() < 0.5
    assert luma[~alone].min() * 255 > 1.8
    assert luma.max() * 255 < 37
    # Linearly brought up from half size, neighbours share what they have: white chroma has 0.6 and more.
    assert neighbours((noise[:, :, :1] - noise[:, :, 2:])[both], -1).min() > 0.5
    along, across = (neighbours(noise.mean(2, keepdim=True)[~alone], dim) for dim in (-1, -2))
    assert (along.abs() < 0.1).sum() > 10  # white
    assert ((along > 0.2) & (across > 0.2)).sum() > 3  # blurred
    assert ((along > 0.2) & (across.abs() < 0.15)).sum() > 3  # smeared, as by tape


def test_sensor_noise_grows_with_light_and_is_clipped_at_black() -> None:
    dark, bright = (noise_of("sensor", gray(32, level=v), seed=4) for v in (0.2, 0.6))
    # Photons: in linear light, about level ** 2.2, bright areas are noisier; the tone curve evens that out.
    slopes = [2.2 * v**1.2 for v in (0.2, 0.6)]
    ratios = bright.std((1, 2, 3, 4)) * slopes[1] / (dark.std((1, 2, 3, 4)) * slopes[0])
    assert ratios.median() > 1.2
    black = noise_of("sensor", gray(32, level=0.0), seed=4)
    lifted = black.mean((1, 2, 3, 4)) / black.std((1, 2, 3, 4))
    assert (lifted > 0.3).sum() > 16  # clipped, what is left is above
    assert ((black < 0).float().mean((1, 2, 3, 4)) > 0.2).sum() > 3  # the others have a pedestal
    assert (noise_of("sensor", gray(32, level=1.0), seed=4).mean((1, 2, 3, 4)) < 0).all()


def test_sensor_noise_is_of_any_sharpness() -> None:
    """Demosaicking and smoothing blur it; the camera's own sharpening makes neighbours differ."""
    shared = neighbours(noise_of("sensor", gray(64))[:, :, 1:2], -1)
    assert shared.max() > 0.5
    assert shared.min() < 0.25


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("phase", range(4))
def test_demosaicking_brings_back_flat_colours_and_what_was_sampled(phase: int, mix: float) -> None:
    rows, columns = torch.arange(16).view(-1, 1) % 2 == phase // 2, torch.arange(16) % 2 == phase % 2

    def mosaic(picture: Tensor) -> Tensor:
        red, green, blue = picture.unbind(2)
        samples = torch.where(rows & columns, red, torch.where(~rows & ~columns, blue, green))
        return samples.unsqueeze(2)

    share = torch.tensor(mix)
    level = torch.tensor([0.5, 0.5, 0.5]).view(1, 1, 3, 1, 1).expand(1, 1, 3, 16, 16)
    torch.testing.assert_close(_demosaiced(mosaic(level), rows, columns, share), level)
    noise = torch.randn(1, 1, 3, 16, 16, generator=generator())
    found = _demosaiced(mosaic(noise), rows, columns, share)
    assert torch.equal(mosaic(found), mosaic(noise))
    if mix == 0:  # bilinear knows nothing of other channels
        colours = torch.tensor([0.9, 0.2, 0.4]).view(1, 1, 3, 1, 1).expand(1, 1, 3, 16, 16)
        torch.testing.assert_close(_demosaiced(mosaic(colours), rows, columns, share), colours)


def test_luma_noise_is_nearly_gray_and_grain_partly() -> None:
    luma, grain = (noise_of(name, gray(32)) for name in ("luma", "correlated"))
    gray_share = [(n.mean(2).square().mean((1, 2, 3)) / n.square().mean((1, 2, 3, 4))) for n in (luma, grain)]
    assert gray_share[0].min() > 0.95
    assert gray_share[1].max() > 0.7
    assert gray_share[1].min() < 0.45  # independent channels: a third


def test_grain_is_blurred_and_at_times_weak_in_black() -> None:
    noise = noise_of("correlated", gray(32))
    shared = neighbours(noise, -1)
    assert shared.max() > 0.7
    assert shared.min() < 0.3
    assert (neighbours(noise, -2) - shared).abs().max() < 0.15  # the same both ways
    black = noise_of("correlated", gray(32, level=0.02))
    ratio = black.std((1, 2, 3, 4)) / noise.std((1, 2, 3, 4))
    assert 8 < (ratio < 0.85).sum() < 24
    torch.testing.assert_close(ratio[ratio > 0.85], torch.ones(int((ratio > 0.85).sum())))


def test_dead_samples_are_few_and_gray() -> None:
    clean = gray(16)
    noisy = NOISES["salt_and_pepper"](clean, generator())
    dead = ((noisy == 0) | (noisy == 1)).float()
    assert torch.equal(dead.amin(2), dead.amax(2))  # in all channels or none
    shares = dead.mean((1, 2, 3, 4))
    assert shares.max() < 0.025
    assert shares.min() < 0.01 < shares.max()


def test_banding_is_of_rows() -> None:
    noise = noise_of("banding", gray(16))
    rows, columns = (noise.mean((2, dim)).std((1, 2)) for dim in (4, 3))
    assert (rows > 2 * columns).sum() > 8


@pytest.mark.needs_cuda
@pytest.mark.parametrize("name", NOISY)
def test_noise_on_a_gpu_has_the_strengths_of_that_on_a_cpu(name: str) -> None:
    strengths = []
    for device in ("cpu", "cuda"):
        clean = gray(256, 32).to(device)
        noisy = NOISES[name](clean, torch.Generator(device).manual_seed(0))
        strengths.append((noisy - clean).std((1, 2, 3, 4)).cpu().sort().values)
    # Quantiles of 256 draws each.
    torch.testing.assert_close(*(s[[64, 128, 192]] for s in strengths), rtol=0.4, atol=0.3 / 255)
