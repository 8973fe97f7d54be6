"""Larger networks that begin as smaller ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from support.networks import TINY
from vidnoise.model import DenoiseNetwork
from vidnoise.training.grow import grow, side_by_side

LARGER = replace(TINY, widths=tuple(2 * w for w in TINY.widths), blocks=(1, 2, 2, 2, 1), hidden=TINY.hidden + 4)


@torch.no_grad()
def test_a_grown_network_computes_what_the_smaller_one_did() -> None:
    torch.manual_seed(0)
    small, large = DenoiseNetwork(TINY), DenoiseNetwork(LARGER)
    for module in ("core", "fusion", "noise_level"):
        grow(large.get_submodule(module), small.get_submodule(module).state_dict())
    sigma = torch.full((1, 6, 16, 16), 0.1)
    states = [n.initial_state(1, 32, 32) for n in (small, large)]
    for _ in range(3):
        noisy = torch.rand(1, 3, 32, 32)
        clean = []
        for i, network in enumerate((small, large)):
            out, states[i], _ = network(noisy, sigma, states[i])
            clean.append(out)
        torch.testing.assert_close(clean[0], clean[1], rtol=0, atol=1e-5)
    # The new channels are not dead: they learn.
    assert states[1].hidden[:, TINY.hidden :].abs().max() > 1e-3


def test_what_does_not_fit_is_refused() -> None:
    small, large = DenoiseNetwork(TINY).core, DenoiseNetwork(LARGER).core
    with pytest.raises(ValueError, match=r"not within|there is no"):
        grow(small, large.state_dict())
    lacking = {k: v for k, v in small.state_dict().items() if not k.startswith("head")}
    with pytest.raises(ValueError, match="head"):
        grow(large, lacking)


@torch.no_grad()
def test_networks_side_by_side_compute_the_mean_of_their_outputs() -> None:
    torch.manual_seed(0)
    cores = [DenoiseNetwork(TINY).core for _ in range(2)]
    wide = replace(TINY, widths=tuple(2 * w for w in TINY.widths), hidden=2 * TINY.hidden)
    joint = DenoiseNetwork(wide).core
    side_by_side(joint, [core.state_dict() for core in cores])
    inputs = torch.randn(1, 45, 16, 16)
    hidden = torch.randn(1, TINY.hidden, 8, 8)
    apart = [core(inputs, hidden) for core in cores]
    together = joint(inputs, torch.cat([hidden, hidden], 1))
    torch.testing.assert_close(together.residual, (apart[0].residual + apart[1].residual) / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.hidden, torch.cat([a.hidden for a in apart], 1), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="is missing or differs"):
        side_by_side(DenoiseNetwork(LARGER).core, [core.state_dict() for core in cores])
