"""The network's contracts: exact transforms, flow convention, causality, explicit state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from support.networks import TINY, noisy_frames, scene
from support.tolerances import FLOW_MEDIAN
from vidnoise.evaluation.cost import kilo_macs
from vidnoise.model import TIERS, DenoiseNetwork, ModelConfig, uniform_sigma
from vidnoise.model.flow import estimate_motion
from vidnoise.model.fusion import LEAST_PREDICTED, TemporalFusion
from vidnoise.model.luma_chroma import bands_to_rgb, luma_chroma_to_rgb, per_channel, rgb_to_bands, rgb_to_luma_chroma
from vidnoise.model.network import LIMIT, scaled
from vidnoise.model.state import UNKNOWN, Future, reset_unless
from vidnoise.model.warp import outside, resize_flow, sampling_grid, warp
from vidnoise.model.wavelet import haar, inverse_haar, per_band
from vidnoise.weights import load_model


@pytest.fixture
def network() -> DenoiseNetwork:
    torch.manual_seed(0)
    return DenoiseNetwork(TINY).eval().requires_grad_(False)


def run(network: DenoiseNetwork, frames: torch.Tensor, sigma: float = 0.1) -> list[torch.Tensor]:
    state = network.initial_state(frames.shape[1], *frames.shape[-2:])
    outputs = []
    for frame in frames:
        clean, state, _ = network(frame, uniform_sigma(sigma, frame), state)
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


def test_luma_and_chroma_are_a_rotation() -> None:
    image = torch.rand(2, 3, 12, 20)
    turned = rgb_to_luma_chroma(image)
    torch.testing.assert_close(turned.square().sum(1), image.square().sum(1))
    torch.testing.assert_close(luma_chroma_to_rgb(turned), image)
    torch.testing.assert_close(turned[:, 0] / 3**0.5, image.mean(1))
    gray = rgb_to_luma_chroma(image[:, :1].expand(-1, 3, -1, -1))
    assert gray[:, 1:].abs().max() < 1e-6
    noise = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(2)) * 0.1
    deviations = rgb_to_bands(noise).std((0, 2, 3))
    torch.testing.assert_close(deviations, torch.full((12,), 0.1), rtol=0.015, atol=0)


def test_bands_are_inverted_and_hold_the_picture_at_half_size() -> None:
    image = torch.rand(2, 3, 12, 20)
    bands = rgb_to_bands(image)
    torch.testing.assert_close(bands_to_rgb(bands), image)
    half = torch.nn.functional.avg_pool2d(image, 2)
    torch.testing.assert_close(luma_chroma_to_rgb(bands[:, :3] / 2), half)


def test_gains_are_spread_over_luma_and_chroma() -> None:
    groups = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    assert per_channel(groups).flatten().tolist() == [1.0, 2.0, 2.0, 3.0, 4.0, 4.0]


def test_a_boost_raises_levels_also_where_none_was_found() -> None:
    level = torch.full((1, 6, 2, 2), 0.02)
    level[..., 0] = 0
    assert scaled(level, 1.0) is level
    twice = scaled(level, 2.0)
    torch.testing.assert_close(twice[..., 1], torch.full((1, 6, 2), 0.04 + 2 / 255))
    torch.testing.assert_close(twice[..., 0], torch.full((1, 6, 2), 2 / 255))
    chroma = scaled(level, torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(chroma[:, [0, 3]], level[:, [0, 3]])
    torch.testing.assert_close(chroma[:, [1, 2, 4, 5]], twice[:, [1, 2, 4, 5]])


def test_per_band_spreads_low_and_detail() -> None:
    levels = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).view(1, 6, 1, 1)
    assert per_band(levels).flatten().tolist() == [1.0, 2.0, 3.0] + [4.0, 5.0, 6.0] * 3


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
    previous = scene(96, 128).mean(1, keepdim=True)
    truth = torch.tensor(shift).view(1, 2, 1, 1).expand(1, 2, 96, 128)
    current = warp(previous, sampling_grid(truth), mode="bicubic")
    noise = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(5)).mean(1, keepdim=True)
    noise *= level / 2  # half of it at 1/2 resolution
    motion = estimate_motion(current + noise, previous, torch.full((1, 1, 96, 128), level))
    inside = (slice(None), slice(None), slice(16, -16), slice(20, -20))
    error = (motion.found - truth)[inside].norm(dim=1)
    assert error.median() < FLOW_MEDIAN
    if level < 0.1:  # under strong noise half a pixel is not sure enough to act upon
        assert (motion.flow - truth)[inside].norm(dim=1).median() < FLOW_MEDIAN


def test_nothing_moves_where_nothing_moves() -> None:
    """Noise alone makes no motion, nor does a picture without detail, nor a past that is not known."""
    previous = scene(64, 64).mean(1, keepdim=True)
    noise = 0.05 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(6)).mean(1, keepdim=True)
    still = estimate_motion(previous + noise, previous, torch.full((1, 1, 64, 64), 0.1))
    assert still.flow.norm(dim=1).mean() < 0.02
    flat = torch.full_like(previous, 0.5)
    assert estimate_motion(flat + noise, flat, torch.full((1, 1, 64, 64), 0.1)).flow.abs().max() < 1e-3
    unknown = estimate_motion(previous, torch.zeros_like(previous), torch.full((1, 1, 64, 64), 0.1)).flow
    assert not unknown.any()


def test_two_motions_are_told_apart() -> None:
    """A square that moves over a background that moves the other way."""
    current, other = (scene(96, 96, seed=seed).mean(1, keepdim=True) for seed in (4, 9))
    inside = torch.zeros(1, 1, 96, 96)
    inside[..., 32:64, 32:64] = 1
    flows = torch.empty(1, 2, 96, 96), torch.empty(1, 2, 96, 96)
    for flow, dx in zip(flows, (-3.0, 2.0), strict=True):  # what is here now was there before
        flow[:, 0], flow[:, 1] = dx, 0.0
    before_mask = warp(inside, sampling_grid(-flows[0]))
    before = warp(other, sampling_grid(-flows[0])) * before_mask
    before = before + warp(current, sampling_grid(-flows[1])) * (1 - before_mask)
    now = other * inside + current * (1 - inside)
    found = estimate_motion(now, before, torch.full((1, 1, 96, 96), 0.02)).flow
    assert found[0, 0, 44:52, 44:52].median().item() == pytest.approx(-3, abs=0.3)
    assert found[0, 0, 8:24, 40:80].median().item() == pytest.approx(2, abs=0.3)


def test_fusion_averages_a_static_scene_like_a_kalman_filter() -> None:
    """With no misalignment the gain after n frames is 1/n, so noise falls like 1/sqrt(n)."""
    fusion = TemporalFusion(8)
    for parameter in fusion.parameters():
        torch.nn.init.zeros_(parameter)
    fusion.misalignment[-1].bias.data.fill_(-100.0)  # e = exp(-8), the least the filter admits
    frames = [torch.full((1, 12, 4, 4), float(i)) for i in range(1, 6)]
    fused, ratio = torch.zeros(1, 12, 4, 4), torch.full((1, 4, 4, 4), UNKNOWN)
    for frame in frames:
        found = fusion(frame, fused, torch.zeros(1, 3, 4, 4), torch.full((1, 6, 4, 4), 0.1), ratio)
        torch.testing.assert_close(found.predicted, fused)
        fused, ratio = found.estimate, found.gain
    torch.testing.assert_close(ratio, torch.full((1, 4, 4, 4), 0.2), rtol=0.01, atol=0)
    torch.testing.assert_close(fused, torch.full((1, 12, 4, 4), 3.0), rtol=0.01, atol=0)


def test_output_does_not_depend_on_later_frames(network: DenoiseNetwork) -> None:
    frames = noisy_frames(4)
    other = frames.clone()
    other[3] = 0.5
    for a, b in zip(run(network, frames)[:3], run(network, other)[:3], strict=True):
        assert torch.equal(a, b)


def test_a_fresh_state_knows_nothing(network: DenoiseNetwork) -> None:
    """What a state held before ``reset_unless(False)`` leaves no trace."""
    frames = noisy_frames(3)
    state = network.initial_state(1, 32, 48)
    for frame in frames[:2]:
        _, state, _ = network(frame, uniform_sigma(0.1, frame), state)
    sigma = uniform_sigma(0.1, frames[2])
    fresh = network(frames[2], sigma, network.initial_state(1, 32, 48))[0]
    assert torch.equal(network(frames[2], sigma, reset_unless(state, torch.tensor(False)))[0], fresh)
    assert not torch.equal(network(frames[2], sigma, reset_unless(state, torch.tensor(True)))[0], fresh)


def test_streams_in_a_batch_do_not_mix() -> None:
    # The motion of what an untrained network puts out is chaos: rounding alone moves it.
    network = load_model("fast").network
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
    for wrong in (
        {"widths": (8,)},
        {"widths": (8, 8)},
        {"blocks": (1, 1, 1)},
        {"widths": (8,) * 4, "blocks": (1,) * 7},
    ):
        with pytest.raises(ValueError, match="2 widths and 3 numbers of blocks"):
            ModelConfig.from_dict({**TINY.to_dict(), **wrong})
    old = {k: v for k, v in TINY.to_dict().items() if k != "separable"}
    assert ModelConfig.from_dict(old) == TINY  # files from before this setting


TWO_SCALES = {"widths": (8, 8), "blocks": (0, 1, 0)}


@pytest.mark.parametrize("change", [{}, {"separable": True}, TWO_SCALES], ids=["plain", "separable", "two-scales"])
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


def looked_at(network: DenoiseNetwork, frames: torch.Tensor, sigma: torch.Tensor) -> list[Future]:
    """What a scout leaves at each frame."""
    scout, futures = network.initial_scout(1, *frames.shape[-2:]), []
    for frame in frames.flip(0):
        future, scout = network.predict(frame, sigma, scout)
        futures.append(future)
    return futures[::-1]


def test_of_the_last_frame_the_future_says_nothing(network: DenoiseNetwork) -> None:
    frames = noisy_frames(3)
    sigma = uniform_sigma(0.1, frames[0])
    futures = looked_at(network, frames, sigma)
    assert futures[2].ratio.min() >= UNKNOWN
    assert futures[0].ratio.median() < 2
    state = network.initial_state(1, 32, 48)
    alone, ahead = (network(frames[2], sigma, state, future)[0] for future in (None, futures[2]))
    # What nobody knows still counts for a thousandth.
    torch.testing.assert_close(ahead, alone, rtol=0, atol=2e-3)


def test_both_ways_add_up_like_kalman_filters(network: DenoiseNetwork) -> None:
    """On a scene that stands still, with a misalignment of nothing, n frames before and m after count as n + m + 1."""
    for parameter in network.fusion.parameters():
        torch.nn.init.zeros_(parameter)
    network.fusion.misalignment[-1].bias.data.fill_(-100.0)
    network.estimate_motion = lambda noisy, *_: estimate_motion(noisy, noisy, torch.ones_like(noisy))
    frames = torch.stack([torch.full((1, 3, 32, 48), 0.1 * i) for i in range(1, 6)])
    sigma = uniform_sigma(0.1, frames[0])
    futures = looked_at(network, frames, sigma)
    state = network.initial_state(1, 32, 48)
    for n, (frame, future) in enumerate(zip(frames, futures, strict=True)):
        _, state, trace = network(frame, sigma, state, future)
        expected = 1 / (1 / max(1 / (n + 1), 0.1) + 1 / max(1 / (4 - n), LEAST_PREDICTED)) if n < 4 else 0.2
        torch.testing.assert_close(trace.ratio[:, 2:], torch.full_like(trace.ratio[:, 2:], expected), rtol=0.01, atol=0)
        mean = bands_to_rgb(trace.fused).mean()
        torch.testing.assert_close(mean, torch.tensor(0.3), rtol=0.01, atol=0)


@pytest.mark.parametrize(("tier", "limit"), [("fast", 9.0), ("standard", 26.0), ("quality", 90.0)])
def test_tiers_keep_to_their_cost(tier: str, limit: float) -> None:
    assert kilo_macs(TIERS[tier]) <= limit
