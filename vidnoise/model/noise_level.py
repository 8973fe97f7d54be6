"""Blind noise level: how strong the noise is, per pixel, channel (luma and two of chroma) and Haar band."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidnoise.model.dncnn import conv3, initialised, typed
from vidnoise.model.luma_chroma import GRAY
from vidnoise.model.pixelwise import PLAIN, Pixelwise

SIGMA_MIN = 0.25 / 255
"""Half the rounding error of 8-bit samples: no footage is cleaner, and it keeps divisions finite."""


def told_levels(sigma: float | Tensor, noisy: Tensor) -> Tensor:
    """A known noise level of N pictures, ``(N, 6)``: of luma and two chroma channels, low-pass band, then details.

    Args:
        sigma: standard deviation in [0, 1] units: a number or ``(N,)`` for white RGB noise, which has the same level in
            all of them; or ``(N, 6)``.
        noisy: ``(N, 3, H, W)``, for number and device.
    """
    level = torch.as_tensor(sigma, dtype=torch.float32, device=noisy.device)
    return (level if level.ndim == 2 else level.reshape(-1, 1)).expand(len(noisy), 6)


def uniform_sigma(sigma: float | Tensor, noisy: Tensor) -> Tensor:
    """A known noise level as the network wants it, the same all over the picture: ``(N, 6, H/2, W/2)``.

    Args:
        sigma, noisy: as for :func:`told_levels`.
    """
    n, _, h, w = noisy.shape
    return told_levels(sigma, noisy).clamp(min=SIGMA_MIN)[..., None, None].expand(n, 6, h // 2, w // 2)


FLAT = 0.1 / 255
"""Haar details below this are none: a fraction of the smallest step of 8-bit samples."""

MEMORY = 8
"""Frames over which the estimate is averaged: steady, yet quick to follow a change of gain."""


def _spread(mask: Tensor) -> Tensor:
    """The largest value of each 5×5 neighbourhood, by rows and by columns, which is quicker."""
    return F.max_pool2d(F.max_pool2d(mask, (5, 1), stride=1, padding=(2, 0)), (1, 5), stride=1, padding=(0, 2))


def untouched(bands: Tensor) -> Tensor:
    """Where a picture is exactly flat: ``(N, 1, h, w)``, 1 or 0, from its Haar bands ``(N, 12, h, w)``.

    Noise leaves no flat square of 10 pixels. Letterbox bars, panels and blown highlights are flat: they hold
    no noise, and say nothing of the noise around them.
    """
    flat = (bands[:, 3:].abs().amax(1, keepdim=True) < FLAT).float()
    return _spread(1 - _spread(1 - flat))


def _log_magnitude(x: Tensor) -> Tensor:
    """About -1 to 1 for differences of 0.2 of a step of 8 bits to 100: the mean of logarithms is a noise level's."""
    return (x.abs() + 1e-3).log().mul_(0.3).add_(1.1)


def _evidence(bands: Tensor, past: Tensor, known: Tensor, noisy: Tensor) -> tuple[Tensor, ...]:
    """What the encoder sees; arguments are those of :meth:`NoiseLevel.forward`."""
    low, detail = bands[:, :3], bands[:, 3:]
    # Details are tiny numbers in [0, 1] units; times 4 they are of the size that layers expect.
    evidence = low, detail * 4, _log_magnitude(detail), _log_magnitude(bands - past) * known, known
    return *(e * noisy for e in evidence), noisy


def _level(affine: Tensor, low: Tensor, noisy: Tensor) -> tuple[Tensor]:
    slope, offset = affine.exp().chunk(2, dim=1)
    # Brightness in [0, 1]: the low-pass band of a constant c is 2c.
    signal = (low[:, :1].float() * (GRAY / 2)).clamp(0, 1)
    # Squares, so that both parts are positive and small levels are learnt as well as large ones.
    variance = slope.square() * signal + offset.square()
    return ((variance.sqrt() * noisy).clamp(min=SIGMA_MIN),)


class Block(nn.Module):
    """A wide look at each channel, then two layers across channels, added to the input: much context for little work.

    The order of layers is ConvNeXt's: Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)
        self.expand = initialised(nn.Conv2d(channels, 2 * channels, 1), 1.0)
        self.reduce = initialised(nn.Conv2d(2 * channels, channels, 1), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(self.expand(self.depthwise(x)).relu_()).add_(x)


class NoiseLevel(nn.Module):
    """Estimates the noise level of a frame, steadily over time.

    Per location and channel the variance is taken as affine in the brightness, ``(a² I + b²)`` (Foi et
    al., "Practical Poissonian-Gaussian noise modeling and fitting", 2008), with ``log a`` and ``log b`` from
    a small network that sees the frame at 1/8 and 1/16 resolution and its mean over the frame, weighted by trust, so
    that flat and textured areas of one frame inform each other. What changes from one noisy frame to the next
    tells noise from texture wherever the camera holds still.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # The 35 inputs: 12 Haar bands, the magnitudes of the 9 details and of 12 differences to the past, whether there
        # is a past, and whether anything can be said of noise at all.
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
        self.trust = nn.Conv2d(fine, 1, 1)  # how much a place says of the whole frame: bars and panels, nothing
        self.globally = nn.Conv2d(fine, fine, 1)
        self.head = nn.Conv2d(fine, 12, 1)
        nn.init.zeros_(self.trust.weight)
        nn.init.normal_(self.head.weight, std=0.01)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([-5.0] * 6 + [-3.0] * 6))  # type: ignore[union-attr]

    def forward(
        self, bands: Tensor, past: Tensor, known: Tensor, noisy: Tensor, pixelwise: Pixelwise = PLAIN
    ) -> Tensor:
        """Parameters of the noise of one frame: :meth:`features`, then :meth:`conclude`, which sees the whole of it.

        Args:
            bands: ``(N, 12, h, w)`` from :func:`~vidnoise.model.luma_chroma.rgb_to_bands`.
            past: likewise, of the noisy frame before, not motion-compensated.
            known: ``(N, 1, h, w)``, 1 where there is a past, else 0.
            noisy: ``(N, 1, h, w)``, 1 where there can be noise: not where the frame is :func:`untouched`.
            pixelwise: applies functions of each pixel.

        Returns:
            ``(N, 12, h/4, w/4)``: ``log a`` and ``log b``, each for the low-pass band and the details of the channels.
        """
        return self.conclude(*self.features(bands, past, known, noisy, pixelwise))

    def features(
        self, bands: Tensor, past: Tensor, known: Tensor, noisy: Tensor, pixelwise: Pixelwise = PLAIN
    ) -> tuple[Tensor, Tensor]:
        """What places tell of the noise, and how much they can be trusted: ``(N, C, h/4, w/4)``, ``(N, 1, h/4, w/4)``.

        They depend on their surroundings only; arguments are those of :meth:`forward`.
        """
        x = self.encoder(pixelwise.stack(_evidence, (bands, past, known, noisy), self.encoder))
        x = x + F.interpolate(self.context(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        trust = (torch.sigmoid(self.trust(x).float()) + 1e-4) * F.avg_pool2d(noisy, 4) + 1e-6
        return x, trust

    def conclude(self, x: Tensor, trust: Tensor) -> Tensor:
        """What all :meth:`features` of a frame together say of each place."""
        overall = (x * trust).sum((2, 3), keepdim=True) / trust.sum((2, 3), keepdim=True)
        overall = F.relu(self.globally(typed(overall, self.globally)))
        return self.head(x + overall).float().clamp(-12, 2)

    @staticmethod
    def remember(memory: Tensor, parameters: Tensor) -> Tensor:
        """Running mean of the parameters.

        Args:
            memory: ``(N, 13, h, w)``: the mean so far, and over how many frames; zeros at first.
            parameters: ``(N, 12, h, w)`` of the new frame.

        Returns:
            The new memory.
        """
        mean, count = memory[:, :12], memory[:, 12:]
        count = (count + 1).clamp(max=MEMORY)
        return torch.cat([mean + (parameters - mean) / count, count], 1)

    @staticmethod
    def level(parameters: Tensor, bands: Tensor, noisy: Tensor, pixelwise: Pixelwise = PLAIN) -> Tensor:
        """Noise level ``(N, 6, h, w)`` of a frame, from its bands and where there can be noise."""
        low = bands[:, :3]
        affine = F.interpolate(parameters, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return pixelwise.apply(_level, (affine, low, noisy))[0]
