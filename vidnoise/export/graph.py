"""One step of a network as a graph of tensors, its state among the inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..model import DenoiseNetwork, State

STATE = tuple("previous" if name == "clean" else name for name in State._fields)
"""Names of the state's inputs."""

OUTPUTS = ("clean", "level", *(f"next_{name}" for name in STATE if name != "previous"))
"""``clean`` is the next step's ``previous``, too."""


def input_names(*, blind: bool) -> tuple[str, ...]:
    """Names of the graph's inputs in their order; ``sigma`` is one where the noise level is told."""
    return ("noisy", *(() if blind else ("sigma",)), "boost", "keep", *STATE)


def next_state(outputs: Sequence[Tensor]) -> State:
    """The state among the graph's outputs, which come in the order of :data:`OUTPUTS`."""
    named = dict(zip(OUTPUTS, outputs, strict=True))
    return State(*(named["clean" if name == "previous" else f"next_{name}"] for name in STATE))


class StepGraph(nn.Module):
    """What is exported: :meth:`DenoiseNetwork.advance` with tensors only.

    Args:
        network: the model.
        blind: whether the noise level is estimated; otherwise ``sigma`` is an input.
    """

    def __init__(self, network: DenoiseNetwork, *, blind: bool) -> None:
        super().__init__()
        self.network = network
        self.blind = blind

    def forward(self, noisy: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Inputs by :func:`input_names`, outputs by :data:`OUTPUTS`; shapes as :meth:`DenoiseNetwork.advance`."""
        sigma, rest = (None, rest) if self.blind else (rest[0], rest[1:])
        boost, keep, *state = rest
        clean, level, new = self.network.advance(noisy, sigma, boost, keep, State(*state))
        return clean, level, *(t for name, t in zip(STATE, new, strict=True) if name != "previous")

    def example(self, n: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Inputs of these sizes, of a first frame of noise."""
        noisy = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))
        told = () if self.blind else (torch.full((n,), 0.1),)
        state = self.network.initial_state(n, height, width)
        return (noisy, *told, torch.ones(n), torch.ones(n, dtype=torch.bool), *state)
