"""The recurrent network: noise level, motion, temporal fusion, spatial core; and its explicit state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .dncnn import DnCNN, conv3
from .flow import Motion, estimate_motion, resize_flow, sampling_grid, warp
from .noise_level import NoiseLevel, uniform_sigma
from .operations import Operations
from .pixelwise import PLAIN, Pixelwise
from .state import UNKNOWN, State
from .wavelet import TRANSFORMS, per_band, split_bands

MULTIPLE = 16
"""Heights and widths must be multiples of this: the coarsest flow level is at 1/16."""

LIMIT = 50.0
"""Of the spatial core's inputs, in units of the noise: beyond it, what an edge is like no longer matters."""


LEAST_GAIN = (0.03, 0.1)
"""Of the fusion, for the low-pass band and the details: how much a new frame counts at the least. Training sees a dozen
frames; over hundreds, small misalignments that the filter does not notice would blur the estimate. Chosen on the
validation clips and a long pan."""


REFUSED = (0.85, 0.97)
"""Gain of the low-pass band from which on the past counts less, and not at all. Gradually, lest what differs a little
between devices, precisions or tiles shows."""


class Trace(NamedTuple):
    """What happened inside one step; training and diagnosis look at it."""

    motion: Motion
    """Flows at 1/2 resolution, in its pixels."""
    fused: Tensor
    ratio: Tensor


class Denoised(NamedTuple):
    """What one step of N streams gives."""

    clean: Tensor
    """``(N, 3, H, W)``."""
    level: Tensor
    """``(N,)``: the noise level, mean over the picture, in [0, 1] units."""
    state: State


class TemporalFusion(nn.Module):
    """A learned Kalman filter per pixel, over motion-compensated noisy frames.

    In units of one frame's noise variance: the warped estimate has variance ``ratio``; a small network
    predicts the variance ``e`` that misalignment adds; then ``p = ratio + e``, gain ``k = p / (p + 1)``,
    and the new ratio, ``(1 - k) p``, is ``k`` itself, but for :data:`LEAST_GAIN`. Low-pass and detail bands have
    gains of their own: a slight misalignment ruins details long before it harms the low-pass band.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.misalignment = nn.Sequential(
            conv3(12, width), nn.ReLU(inplace=True),
            conv3(width, width, dilation=2), nn.ReLU(inplace=True),
            conv3(width, 2, gain=0.1),
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
    ) -> tuple[Tensor, Tensor]:
        """One filter step in the Haar domain.

        Args:
            noisy, fused: ``(N, 12, h, w)`` bands of the current frame and the warped estimate.
            clean: ``(N, 3, h, w)`` low-pass band of the warped previous output.
            sigma: ``(N, 6, h, w)`` noise level of one frame.
            ratio: ``(N, 2, h, w)`` warped variance ratio.
            pixelwise: applies functions of each pixel.

        Returns:
            The new estimate's bands and its ratio.
        """
        evidence = pixelwise.stack(_fusion_evidence, (noisy, fused, clean, sigma, ratio), self.misalignment)
        misalignment = self.misalignment(evidence).float()
        estimate, gain = pixelwise.apply(_filtered, (noisy, fused, ratio, misalignment))
        return estimate, gain


def _fusion_evidence(noisy: Tensor, fused: Tensor, clean: Tensor, sigma: Tensor, ratio: Tensor) -> tuple[Tensor, ...]:
    """Of misalignment; arguments are those of :meth:`TemporalFusion.forward`."""
    known = ratio.clamp(max=1.0)
    low_deviation, deviation = (sigma * (1 + known).sqrt().repeat_interleave(3, 1)).chunk(2, dim=1)
    low, details = split_bands((noisy - fused).abs())
    low = (low / low_deviation).clamp(max=20.0)
    detail = (details / deviation.unsqueeze(1)).clamp(max=20.0).mean(1)
    drift = ((noisy[:, :3] - clean) / sigma[:, :3]).clamp(-20.0, 20.0)
    level = sigma.mean(1, keepdim=True).log() * 0.3 + 1.0
    return low, detail, drift, known.sqrt(), level


def _filtered(noisy: Tensor, fused: Tensor, ratio: Tensor, misalignment: Tensor) -> tuple[Tensor, Tensor]:
    """The new estimate and its ratio; ``misalignment`` is the logarithm of its variance."""
    p = ratio + torch.exp(misalignment.clamp(-8.0, 6.0))
    low, detail = (p / (p + 1)).split(1, dim=1)
    gain = torch.cat([low.clamp(min=LEAST_GAIN[0]), detail.clamp(min=LEAST_GAIN[1])], 1)
    return fused + per_band(gain) * (noisy - fused), gain


class DenoiseNetwork(nn.Module):
    """One step of a causal recurrent video denoiser: ``clean, state = network(noisy, sigma, state)``.

    The network holds no state, so it serves any number of streams. The design follows EMVD (Maggioni
    et al., CVPR 2021: recursive fusion, then spatial denoising), with an optical flow, a Kalman gain
    and a DnCNN as the spatial stage.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.noise_level = NoiseLevel(config.noise_width)
        self.fusion = TemporalFusion(config.fusion_width)
        self.core = DnCNN(
            12 + 12 + 12 + 6 + 3, 12, config.widths, config.blocks, config.hidden, separable=config.separable
        )
        self.transform = TRANSFORMS[config.transform]
        self.operations = Operations(self.transform)
        """A backend may put fused ones in their place."""
        self.motion: Callable[..., Motion] = estimate_motion

    def initial_state(self, n: int, height: int, width: int, *, device: torch.device | str = "cpu") -> State:
        """A state that knows nothing: the first frame is denoised as a still picture."""
        return State(
            torch.zeros(n, 3, height, width, device=device),
            torch.full((n, 2, height // 2, width // 2), UNKNOWN, device=device),
            torch.zeros(n, 3, height, width, device=device),
            torch.zeros(n, self.config.hidden, height // 4, width // 4, device=device),
            torch.zeros(n, 13, height // 8, width // 8, device=device),
        )

    def place(self, device: torch.device | str) -> DenoiseNetwork:
        """Move to a device, weights laid out channels-last, as fast convolutions want them."""
        return self.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def in_precision(self, dtype: torch.dtype) -> DenoiseNetwork:
        """A network whose convolutions run in ``dtype``; this one if they do. The rest is float32 always."""
        if all(parameter.dtype is dtype for parameter in self.parameters()):
            return self
        return copy.deepcopy(self).to(dtype)

    def estimate_sigma(self, noisy: Tensor, state: State) -> tuple[Tensor, State]:
        """Blind noise level of one frame, and the state with what was learnt of the noise.

        Args:
            noisy: ``(N, 3, H, W)``.
            state: of the previous frame, or :meth:`initial_state`.

        Returns:
            ``(N, 6, H/2, W/2)`` in [0, 1] units: the levels of the low-pass RGB bands, then of the details; and
            the state for :meth:`forward`.
        """
        bands = self.operations.haar(noisy)
        known = (state.ratio[:, :1] < UNKNOWN / 2).float()
        parts = 1 - self.operations.untouched(bands)
        pixelwise = self.operations.pixelwise
        parameters = self.noise_level(bands, self.operations.haar(state.fused), known, parts, pixelwise)
        memory = self.noise_level.remember(state.noise, parameters)
        return self.noise_level.level(memory[:, :12], bands, parts, pixelwise), state._replace(noise=memory)

    def forward(self, noisy: Tensor, sigma: Tensor, state: State) -> tuple[Tensor, State]:
        """Denoise one frame.

        Args:
            noisy: ``(N, 3, H, W)`` RGB, nominally in [0, 1] (never clipped); H and W multiples of 16.
            sigma: ``(N, 6, H/2, W/2)``: from :meth:`estimate_sigma` or ``uniform_sigma``.
            state: of the previous frame, or :meth:`initial_state`.

        Returns:
            The clean frame ``(N, 3, H, W)`` and the next state.
        """
        clean, state, _ = self.step(noisy, sigma, state)
        return clean, state

    def advance(
        self, noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor, state: State
    ) -> Denoised:
        """One frame of N streams, from noise level to picture: what a backend runs.

        Args:
            noisy: as for :meth:`forward`.
            sigma: noise level in [0, 1] units, a number or ``(N,)``; ``None`` estimates it.
            boost: by what the level is multiplied, a number or ``(N,)``.
            keep: ``(N,)`` bool; where false, the stream's past is forgotten first.
            state: of the previous frame, or :meth:`initial_state`.
        """
        state = self.operations.keep(state, keep)
        if sigma is None:
            level, state = self.estimate_sigma(noisy, state)
        else:
            level = uniform_sigma(sigma, noisy)
        if isinstance(boost, Tensor):
            boost = boost.reshape(-1, 1, 1, 1)
        clean, state = self(noisy, level * boost, state)
        # Of a pixel's variance the low-pass band holds a quarter, the three detail bands the rest.
        low, detail = level.float().square().mean((2, 3)).unflatten(1, (2, 3)).mean(2).unbind(1)
        return Denoised(clean.float(), ((low + 3 * detail) / 4).sqrt(), state)

    def still(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoise single pictures: what :meth:`forward` does from an initial state, without motion and fusion.

        Args:
            noisy: ``(N, 3, H, W)``, H and W multiples of 16.
            sigma: ``(N, 6, H/2, W/2)``.

        Returns:
            ``(N, 3, H, W)``.
        """
        bands, sigma = self.transform.forward(noisy), self.transform.levels(sigma)
        n, _, h, w = bands.shape
        hidden = torch.zeros(n, self.config.hidden, h // 2, w // 2, device=noisy.device)
        residual = self.core(self._standardised(bands, bands, bands, sigma, sigma), hidden).residual
        return self.transform.inverse(bands - per_band(sigma) * residual.float())

    def _standardised(self, fused: Tensor, noisy: Tensor, guide: Tensor, left: Tensor, sigma: Tensor) -> Tensor:
        """The spatial core's input: bands less their local mean, in units of their noise.

        Denoising scales with the picture: ``D(c x; c σ) = c D(x; σ)``. Layers do not divide, so a network that is
        given pictures has to learn each noise level by itself. In units of the noise all levels are one problem;
        the loss on single frames falls several times as fast.
        """
        local = F.avg_pool2d(self.transform.half(fused), 8)
        local = F.interpolate(local, scale_factor=8, mode="bilinear", align_corners=False)
        tensors = fused, noisy, guide, left, sigma, local
        return self.operations.pixelwise.stack(self._centred, tensors, self.core.stem)

    def _centred(
        self, fused: Tensor, noisy: Tensor, guide: Tensor, left: Tensor, sigma: Tensor, local: Tensor
    ) -> tuple[Tensor, ...]:
        base, detail_base = self.transform.constant(local)
        scaled = []
        for bands, level in ((fused, left), (noisy, sigma), (guide, left)):
            low, details = split_bands(bands)
            low_level, detail_level = level.chunk(2, dim=1)
            scaled.append((low - base) / low_level)
            if isinstance(detail_base, Tensor):
                details = details - detail_base.unsqueeze(1)
            scaled.append((details / detail_level.unsqueeze(1)).flatten(1, 2))
        return *(bands.clamp(-LIMIT, LIMIT) for bands in scaled), left.log() * 0.3 + 1, local

    def step(self, noisy: Tensor, sigma: Tensor, state: State) -> tuple[Tensor, State, Trace]:
        """As :meth:`forward`, with a :class:`Trace` of the inside."""
        bands, sigma = self.operations.bands(noisy), self.transform.levels(sigma)
        averaging = self.operations.averaging
        motion = self.motion(self.transform.half(bands), averaging.shrink(state.clean, 2), sigma[:, :3], averaging)
        flow = motion.flow
        fused_bands, clean_bands, ratio = self.operations.recall(state, flow)
        hidden = warp(state.hidden, sampling_grid(resize_flow(flow, 0.5)))

        fused_bands, gain = self.fusion(bands, fused_bands, clean_bands[:, :3], sigma, ratio, self.operations.pixelwise)
        # Where nothing is known of the past, or the fusion refuses it, the fused frame stands in for the previous
        # output: what is wrong there, the core would let show through behind moving objects.
        trust = ((REFUSED[1] - gain[:, :1]) / (REFUSED[1] - REFUSED[0])).clamp(0, 1)
        guide = torch.lerp(fused_bands, clean_bands, trust)
        left = gain.sqrt().repeat_interleave(3, 1) * sigma
        inputs = self._standardised(fused_bands, bands, guide, left, sigma)
        core = self.core(inputs, hidden * F.max_pool2d(trust, 2))
        clean, fused = self.operations.restore(fused_bands, left, core.residual)
        state = State(fused, gain, clean, core.hidden.float(), state.noise)
        return clean, state, Trace(motion, fused, gain)
