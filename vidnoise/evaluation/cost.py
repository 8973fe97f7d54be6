"""Cost of a method: exact multiply-adds per pixel, and measured time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vidnoise.model import DenoiseNetwork, ModelConfig

SIZE = 64
"""Height and width of the frame on which multiply-adds are counted; any multiple of 16 gives the same result."""


def kilo_macs(config: ModelConfig, *, frame_wise: bool = False, both_ways: bool = False) -> float:
    """Return the multiply-adds per full-resolution pixel, in thousands, including noise level and flow.

    Args:
        config: Sizes of the network.
        frame_wise: Without motion and fusion, as in :meth:`DenoiseNetwork.still`.
        both_ways: With one backward visit of each frame.
    """
    network = DenoiseNetwork(config).requires_grad_(False)
    frame = torch.rand(1, 3, SIZE, SIZE)
    state = network.initial_state(1, SIZE, SIZE)
    with FlopCounterMode(display=False) as counter:
        sigma, _ = network.estimate_sigma(frame, state.memory)
        if both_ways:
            network.predict(frame, sigma, network.initial_scout(1, SIZE, SIZE))
        if frame_wise:
            network.still(frame, sigma)
        else:
            network(frame, sigma, state)
    return counter.get_total_flops() / 2 / SIZE**2 / 1000


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Return the result of ``call`` and the wall-clock seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def ms_per_megapixel(seconds: float, frames: Tensor) -> float:
    """Convert the seconds for a clip ``(T, C, H, W)`` to milliseconds per million pixels."""
    return seconds * 1e9 / (frames.shape[0] * frames.shape[2] * frames.shape[3])


def middle(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average metrics over clips: by the mean, but times by the median, to ignore hiccups of the machine."""
    mean = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
    return mean | {"ms_per_megapixel": statistics.median(row["ms_per_megapixel"] for row in rows)}
