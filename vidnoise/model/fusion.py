"""Temporal fusion: combines a frame with the estimate from the frames before (or after) it, weighted by variance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vidnoise.model.dncnn import conv3
from vidnoise.model.luma_chroma import per_channel
from vidnoise.model.operations import REFERENCE, Operations
from vidnoise.model.wavelet import per_band, split_bands

LEAST_GAIN = (0.03, 0.03, 0.1, 0.1)
"""Minimum gain, that is, weight of a new frame: for luma and chroma of the low-pass band, then of the details. Training
sees a dozen frames; over hundreds, small misalignments that the filter does not notice would blur the estimate. Chosen
on the validation clips and a long pan."""

LEAST_PREDICTED = 0.05
"""Minimum variance ratio of a prediction from the future, for the same reason."""


class Filtered(NamedTuple):
    """Result of one step of the temporal filter; see :class:`TemporalFusion`."""

    predicted: Tensor
    """``(N, 12, h, w)``: the motion-compensated estimate before the frame was taken in."""
    uncertainty: Tensor
    """``(N, 4, h, w)``: variance ratio of ``predicted``."""
    estimate: Tensor
    """``(N, 12, h, w)``: the updated estimate."""
    gain: Tensor
    """``(N, 4, h, w)``: variance ratio of ``estimate``."""


class TemporalFusion(nn.Module):
    """A learned per-pixel Kalman filter over motion-compensated noisy frames.

    In units of one frame's noise variance: the warped estimate has variance ``ratio``; a small network
    predicts the variance ``e`` that misalignment adds; then ``p = ratio + e``, gain ``k = p / (p + 1)``,
    and the new ratio, ``(1 - k) p``, equals ``k``, apart from :data:`LEAST_GAIN`. Luma and chroma, low-pass and detail
    bands have separate gains: a slight misalignment ruins details long before it harms the low-pass band, and
    chroma is smoother and noisier than luma.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.misalignment = nn.Sequential(
            conv3(15, width), nn.ReLU(inplace=True),
            conv3(width, width, dilation=2), nn.ReLU(inplace=True),
            conv3(width, 4, gain=0.1),
        )  # fmt: skip
        with torch.no_grad():
            self.misalignment[-1].bias.fill_(-1.0)  # type: ignore[union-attr]

    def forward(
        self,
        noisy: Tensor,
        fused: Tensor,
        clean: Tensor,
        sigma: Tensor,
        ratio: Tensor,
        operations: Operations = REFERENCE,
    ) -> Filtered:
        """Run one filter step.

        Args:
            noisy, fused: ``(N, 12, h, w)`` bands of the current frame and the warped estimate.
            clean: ``(N, 3, h, w)`` low-pass band of the warped previous output.
            sigma: ``(N, 6, h, w)`` noise level of one frame.
            ratio: ``(N, 4, h, w)`` warped variance ratio.
            operations: Implementation of the pointwise functions.
        """
        return Filtered(fused, *operations.fuse(fuse, self.misalignment, noisy, fused, clean, sigma, ratio))


def fuse(
    misalignment: nn.Module, noisy: Tensor, fused: Tensor, clean: Tensor, sigma: Tensor, ratio: Tensor,
    operations: Operations,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Judge the misalignment, then filter: arguments as for :class:`TemporalFusion`, results as of :func:`filtered`."""
    evidence = operations.pointwise_input(misalignment_evidence, (noisy, fused, clean, sigma, ratio), misalignment)
    return operations.pointwise(filtered, (noisy, fused, ratio, misalignment(evidence).float()))


def misalignment_evidence(
    noisy: Tensor, fused: Tensor, clean: Tensor, sigma: Tensor, ratio: Tensor
) -> tuple[Tensor, ...]:
    """Return the evidence of misalignment; arguments as for :meth:`TemporalFusion.forward`."""
    known = ratio.clamp(max=1.0)
    low_deviation, deviation = (sigma * per_channel((1 + known).sqrt())).chunk(2, dim=1)
    low, details = split_bands((noisy - fused).abs())
    low = (low / low_deviation).clamp(max=20.0)
    detail = (details / deviation.unsqueeze(1)).clamp(max=20.0).mean(1)
    drift = ((noisy[:, :3] - clean) / sigma[:, :3]).clamp(-20.0, 20.0)
    level = sigma.log() * 0.3 + 1.0
    luma, chroma = level[:, 0:4:3].mean(1, keepdim=True), level[:, [1, 2, 4, 5]].mean(1, keepdim=True)
    return low, detail, drift, known.sqrt(), luma, chroma


def filtered(noisy: Tensor, fused: Tensor, ratio: Tensor, misalignment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the prediction's ratio, the new estimate and its ratio; ``misalignment`` is a log variance."""
    p = ratio + torch.exp(misalignment.clamp(-8.0, 6.0))
    gains = (p / (p + 1)).split(1, dim=1)
    gain = torch.cat([k.clamp(min=least) for k, least in zip(gains, LEAST_GAIN, strict=True)], 1)
    return p, fused + per_band(per_channel(gain)) * (noisy - fused), gain


def smoothed(estimate: Tensor, gain: Tensor, bands: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Combine the estimates of a frame from its past and its future by their variances; return it and its new ratio.

    This is the two-filter form of smoothing (Fraser and Potter, "The optimum linear smoother as a combination of two
    optimum linear filters", IEEE Transactions on Automatic Control, 1969).
    """
    ratio = ratio.clamp(min=LEAST_PREDICTED)
    share = gain / (gain + ratio)
    return estimate + per_band(per_channel(share)) * (bands - estimate), share * ratio
