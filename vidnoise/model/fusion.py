"""Temporal fusion: what is remembered of the frames before (or after) a frame, and the frame itself, by variance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vidnoise.model.dncnn import conv3
from vidnoise.model.luma_chroma import per_channel
from vidnoise.model.pixelwise import PLAIN, Pixelwise
from vidnoise.model.wavelet import per_band, split_bands

LEAST_GAIN = (0.03, 0.03, 0.1, 0.1)
"""Of the fusion, for luma and chroma of the low-pass band, then of the details: how much a new frame counts at the
least. Training sees a dozen frames; over hundreds, small misalignments that the filter does not notice would blur the
estimate. Chosen on the validation clips and a long pan."""

LEAST_PREDICTED = 0.05
"""Variance ratio that a prediction from the future has at the least, for the same reason."""


class Filtered(NamedTuple):
    """What the fusion makes of one frame; see :class:`TemporalFusion`."""

    predicted: Tensor
    """``(N, 12, h, w)``: what was remembered, where the frame has it, before the frame was seen."""
    uncertainty: Tensor
    """``(N, 4, h, w)``: its variance ratio."""
    estimate: Tensor
    """``(N, 12, h, w)``: what is known now."""
    gain: Tensor
    """``(N, 4, h, w)``: its variance ratio."""


class TemporalFusion(nn.Module):
    """A learned Kalman filter per pixel, over motion-compensated noisy frames.

    In units of one frame's noise variance: the warped estimate has variance ``ratio``; a small network
    predicts the variance ``e`` that misalignment adds; then ``p = ratio + e``, gain ``k = p / (p + 1)``,
    and the new ratio, ``(1 - k) p``, is ``k`` itself, but for :data:`LEAST_GAIN`. Luma and chroma, low-pass and detail
    bands have gains of their own: a slight misalignment ruins details long before it harms the low-pass band, and
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
        pixelwise: Pixelwise = PLAIN,
    ) -> Filtered:
        """One filter step.

        Args:
            noisy, fused: ``(N, 12, h, w)`` bands of the current frame and the warped estimate.
            clean: ``(N, 3, h, w)`` low-pass band of the warped previous output.
            sigma: ``(N, 6, h, w)`` noise level of one frame.
            ratio: ``(N, 4, h, w)`` warped variance ratio.
            pixelwise: applies functions of each pixel.
        """
        evidence = pixelwise.stack(_evidence, (noisy, fused, clean, sigma, ratio), self.misalignment)
        misalignment = self.misalignment(evidence).float()
        return Filtered(fused, *pixelwise.apply(_filtered, (noisy, fused, ratio, misalignment)))


def _evidence(noisy: Tensor, fused: Tensor, clean: Tensor, sigma: Tensor, ratio: Tensor) -> tuple[Tensor, ...]:
    """Of misalignment; arguments are those of :meth:`TemporalFusion.forward`."""
    known = ratio.clamp(max=1.0)
    low_deviation, deviation = (sigma * per_channel((1 + known).sqrt())).chunk(2, dim=1)
    low, details = split_bands((noisy - fused).abs())
    low = (low / low_deviation).clamp(max=20.0)
    detail = (details / deviation.unsqueeze(1)).clamp(max=20.0).mean(1)
    drift = ((noisy[:, :3] - clean) / sigma[:, :3]).clamp(-20.0, 20.0)
    level = sigma.log() * 0.3 + 1.0
    luma, chroma = level[:, 0:4:3].mean(1, keepdim=True), level[:, [1, 2, 4, 5]].mean(1, keepdim=True)
    return low, detail, drift, known.sqrt(), luma, chroma


def _filtered(noisy: Tensor, fused: Tensor, ratio: Tensor, misalignment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The prediction's ratio, the new estimate and its ratio; ``misalignment`` is the logarithm of its variance."""
    p = ratio + torch.exp(misalignment.clamp(-8.0, 6.0))
    gains = (p / (p + 1)).split(1, dim=1)
    gain = torch.cat([k.clamp(min=least) for k, least in zip(gains, LEAST_GAIN, strict=True)], 1)
    return p, fused + per_band(per_channel(gain)) * (noisy - fused), gain


def smoothed(estimate: Tensor, gain: Tensor, bands: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Two estimates of one frame, from what is before and what is after it, by their variances, and the new ratio.

    The two-filter form of smoothing (Fraser and Potter, "The optimum linear smoother as a combination of two optimum
    linear filters", IEEE Transactions on Automatic Control, 1969).
    """
    ratio = ratio.clamp(min=LEAST_PREDICTED)
    share = gain / (gain + ratio)
    return estimate + per_band(per_channel(share)) * (bands - estimate), share * ratio
