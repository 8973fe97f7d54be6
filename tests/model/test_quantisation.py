"""Rounding to 8 bits: the integers are those that hardware computes with, and a file holds them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from support.networks import TINY, noisy_frames
from vidnoise.errors import WeightsError
from vidnoise.model import DenoiseNetwork, uniform_sigma
from vidnoise.model.quantisation import (
    FLOAT_PARTS,
    WEIGHT_LEVELS,
    QuantisedConv2d,
    packed,
    quantised_layers,
    set_rounding,
    unpacked,
)
from vidnoise.weights import FORMAT, ModelCard, load_model, read_card, save_model


@pytest.fixture
def network() -> DenoiseNetwork:
    torch.manual_seed(3)
    network = DenoiseNetwork(replace(TINY, quantised=True)).eval().requires_grad_(False)
    for _, layer in quantised_layers(network):
        layer.set_input_range(-1.0, 3.0)
    return network


def layer(*, low: float = -1.0, high: float = 3.0) -> QuantisedConv2d:
    torch.manual_seed(1)
    made = QuantisedConv2d(nn.Conv2d(6, 4, 3, padding=1)).requires_grad_(False).eval()
    made.set_input_range(low, high)
    set_rounding(made, True)
    return made


def test_a_rounded_convolution_is_one_on_integers() -> None:
    conv = layer()
    x = torch.rand(1, 6, 9, 7) * 6 - 2  # some of it beyond the range
    zero = int(conv.input_zero_point)
    integers = ((x / conv.input_scale).round() + zero).clamp(0, 255).to(torch.int64) - zero
    weights = (conv.weight / conv.weight_scale.view(-1, 1, 1, 1)).round().to(torch.int64)
    assert weights.abs().amax((1, 2, 3)).tolist() == [WEIGHT_LEVELS] * 4
    sums = F.conv2d(integers.double(), weights.double(), padding=1)
    # What two neighbours add in 16 bits on CPUs without VNNI
    assert (integers + zero).max() * WEIGHT_LEVELS * 2 < 2**15
    scale = (conv.input_scale * conv.weight_scale).view(-1, 1, 1).double()
    expected = sums * scale + conv.bias.view(-1, 1, 1).double()  # type: ignore[union-attr]
    torch.testing.assert_close(conv(x).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 2.0), (-4.0, -1.0), (0.0, 0.0)])
def test_zero_is_exact_whatever_the_range(low: float, high: float) -> None:
    conv = layer(low=low, high=high)
    assert 0 <= conv.input_zero_point <= 255
    assert conv.input_scale > 0
    out = conv(torch.zeros(1, 6, 4, 4))
    torch.testing.assert_close(out, conv.bias.view(1, -1, 1, 1).expand_as(out))  # type: ignore[union-attr]


def test_gradients_pass_through_the_rounding_within_the_range() -> None:
    conv = layer().requires_grad_(True).train()
    x = torch.tensor([0.5, 2.0, 5.0, -3.0]).view(1, 1, 2, 2).expand(1, 6, 2, 2).clone().requires_grad_(True)
    conv(x).sum().backward()
    assert conv.weight.grad is not None
    assert x.grad is not None
    assert conv.weight.grad.abs().min() > 0
    assert (x.grad[0, 0].flatten() != 0).tolist() == [True, True, False, False]


def test_the_ends_of_the_core_stay_in_floats(network: DenoiseNetwork) -> None:
    rounded = {name.removeprefix("core.") for name, _ in quantised_layers(network)}
    assert {"to2", "from2", "middle.0.conv1"} <= rounded
    assert not [name for name in rounded if name.startswith(FLOAT_PARTS)]


def test_int8_is_another_network_and_leaves_this_one_as_it_is(network: DenoiseNetwork) -> None:
    noisy = noisy_frames(1)[0]
    sigma = uniform_sigma(0.1, noisy)
    plain = network.still(noisy, sigma)
    rounded = network.in_precision(torch.int8)
    found = rounded.still(noisy, sigma)
    assert torch.equal(network.still(noisy, sigma), plain)
    assert not torch.equal(found, plain)
    assert (found - plain).square().mean().sqrt() < 0.02
    assert rounded.in_precision(torch.int8) is rounded
    assert torch.equal(rounded.in_precision(torch.float32).still(noisy, sigma), plain)
    assert network.in_precision(torch.float32) is network


def test_int8_needs_known_ranges() -> None:
    with pytest.raises(ValueError, match="ranges of activations"):
        DenoiseNetwork(TINY).in_precision(torch.int8)


def test_a_file_holds_the_integers(network: DenoiseNetwork, tmp_path: Path) -> None:
    path = tmp_path / "tiny-int8-1.safetensors"
    save_model(network, ModelCard("tiny-int8", "fast"), path)
    stored = load_file(path)
    weight = stored["core.middle.0.conv1.weight"]
    assert weight.dtype is torch.int8
    assert weight.abs().max() == WEIGHT_LEVELS
    assert stored["noise_level.globally.weight"].dtype is torch.int8
    assert stored["core.stem.weight"].dtype is torch.float16
    loaded = load_model(path).network
    assert loaded.config.quantised
    noisy = noisy_frames(1)[0]
    sigma = uniform_sigma(0.1, noisy)
    again, before = (n.in_precision(torch.int8).still(noisy, sigma) for n in (loaded, network))
    assert (again - before).abs().max() < 1e-2, "what stays in floats is stored in float16"
    # Rounding what is rounded changes nothing.
    repeated = packed(loaded)
    assert all(torch.equal(repeated[key], stored[key]) for key in stored if key.startswith("core."))


def test_a_quantised_file_is_a_quarter_of_the_size() -> None:
    network = DenoiseNetwork(replace(TINY, widths=(16, 48, 96), blocks=(0, 2, 2, 2, 0), quantised=True))
    count = sum(p.numel() for p in network.parameters())
    assert sum(t.numel() * t.element_size() for t in packed(network).values()) < 1.15 * count


def test_a_weight_without_its_scale_is_an_error(network: DenoiseNetwork, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_model(network, ModelCard("tiny", "fast"), path)
    _, config = read_card(path)
    stored = load_file(path)
    del stored["core.to2.weight_scale"]
    about = {"vidnoise_format": FORMAT, "config": json.dumps(config), "card": json.dumps({"name": "t", "tier": "fast"})}
    save_file(stored, path, metadata=about)
    with pytest.raises(WeightsError, match=r"to2\.weight is int8 and has no scale"):
        load_model(path)
    with pytest.raises(ValueError, match="no scale"):
        unpacked({"a": torch.zeros(2, 1, 1, 1, dtype=torch.int8), "a_scale": torch.ones(3)})
