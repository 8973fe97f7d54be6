"""Training objectives: the loss of a clip, and that of the noise estimator alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vidnoise.model import DenoiseNetwork, Future, State
from vidnoise.model.luma_chroma import bands_to_rgb
from vidnoise.training.batch import Batch
from vidnoise.training.config import TrainConfig
from vidnoise.training.losses import charbonnier, noise_level_loss, restoration, temporal

PARTS = ("clean", "fused", "noise", "temporal")
"""Names of the parts of the loss in the log: unweighted means over a clip's frames."""


class Known(NamedTuple):
    """Noise levels and predictions of a batch's frames, computed before they are denoised."""

    levels: list[Tensor]
    """Noise level that the network gets for each frame."""
    loss: Tensor
    """Loss of the estimates, summed over frames."""
    futures: list[Future | None]
    """Prediction of each frame from those after it; ``None`` for causal training."""


def look(network: DenoiseNetwork, batch: Batch, blind: Tensor, config: TrainConfig, *, both_ways: bool) -> Known:
    """Estimate noise levels, and run the backward pass over the clips.

    Args:
        network: In training mode.
        batch: See :class:`Batch`.
        blind: ``(N,)`` bool, the clips that get the estimated noise level.
        config: Determines whether the estimator is trained as well.
        both_ways: Whether to run the backward pass.
    """
    frames, n, _, height, width = batch.clean.shape
    device = batch.clean.device
    memory, levels, loss = (
        network.initial_state(n, height, width, device=device).memory,
        [],
        torch.zeros((), device=device),
    )
    with torch.set_grad_enabled(torch.is_grad_enabled() and config.noise_weight > 0):
        for noisy, true in zip(batch.noisy, batch.sigma, strict=True):
            estimate, memory = network.estimate_sigma(noisy, memory)
            loss = loss + noise_level_loss(estimate, true)
            levels.append(torch.where(blind.view(-1, 1, 1, 1), estimate.detach(), true))
    futures: list[Future | None] = [None] * frames
    if both_ways:
        scout = network.initial_scout(n, height, width, device=device)
        for t in reversed(range(frames)):
            futures[t], scout = network.predict(batch.noisy[t], levels[t], scout)
    return Known(levels, loss, futures)


def still_loss(network: DenoiseNetwork, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of single frames, by the spatial core alone: several times as fast as a clip's first frame."""
    clean = network.still(batch.noisy[0], batch.sigma[0])
    loss = _distance(clean, batch.clean[0], batch, config)
    return loss, dict.fromkeys(PARTS, loss.new_zeros(())) | {"clean": loss.detach()}


def clip_loss(
    network: DenoiseNetwork,
    batch: Batch,
    known: Known,
    config: TrainConfig,
    span: range | None = None,
    state: State | None = None,
) -> tuple[Tensor, dict[str, Tensor], State]:
    """Return the loss of one batch of clips, or of a span of their frames.

    Args:
        network: In training mode.
        batch: See :class:`Batch`.
        known: From :func:`look`.
        config: Has the weights of the loss's parts.
        span: The frames to include; the losses of spans that make up the clip add up to the clip's.
        state: State after the frames before the span; ``None`` at the first.

    Returns:
        The scalar loss, its parts without gradients, and the state after the span.
    """
    frames, n, _, height, width = batch.clean.shape
    span = span or range(frames)
    weight = _weight(batch, config)
    if state is None:
        state = network.initial_state(n, height, width, device=batch.clean.device)
    parts = dict.fromkeys(PARTS, torch.zeros((), device=batch.clean.device))
    parts["noise"] = known.loss * (len(span) / frames)
    for t in span:
        previous = state.clean
        clean, state, trace = network.forward(batch.noisy[t], known.levels[t], state, known.futures[t])
        parts["clean"] = parts["clean"] + _distance(clean, batch.clean[t], batch, config)
        if t and config.temporal_weight:
            flicker = temporal(clean, previous, batch.clean[t], batch.clean[t - 1])
            parts["temporal"] = parts["temporal"] + (weight * flicker).mean()
        if t:
            fused = bands_to_rgb(trace.fused)
            parts["fused"] = parts["fused"] + (weight * charbonnier(fused - batch.clean[t])).mean()
    loss = parts["clean"] / frames + config.noise_weight * parts["noise"] / frames
    loss = loss + (config.fused_weight * parts["fused"] + config.temporal_weight * parts["temporal"]) / (frames - 1)
    return loss, {k: v.detach() / frames for k, v in parts.items()}, state


def _weight(batch: Batch, config: TrainConfig) -> Tensor:
    """Return the weight of each clip, which evens out the loss over noise levels."""
    return (batch.mean_sigma * 255 / 25).clamp(min=0.15) ** config.sigma_power


def _distance(clean: Tensor, true: Tensor, batch: Batch, config: TrainConfig) -> Tensor:
    """Return the weighted loss of one frame of each clip."""
    return (_weight(batch, config) * restoration(clean, true, config.loss, config.alpha)).mean()


def estimator_loss(network: DenoiseNetwork, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of the noise estimator alone, several times as fast as with whole frames.

    Args:
        network: In training mode.
        batch: See :class:`Batch`.
        config: Has the weight of the pictures that the core produces with the estimates.
    """
    frames, n, _, height, width = batch.clean.shape
    memory = network.initial_state(n, height, width, device=batch.clean.device).memory
    estimate, total = batch.sigma[0], torch.zeros((), device=batch.clean.device)
    for t in range(frames):
        estimate, memory = network.estimate_sigma(batch.noisy[t], memory)
        total = total + noise_level_loss(estimate, batch.sigma[t])
    parts = dict.fromkeys(PARTS, total.new_zeros(())) | {"noise": total.detach() / frames}
    loss = total / frames
    if config.picture_weight:
        clean = network.still(batch.noisy[-1], estimate)
        pictures = _distance(clean, batch.clean[-1], batch, config)
        loss = loss + config.picture_weight * pictures
        parts["clean"] = pictures.detach()
    return loss, parts
