"""Calibration: choosing the ranges of the activations of a network that is to run in int8, on training batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vidnoise.model import DenoiseNetwork
from vidnoise.model.quantisation import QuantisedConv2d, make_quantisable, quantised_layers, set_rounding
from vidnoise.training.batch import Batch, BatchMaker
from vidnoise.training.config import Stage
from vidnoise.training.distillation import pictures

SHARES = tuple(0.5 ** (i / 2) for i in range(12))
"""Ranges to try, from widest to narrowest, as shares of what occurs."""

BATCHES = 2
"""Batches of single frames, and as many of clips, on which ranges are chosen."""

GAIN = 1e-4
"""Least gain for which a range is narrowed, as a share of the error: smaller ones are chance."""

FLOOR = 1e-6
"""Mean square error below which pictures count as equal: a quarter of an 8-bit step."""


def quantise(network: DenoiseNetwork, batches: Sequence[Batch]) -> None:
    """Make a network round to 8 bits, in place, with the same weights.

    Args:
        network: In float32, on the CPU. If it is quantised already, it keeps its ranges.
        batches: See :func:`calibrate`. Without any, ranges have to be loaded.
    """
    if not network.config.quantised:
        network.config = replace(network.config, quantised=True)
        make_quantisable(network.core)
        if batches:
            calibrate(network, batches)
    set_rounding(network, True)


def calibration_batches(batches: BatchMaker, stage: Stage) -> list[Batch]:
    """Make the batches of :func:`calibrate`, of the shapes of a stage."""
    return [batches.next(shape).to(torch.device("cpu")) for shape in (stage.still, stage.clip) * BATCHES]


@torch.no_grad()
def calibrate(network: DenoiseNetwork, batches: Sequence[Batch]) -> None:
    """Set the input ranges of a quantised network, in place, to those with the best pictures on some batches.

    From what occurs, each range is narrowed for as long as the pictures get better, with the other layers unrounded.
    The best ones are far narrower: strong edges, which are clipped, pass the residual blocks by, and finer steps for
    everything else are worth more. The error of the inputs themselves would be a bad guide for the same reason.

    Args:
        network: With :attr:`ModelConfig.quantised`.
        batches: Clips or single frames.
    """
    set_rounding(network, False)
    ranges = observed_ranges(network, batches)
    for name, layer in quantised_layers(network):
        layer.rounds = True
        low, high = ranges[name]
        best, least = SHARES[0], float("inf")
        for share in SHARES:
            layer.set_input_range(share * low, share * high)
            error = _error(network, batches)
            if error > least - GAIN:
                break
            best, least = share, error
        layer.set_input_range(best * low, best * high)
        layer.rounds = False


def observed_ranges(network: DenoiseNetwork, batches: Iterable[Batch]) -> dict[str, tuple[float, float]]:
    """Return the smallest and the largest input of each layer that can round, on some batches, by its name."""
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str, layer: QuantisedConv2d) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            low, high = (end.item() for end in given[0].aminmax())
            before = ranges.get(name, (low, high))
            ranges[name] = min(low, before[0]), max(high, before[1])

        return layer.register_forward_pre_hook(note)

    handles = [watch(name, layer) for name, layer in quantised_layers(network)]
    try:
        for batch in batches:
            pictures(network, batch)
    finally:
        for handle in handles:
            handle.remove()
    return ranges


def _error(network: DenoiseNetwork, batches: Iterable[Batch]) -> float:
    """Return the mean logarithm of the mean square error of each picture, which is what PSNR measures."""
    errors = [(pictures(network, batch) - batch.clean).square().mean((2, 3, 4)) for batch in batches]
    return torch.cat([error.clamp(min=FLOOR).log().flatten() for error in errors]).mean().item()
