"""Blind noise level estimation, per pixel, channel (luma and two of chroma) and Haar band."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidnoise.model.dncnn import Convolve, conv3, convolve, initialised, typed
from vidnoise.model.luma_chroma import GRAY
from vidnoise.model.operations import REFERENCE, Operations

SIGMA_MIN = 0.25 / 255
"""Lowest noise level: half the rounding error of 8-bit samples, as no footage is cleaner; keeps divisions finite."""


def known_levels(sigma: float | Tensor, noisy: Tensor) -> Tensor:
    """Expand a known noise level to ``(N, 6)``: luma and two chroma channels in the low-pass band, then in the details.

    Args:
        sigma: Standard deviation in [0, 1] units: a number or ``(N,)`` for white RGB noise, which has the same level in
            every channel and band; or ``(N, 6)``.
        noisy: ``(N, 3, H, W)``, for its N and device.
    """
    level = torch.as_tensor(sigma, dtype=torch.float32, device=noisy.device)
    return (level if level.ndim == 2 else level.reshape(-1, 1)).expand(len(noisy), 6)


def uniform_sigma(sigma: float | Tensor, noisy: Tensor) -> Tensor:
    """Expand a known noise level to a map that is uniform over the picture: ``(N, 6, H/2, W/2)``.

    Args:
        sigma, noisy: As for :func:`known_levels`; a map of that shape is only clamped.
    """
    n, _, h, w = noisy.shape
    if isinstance(sigma, Tensor) and sigma.ndim == 4:
        return sigma.clamp(min=SIGMA_MIN)
    return known_levels(sigma, noisy).clamp(min=SIGMA_MIN)[..., None, None].expand(n, 6, h // 2, w // 2)


MEMORY = 8
"""Frames over which the estimate is averaged: steady, yet quick to follow a change of the camera's gain."""


def _log_magnitude(x: Tensor) -> Tensor:
    """Compress magnitudes logarithmically: about -1 to 1 for 0.2 to 100 steps of 8-bit samples.

    The mean of such logarithms is a measure of the noise level.
    """
    return (x.abs() + 1e-3).log().mul_(0.3).add_(1.1)


def noise_evidence(bands: Tensor, past: Tensor, known: Tensor, noise_mask: Tensor) -> tuple[Tensor, ...]:
    """Return the encoder's input channels; arguments as for :meth:`NoiseLevel.forward`."""
    low, detail = bands[:, :3], bands[:, 3:]
    # Details are tiny in [0, 1] units; a factor of 4 brings them to the magnitude that layers expect.
    evidence = low, detail * 4, _log_magnitude(detail), _log_magnitude(bands - past) * known, known
    return *(e * noise_mask for e in evidence), noise_mask


def affine_level(parameters: Tensor, bands: Tensor, noise_mask: Tensor) -> tuple[Tensor]:
    """Return the noise level ``(N, 6, h, w)`` for the brightness of each pixel, from upsampled parameters."""
    slope, offset = parameters.exp().chunk(2, dim=1)
    # Brightness in [0, 1]: the low-pass band of a constant c is 2c.
    signal = (bands[:, :1].float() * (GRAY / 2)).clamp(0, 1)
    # Squared, so that both terms are positive and small levels are learnt as well as large ones.
    variance = slope.square() * signal + offset.square()
    return ((variance.sqrt() * noise_mask).clamp(min=SIGMA_MIN),)


class Block(nn.Module):
    """A residual block of a wide depthwise convolution and two pointwise ones: much context at little cost.

    The order of layers is ConvNeXt's: Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)
        self.expand = initialised(nn.Conv2d(channels, 2 * channels, 1), 1.0)
        self.reduce = initialised(nn.Conv2d(2 * channels, channels, 1), 0.0)

    def forward(self, x: Tensor, convolve: Convolve = convolve) -> Tensor:
        wide = convolve(self.expand, convolve(self.depthwise, x), rectified=True)
        return convolve(self.reduce, wide, added=x)


def _through(layers: Iterable[nn.Module], x: Tensor, convolve: Convolve) -> Tensor:
    """Run layers one after the other, a convolution and the ReLU that follows it at once."""
    modules = list(layers)
    for layer, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(layer, Block):
            x = layer(x, convolve)
        elif not isinstance(layer, nn.ReLU):
            x = convolve(layer, x, rectified=isinstance(following, nn.ReLU))
    return x


class NoiseLevel(nn.Module):
    """Estimator of a frame's noise level, averaged over time.

    The variance at each location and channel is modelled as affine in the brightness, ``(a² I + b²)`` (Foi et
    al., "Practical Poissonian-Gaussian noise modeling and fitting", 2008), with ``log a`` and ``log b`` from
    a small network that sees the frame at 1/8 and 1/16 resolution and, weighted by trust, the mean of its features over
    the frame, so that flat and textured areas inform each other. The difference between consecutive noisy frames
    separates noise from texture wherever the camera holds still.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # The 35 inputs: 12 Haar bands, the magnitudes of the 9 details and of the 12 differences to the past, whether
        # there is a past, and the mask of pixels that can hold noise.
        fine, coarse = 3 * width, 4 * width
        self.encoder = nn.Sequential(
            conv3(35, width, stride=2), nn.ReLU(inplace=True),
            conv3(width, fine, stride=2), nn.ReLU(inplace=True),
            Block(fine, 5), Block(fine, 5),
        )  # fmt: skip
        self.context = nn.Sequential(
            conv3(fine, coarse, stride=2),
            Block(coarse, 3), Block(coarse, 3), Block(coarse, 3),
            initialised(nn.Conv2d(coarse, fine, 1), 0.0),
        )  # fmt: skip
        self.trust = nn.Conv2d(fine, 1, 1)  # weight of a location in the frame's mean: none for bars and panels
        self.globally = nn.Conv2d(fine, fine, 1)
        self.head = nn.Conv2d(fine, 12, 1)
        nn.init.zeros_(self.trust.weight)
        nn.init.normal_(self.head.weight, std=0.01)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([-5.0] * 6 + [-3.0] * 6))  # type: ignore[union-attr]

    def forward(
        self, bands: Tensor, past: Tensor, known: Tensor, noise_mask: Tensor, operations: Operations = REFERENCE
    ) -> Tensor:
        """Return the noise parameters of one frame: the local :meth:`features`, then the global :meth:`conclude`.

        Args:
            bands: ``(N, 12, h, w)`` from :func:`~vidnoise.model.luma_chroma.rgb_to_bands`.
            past: Bands of the previous noisy frame, not motion-compensated.
            known: ``(N, 1, h, w)``, 1 where there is a past, else 0.
            noise_mask: ``(N, 1, h, w)``, 1 where there can be noise: not where the frame is exactly flat
                (:meth:`Operations.flat_mask`).
            operations: Implementation of the pointwise functions.

        Returns:
            ``(N, 12, h/4, w/4)``: ``log a`` and ``log b``, each for the low-pass band and the details of the channels.
        """
        return self.conclude(*self.features(bands, past, known, noise_mask, operations))

    def features(
        self, bands: Tensor, past: Tensor, known: Tensor, noise_mask: Tensor, operations: Operations = REFERENCE
    ) -> tuple[Tensor, Tensor]:
        """Return local noise features ``(N, C, h/4, w/4)`` and their trust ``(N, 1, h/4, w/4)``.

        They depend on their surroundings only; arguments as for :meth:`forward`.
        """
        x = operations.first_layer(noise_evidence, (bands, past, known, noise_mask), self.encoder[0])
        x = _through(list(self.encoder)[2:], x, operations.convolve)
        context = _through(self.context, x, operations.convolve)
        x = x + F.interpolate(context, size=x.shape[-2:], mode="bilinear", align_corners=False)
        trust = (torch.sigmoid(self.trust(x).float()) + 1e-4) * F.avg_pool2d(noise_mask, 4) + 1e-6
        return x, trust

    def conclude(self, x: Tensor, trust: Tensor) -> Tensor:
        """Return the noise parameters from the :meth:`features` of the whole frame."""
        overall = (x * trust).sum((2, 3), keepdim=True) / trust.sum((2, 3), keepdim=True)
        overall = F.relu(self.globally(typed(overall, self.globally)))
        return self.head(x + overall).float().clamp(-12, 2)

    @staticmethod
    def remember(memory: Tensor, parameters: Tensor) -> Tensor:
        """Update the running mean of the parameters.

        Args:
            memory: ``(N, 13, h, w)``: the mean so far and its number of frames; zeros initially.
            parameters: ``(N, 12, h, w)`` of the new frame.

        Returns:
            The new memory.
        """
        mean, count = memory[:, :12], memory[:, 12:]
        count = (count + 1).clamp(max=MEMORY)
        return torch.cat([mean + (parameters - mean) / count, count], 1)

    @staticmethod
    def level(parameters: Tensor, bands: Tensor, noise_mask: Tensor, operations: Operations = REFERENCE) -> Tensor:
        """Return the noise level ``(N, 6, h, w)`` of a frame, from its bands and the mask of possible noise."""
        return operations.pointwise(affine_level, (parameters, bands, noise_mask))[0]
