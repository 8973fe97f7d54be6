"""What the backends that run the exported graph hand over to it and take from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..export.graph import input_names, next_state
from ..model import Denoised, State
from .protocol import per_stream


def named_inputs(
    noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor, state: State
) -> dict[str, Tensor]:
    """The graph's inputs for a step; arguments as for :meth:`~vidnoise.backends.protocol.Backend.step`."""
    told = () if sigma is None else (per_stream(sigma, noisy),)
    inputs = (noisy, *told, per_stream(boost, noisy), keep, *state)
    return {name: t.contiguous() for name, t in zip(input_names(blind=sigma is None), inputs, strict=True)}


def empty_outputs(noisy: Tensor, state: State) -> list[Tensor]:
    """New memory for the graph's outputs, in the order of :data:`~vidnoise.export.graph.OUTPUTS`."""
    shapes = (noisy.shape, noisy.shape[:1], state.fused.shape, state.ratio.shape, state.hidden.shape, state.noise.shape)
    return [torch.empty(shape, device=noisy.device) for shape in shapes]


def denoised(outputs: Sequence[Tensor]) -> Denoised:
    """What the graph's outputs say."""
    return Denoised(outputs[0], outputs[1], next_state(outputs))
