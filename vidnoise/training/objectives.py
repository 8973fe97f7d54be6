"""What is minimised: the loss of a clip, and that of the noise estimator alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model import DenoiseNetwork, State
from .batch import Batch
from .config import TrainConfig
from .losses import charbonnier, noise_level_loss, restoration, temporal

PARTS = ("clean", "fused", "noise", "temporal")
"""Of the loss, as the log has them: sums over a clip's frames, divided by their number, without their weights."""


def clip_loss(
    network: DenoiseNetwork,
    batch: Batch,
    blind: Tensor,
    config: TrainConfig,
    span: range | None = None,
    state: State | None = None,
) -> tuple[Tensor, dict[str, float], State | None]:
    """Loss of one batch, or of some of its frames.

    Args:
        network: in training mode.
        batch: see :class:`Batch`.
        blind: ``(N,)`` bool, the clips that get the estimated noise level.
        config: weights of the loss's parts.
        span: the frames that count; the losses of spans that make up the clip add up to the clip's.
        state: after the frames before the span; ``None`` at the first.

    Returns:
        The scalar loss, its parts as numbers, and the state after the span.
    """
    frames, n, _, height, width = batch.clean.shape
    span = span or range(frames)
    weight = (batch.mean_sigma * 255 / 25).clamp(min=0.15) ** config.sigma_power
    if frames == 1:  # the spatial core alone, several times as fast as a first frame of a clip
        clean = network.still(batch.noisy[0], batch.sigma[0])
        loss = (weight * restoration(clean, batch.clean[0], config.loss, config.alpha)).mean()
        return loss, dict.fromkeys(PARTS, 0.0) | {"clean": loss.item()}, None
    if state is None:
        state = network.initial_state(n, height, width, device=batch.clean.device)
    parts = dict.fromkeys(PARTS, torch.zeros((), device=batch.clean.device))
    for t in span:
        previous = state.clean
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.noise_weight > 0):
            estimate, state = network.estimate_sigma(batch.noisy[t], state)
            parts["noise"] = parts["noise"] + noise_level_loss(estimate, batch.sigma[t])
        sigma = torch.where(blind.view(-1, 1, 1, 1), estimate.detach(), batch.sigma[t])
        clean, state, trace = network.step(batch.noisy[t], sigma, state)
        distance = restoration(clean, batch.clean[t], config.loss, config.alpha)
        parts["clean"] = parts["clean"] + (weight * distance).mean()
        if t and config.temporal_weight:
            flicker = temporal(clean, previous, batch.clean[t], batch.clean[t - 1])
            parts["temporal"] = parts["temporal"] + (weight * flicker).mean()
        if t:
            parts["fused"] = parts["fused"] + (weight * charbonnier(trace.fused - batch.clean[t])).mean()
    loss = parts["clean"] / frames + config.noise_weight * parts["noise"] / frames
    loss = loss + (config.fused_weight * parts["fused"] + config.temporal_weight * parts["temporal"]) / (frames - 1)
    return loss, {k: v.item() / frames for k, v in parts.items()}, state


def estimator_loss(network: DenoiseNetwork, batch: Batch, mix: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Loss of the noise estimator alone, many times as fast as whole frames.

    Args:
        network: in training mode.
        batch: see :class:`Batch`.
        mix: ``(N, 1, 1, 1)``: how much of its noise the last frame has kept, in place of a fused frame.
    """
    frames, n, _, height, width = batch.clean.shape
    state = network.initial_state(n, height, width, device=batch.clean.device)
    total = torch.zeros((), device=batch.clean.device)
    for t in range(frames):
        estimate, state = network.estimate_sigma(batch.noisy[t], state)
        total = total + noise_level_loss(estimate, batch.sigma[t])
        fused = batch.clean[t] + mix * (batch.noisy[t] - batch.clean[t])
        state = state._replace(fused=fused, ratio=torch.ones_like(state.ratio))
    return total / frames, dict.fromkeys(PARTS, 0.0) | {"noise": total.item() / frames}
