"""Layers that have died are found."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from support.networks import TINY
from support.training_setup import config, make_data
from vidnoise.model import DenoiseNetwork
from vidnoise.training.activity import before_relu, dead_layers
from vidnoise.training.loop import Trainer


def network() -> DenoiseNetwork:
    torch.manual_seed(0)
    return DenoiseNetwork(TINY)


@pytest.mark.parametrize(
    ("name", "dead"),
    [
        ("to3", ["to3", "middle.0.conv1"]),  # without biases, what gets zeros returns zeros
        ("middle.0.conv1", ["middle.0.conv1"]),
        (None, []),
    ],
)
def test_what_is_always_negative_is_dead(name: str | None, dead: list[str]) -> None:
    net = network()
    noisy, level = torch.rand(2, 3, 32, 48), torch.full((2, 6, 16, 24), 0.1)
    if name:
        layer = before_relu(net.core)[name]
        with torch.no_grad():
            layer.bias.fill_(-1e6)  # type: ignore[operator, union-attr]
    assert dead_layers(net, noisy, level) == dead
    assert not any(module._forward_hooks for module in net.modules())


def test_every_relu_of_the_core_is_watched() -> None:
    """As many layers as there are ReLUs in a forward pass."""
    net, relus = network(), []

    class Counted(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.Tensor.relu_:
                relus.append(func)
            return func(*args, **(kwargs or {}))

    with Counted():
        net.still(torch.rand(1, 3, 32, 32), torch.full((1, 6, 16, 16), 0.1))
    assert len(relus) == len(before_relu(net.core))


def test_a_training_run_warns_of_them_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:

    trainer = Trainer(config(), make_data(tmp_path), tmp_path / "run", cache=tmp_path)
    with torch.no_grad():
        trainer.network.core.to3.bias.fill_(-1e6)
    with caplog.at_level(logging.WARNING, "vidnoise"):
        trainer.train_step()
        trainer.warn_of_dead_layers()
        trainer.warn_of_dead_layers()
    assert [r.message for r in caplog.records if "to3" in r.message] == [
        "no channel of the core's to3 is ever active: what lies behind it computes constants, and will not learn"
    ]
