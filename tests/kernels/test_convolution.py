"""The compiled convolutions can be trained: their gradients are those of the plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from support import tolerances
from support.training_setup import config
from vidnoise.kernels.convolution import LEAK, Rectified, TrainableOperations
from vidnoise.kernels.library import library
from vidnoise.model import DenoiseNetwork, uniform_sigma
from vidnoise.model.operations import Operations

pytestmark = pytest.mark.skipif(library() is None, reason="no compiled kernels: no C compiler, or no AVX2")


@pytest.fixture(params=[1, 2], autouse=True, ids=["one-thread", "two-threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


class Plain(Operations):
    """What the compiled convolutions are to equal."""

    def convolve(self, layer: nn.Module, x: Tensor, *, rectified: bool = False, **then: Any) -> Tensor:
        y = super().convolve(layer, x, **then)
        return Rectified.apply(y) if rectified else y


def test_dead_channels_recover() -> None:
    """A layer that is negative everywhere learns, by a hundredth of the gradient; what lives learns as ever."""
    layer, x = nn.Conv2d(8, 8, 1), torch.rand(2, 8, 8, 8)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([-9.0] * 4 + [9.0] * 4))
    found = {}
    for operations in (Operations(), TrainableOperations()):
        layer.zero_grad()
        operations.convolve(layer, x, rectified=True).sum().backward()
        found[type(operations)] = layer.weight.grad.clone()  # type: ignore[union-attr]
    plain, leaky = found.values()
    assert not plain[:4].any()
    torch.testing.assert_close(leaky[:4], LEAK * plain[4:])
    torch.testing.assert_close(leaky[4:], plain[4:])


def is_compiled(result: Tensor) -> bool:
    return isinstance(result.grad_fn, BackwardCFunction)


def gradients(operations: Operations, layer: nn.Conv2d, given: list[Tensor], *, rectified: bool) -> list[Tensor]:
    """Return the result of a convolution, and the gradients of a weighted sum of it."""
    layer.zero_grad()
    inputs = [t.clone().requires_grad_() for t in given]
    result = operations.convolve(layer, inputs[0], rectified=rectified, added=inputs[1] if len(inputs) > 1 else None)
    (result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum().backward()
    return [result, *(t.grad for t in inputs), *(p.grad.clone() for p in layer.parameters())]  # type: ignore[union-attr]


@pytest.mark.parametrize("channels", [(45, 16), (16, 12), (24, 40)], ids=str)
@pytest.mark.parametrize("size", [(1, 16, 24), (3, 13, 30), (2, 5, 3)], ids=str)
@pytest.mark.parametrize("form", ["plain", "rectified", "added", "added and rectified"])
def test_gradients(channels: tuple[int, int], size: tuple[int, int, int], form: str) -> None:
    torch.manual_seed(0)
    n, h, w = size
    layer = nn.Conv2d(*channels, 3, padding=1, bias="added" not in form)
    given = [torch.randn(n, channels[0], h, w), *([torch.randn(n, channels[1], h, w)] if "added" in form else [])]
    expected, found = (
        gradients(o, layer, given, rectified="rectified" in form) for o in (Plain(), TrainableOperations())
    )
    assert is_compiled(TrainableOperations().convolve(layer, given[0]))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(
            a, b, atol=tolerances.WINOGRAD * max(1, b.abs().max().item()), rtol=0, check_stride=False
        )


def test_other_layers_and_precisions_are_left_to_pytorch() -> None:
    operations, x = TrainableOperations(), torch.randn(1, 16, 8, 8)
    for layer in (nn.Conv2d(16, 4, 3, padding=1), nn.Conv2d(16, 16, 3, 2, padding=1), nn.Conv2d(16, 16, 1)):
        assert not is_compiled(operations.convolve(layer, x))
    layer = nn.Conv2d(16, 16, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert operations.convolve(layer, x).dtype is torch.bfloat16


def test_a_network_learns_the_same() -> None:
    """The gradients of all weights, after two steps of a recurrent network."""
    found = {}
    for operations in (Plain(), TrainableOperations()):
        torch.manual_seed(0)
        network = DenoiseNetwork(config().model_config())
        network.operations = operations
        frames = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        state = network.initial_state(2, 32, 32)
        loss = torch.zeros(())
        for frame in frames:
            clean, state, _ = network(frame, uniform_sigma(0.1, frame), state)
            loss = loss + clean.square().sum()
        loss.backward()
        found[type(operations)] = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
    plain, compiled = found.values()
    assert plain.keys() == compiled.keys()
    assert any(key.startswith("core.middle") for key in plain)
    for key, gradient in plain.items():
        # Not equal to the last digit: where the network clips, a change in rounding may switch a pixel on or off.
        alike = torch.cosine_similarity(compiled[key].flatten(), gradient.flatten(), 0)
        assert alike > 0.999, key
