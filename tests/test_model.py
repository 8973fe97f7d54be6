"""The network's contracts: exact transforms, flow convention, causality, explicit state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tolerances import FLOW_MEDIAN
from vidnoise.evaluation.cost import kilo_macs
from vidnoise.model import TIERS, DenoiseNetwork, ModelConfig, uniform_sigma
from vidnoise.model.flow import estimate_motion, outside, resize_flow, sampling_grid, warp
from vidnoise.model.network import LIMIT, UNKNOWN, TemporalFusion
from vidnoise.model.wavelet import TRANSFORMS, haar, inverse_haar, per_band
from vidnoise.weights import load_model

TINY = ModelConfig(
    widths=(8, 8, 8),
    blocks=(0, 1, 1, 0, 0),
    hidden=4,
    fusion_width=8,
    noise_width=4,
)


@pytest.fixture
def network() -> DenoiseNetwork:
    torch.manual_seed(0)
    return DenoiseNetwork(TINY).eval().requires_grad_(False)


def scene(height: int, width: int, *, seed: int = 4) -> torch.Tensor:
    """A picture ``(1, 3, height, width)`` with detail at all scales."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, height, width)
    for scale in (4, 8, 16, 32):
        coarse = torch.rand(1, 3, height // scale + 2, width // scale + 2, generator=generator)
        picture += torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic") / 4
    return picture


def noisy_frames(n: int, height: int = 32, width: int = 48) -> torch.Tensor:
    """A scene that moves by a pixel a frame, ``(n, 1, 3, height, width)``."""
    wide = scene(height, width + n)
    clean = torch.stack([wide[..., i : i + width] for i in range(n)])
    return clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))


def run(network: DenoiseNetwork, frames: torch.Tensor, sigma: float = 0.1) -> list[torch.Tensor]:
    state = network.initial_state(frames.shape[1], *frames.shape[-2:])
    outputs = []
    for frame in frames:
        clean, state = network(frame, uniform_sigma(sigma, frame), state)
        outputs.append(clean)
    return outputs


def test_haar_is_orthonormal_and_inverted() -> None:
    image = torch.rand(2, 3, 12, 20)
    bands = haar(image)
    assert bands.shape == (2, 12, 6, 10)
    torch.testing.assert_close(bands.square().sum(), image.square().sum())
    torch.testing.assert_close(inverse_haar(bands), image)


def test_haar_keeps_white_noise_white() -> None:
    noise = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(2)) * 0.1
    deviations = haar(noise).std((0, 2, 3))
    # 65,536 samples a band: the standard error of a deviation is 0.3 %.
    torch.testing.assert_close(deviations, torch.full((12,), 0.1), rtol=0.015, atol=0)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_is_inverted_and_knows_half_size_and_levels(name: str) -> None:
    transform = TRANSFORMS[name]
    image = torch.rand(2, 3, 12, 20)
    bands = transform.forward(image)
    torch.testing.assert_close(transform.inverse(bands), image)
    torch.testing.assert_close(transform.half(bands), torch.nn.functional.avg_pool2d(image, 2))
    # Noise of deviation 0.1 in the low-pass and 0.2 in the details, made in the Haar domain.
    levels = torch.cat([torch.full((1, 3, 64, 64), 0.1), torch.full((1, 3, 64, 64), 0.2)], 1)
    noise = torch.randn(1, 12, 64, 64, generator=torch.Generator().manual_seed(3)) * per_band(levels)
    measured = transform.forward(inverse_haar(noise)).std((2, 3))
    expected = per_band(transform.levels(levels)).mean((2, 3))
    # 4,096 samples a band: the standard error of a deviation is 1.1 %.
    torch.testing.assert_close(measured, expected, rtol=0.05, atol=0)


def test_per_band_spreads_low_and_detail() -> None:
    levels = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    assert per_band(levels).flatten().tolist() == [1.0] * 3 + [2.0] * 9


def test_warp_samples_where_the_flow_points() -> None:
    image = torch.rand(1, 3, 16, 20)
    flow = torch.empty(1, 2, 16, 20)
    flow[:, 0], flow[:, 1] = 3.0, -2.0
    for mode in ("bilinear", "bicubic"):
        moved = warp(image, sampling_grid(flow), mode=mode)
        torch.testing.assert_close(moved[..., 2:, :-3], image[..., :-2, 3:], rtol=0, atol=1e-4)


def test_outside_marks_samples_beyond_the_frame() -> None:
    flow = torch.zeros(1, 2, 8, 10)
    assert not outside(sampling_grid(flow)).any()
    flow[:, 0] = 4
    mask = outside(sampling_grid(flow))[0, 0]
    assert not mask[:, :6].any()
    assert mask[:, 7:].all()


def test_resize_flow_scales_vectors() -> None:
    flow = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(resize_flow(flow, 2), torch.full((1, 2, 16, 16), 2.0))
    torch.testing.assert_close(resize_flow(flow, 0.5), torch.full((1, 2, 4, 4), 0.5))


@pytest.mark.parametrize("shift", [(0.5, 0.0), (-1.5, 1.0), (6.0, -3.0), (13.0, 9.0)])
@pytest.mark.parametrize("level", [0.02, 0.12])
def test_motion_is_found_under_noise(shift: tuple[float, float], level: float) -> None:
    previous = scene(96, 128)
    truth = torch.tensor(shift).view(1, 2, 1, 1).expand(1, 2, 96, 128)
    current = warp(previous, sampling_grid(truth), mode="bicubic")
    noise = level / 2 * torch.randn(current.shape, generator=torch.Generator().manual_seed(5))  # half of it at 1/2
    motion = estimate_motion(current + noise, previous, torch.full((1, 3, 96, 128), level))
    inside = (slice(None), slice(None), slice(16, -16), slice(20, -20))
    error = (motion.found - truth)[inside].norm(dim=1)
    assert error.median() < FLOW_MEDIAN
    if level < 0.1:  # under strong noise half a pixel is not sure enough to act upon
        assert (motion.flow - truth)[inside].norm(dim=1).median() < FLOW_MEDIAN


def test_nothing_moves_where_nothing_moves() -> None:
    """Noise alone makes no motion, nor does a picture without detail, nor a past that is not known."""
    previous = scene(64, 64)
    noise = 0.05 * torch.randn(previous.shape, generator=torch.Generator().manual_seed(6))
    still = estimate_motion(previous + noise, previous, torch.full((1, 3, 64, 64), 0.1))
    assert still.flow.norm(dim=1).mean() < 0.02
    flat = torch.full_like(previous, 0.5)
    assert estimate_motion(flat + noise, flat, torch.full((1, 3, 64, 64), 0.1)).flow.abs().max() < 1e-3
    unknown = estimate_motion(previous, torch.zeros_like(previous), torch.full((1, 3, 64, 64), 0.1)).flow
    assert not unknown.any()


def test_two_motions_are_told_apart() -> None:
    """A square that moves over a background that moves the other way."""
    current, other = scene(96, 96), scene(96, 96, seed=9)
    inside = torch.zeros(1, 1, 96, 96)
    inside[..., 32:64, 32:64] = 1
    flows = torch.empty(1, 2, 96, 96), torch.empty(1, 2, 96, 96)
    for flow, dx in zip(flows, (-3.0, 2.0), strict=True):  # what is here now was there before
        flow[:, 0], flow[:, 1] = dx, 0.0
    before_mask = warp(inside, sampling_grid(-flows[0]))
    before = warp(other, sampling_grid(-flows[0])) * before_mask
    before = before + warp(current, sampling_grid(-flows[1])) * (1 - before_mask)
    now = other * inside + current * (1 - inside)
    found = estimate_motion(now, before, torch.full((1, 3, 96, 96), 0.02)).flow
    assert found[0, 0, 44:52, 44:52].median().item() == pytest.approx(-3, abs=0.3)
    assert found[0, 0, 8:24, 40:80].median().item() == pytest.approx(2, abs=0.3)


def test_fusion_averages_a_static_scene_like_a_kalman_filter() -> None:
    """With no misalignment the gain after n frames is 1/n, so noise falls like 1/sqrt(n)."""
    fusion = TemporalFusion(8)
    for parameter in fusion.parameters():
        torch.nn.init.zeros_(parameter)
    fusion.misalignment[-1].bias.data.fill_(-100.0)  # e = exp(-8), the least the filter admits
    frames = [torch.full((1, 12, 4, 4), float(i)) for i in range(1, 6)]
    fused, ratio = torch.zeros(1, 12, 4, 4), torch.full((1, 2, 4, 4), UNKNOWN)
    for frame in frames:
        fused, ratio = fusion(frame, fused, torch.zeros(1, 3, 4, 4), torch.full((1, 6, 4, 4), 0.1), ratio)
    torch.testing.assert_close(ratio, torch.full((1, 2, 4, 4), 0.2), rtol=0.01, atol=0)
    torch.testing.assert_close(fused, torch.full((1, 12, 4, 4), 3.0), rtol=0.01, atol=0)


def test_output_does_not_depend_on_later_frames(network: DenoiseNetwork) -> None:
    frames = noisy_frames(4)
    other = frames.clone()
    other[3] = 0.5
    for a, b in zip(run(network, frames)[:3], run(network, other)[:3], strict=True):
        assert torch.equal(a, b)


def test_a_fresh_state_knows_nothing(network: DenoiseNetwork) -> None:
    """What a state held before ``keep(False)`` leaves no trace."""
    frames = noisy_frames(3)
    state = network.initial_state(1, 32, 48)
    for frame in frames[:2]:
        _, state = network(frame, uniform_sigma(0.1, frame), state)
    sigma = uniform_sigma(0.1, frames[2])
    fresh = network(frames[2], sigma, network.initial_state(1, 32, 48))[0]
    assert torch.equal(network(frames[2], sigma, state.keep(torch.tensor(False)))[0], fresh)
    assert not torch.equal(network(frames[2], sigma, state.keep(torch.tensor(True)))[0], fresh)


def test_streams_in_a_batch_do_not_mix() -> None:
    network, _ = load_model("fast")  # the motion of what an untrained one puts out is chaos: rounding alone moves it
    frames = noisy_frames(3)
    both = torch.cat([frames, frames.flip(0)], dim=1)
    together = run(network, both)
    apart = run(network, frames)
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a[:1], b, rtol=0, atol=1e-5)


def test_sigma_near_zero_is_near_identity(network: DenoiseNetwork) -> None:
    frame = noisy_frames(1)[0]
    clean = run(network, frame[None], sigma=0.0)[0]
    # The residual is scaled by sigma, whose floor is a quarter of an 8-bit step, and made of bounded inputs.
    assert (clean - frame).abs().max() < 2 * LIMIT * 0.25 / 255


def test_config_round_trip_is_strict() -> None:
    for config in TIERS.values():
        assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown model settings: depth"):
        ModelConfig.from_dict({**TINY.to_dict(), "depth": 3})
    with pytest.raises(ValueError, match="incomplete"):
        ModelConfig.from_dict({"hidden": 4})
    with pytest.raises(ValueError, match="unknown transform"):
        ModelConfig.from_dict({**TINY.to_dict(), "transform": "fourier"})
    old = {k: v for k, v in TINY.to_dict().items() if k not in ("transform", "separable")}
    assert ModelConfig.from_dict(old) == TINY  # files from before these settings


@pytest.mark.parametrize("change", [{"transform": "unshuffle"}, {"separable": True}])
def test_variants_obey_the_contracts(change: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = DenoiseNetwork(replace(TINY, **change)).eval().requires_grad_(False)  # type: ignore[arg-type]
    frames = noisy_frames(3)
    outputs = run(network, frames)
    sigma = uniform_sigma(0.1, frames[0])
    # A past that nobody knows still counts for a thousandth (UNKNOWN).
    torch.testing.assert_close(network.still(frames[0], sigma), outputs[0], rtol=0, atol=2e-3)
    assert all(output.isfinite().all() for output in outputs)
    assert (run(network, frames[:1], sigma=0.0)[0] - frames[0]).abs().max() < 2 * LIMIT * 0.25 / 255


@pytest.mark.parametrize(("tier", "limit"), [("fast", 10.0), ("standard", 32.0), ("quality", 240.0)])
def test_tiers_keep_to_their_cost(tier: str, limit: float) -> None:
    assert kilo_macs(TIERS[tier]) <= limit
