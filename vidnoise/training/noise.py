"""Synthetic noise, shared by training and evaluation.

A noise type is a function ``(clean, generator) -> noisy`` over a batch of clips ``(N, T, 3, H, W)`` in [0, 1], on the
device of the generator. The parameters of the noise are drawn per clip. Noise is independent between frames, and not
clipped, unless a docstring says otherwise. A new type is one function and one line in :data:`NOISES`.

Nothing here synchronises with the device: draws stay tensors, and a step that does not apply to a clip gets a factor
that neutralises it. Codec artefacts are in :mod:`vidnoise.training.codec_pool`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Noise = Callable[[Tensor, Generator], Tensor]

WHITE = 0.05
"""Spread in samples at which a sampled Gaussian is a single sample, so that noise stays white."""


def _uniform(clean: Tensor, generator: Generator, low: float, high: float) -> Tensor:
    """Draw a number per clip uniformly, ``(N, 1, 1, 1, 1)``."""
    draws = torch.rand(len(clean), 1, 1, 1, 1, generator=generator, device=clean.device)
    return draws.mul_(high - low).add_(low)


def _log_uniform(clean: Tensor, generator: Generator, low: float, high: float) -> Tensor:
    """Draw a number per clip log-uniformly, ``(N, 1, 1, 1, 1)``."""
    return _uniform(clean, generator, math.log(low), math.log(high)).exp_()


def _chance(clean: Tensor, generator: Generator, share: float) -> Tensor:
    """Draw a bool per clip that is true with probability ``share``, ``(N, 1, 1, 1, 1)``."""
    return _uniform(clean, generator, 0, 1) < share


def _normal(clean: Tensor, generator: Generator, channels: int = 3, scale: int = 1) -> Tensor:
    """Draw white noise of standard deviation 1, ``(N, T, channels, H/scale, W/scale)`` (rounded up)."""
    n, t, _, h, w = clean.shape
    return torch.randn(n, t, channels, -(-h // scale), -(-w // scale), generator=generator, device=clean.device)


def _kernels(spread: Tensor, radius: int) -> Tensor:
    """Return a sampled Gaussian with maximum 1 for each clip, ``(N, 2 radius + 1)``."""
    x = torch.arange(-radius, radius + 1, dtype=torch.float32, device=spread.device)
    return torch.exp(-0.5 * (x / spread.view(-1, 1)) ** 2)


def _filtered(pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Filter each clip by its own separable kernel: ``rows`` along lines, ``columns`` across; the edges wrap around."""
    n, t, c, h, w = pictures.shape
    x = pictures.reshape(n, t * c, h, w).transpose(0, 1)
    for kernels, shape in ((rows, (n, 1, 1, -1)), (columns, (n, 1, -1, 1))):
        radius = kernels.shape[1] // 2
        pad = [radius, radius, 0, 0] if shape[2] == 1 else [0, 0, radius, radius]
        x = F.conv2d(F.pad(x, pad, mode="circular"), kernels.view(shape), groups=n)
    return x.transpose(0, 1).reshape(pictures.shape)


def _smeared(noise: Tensor, along: Tensor, across: Tensor, radius: int = 5) -> Tensor:
    """Blur white noise by given spreads along and across lines, in samples, keeping its standard deviation."""
    kernels = [_kernels(spread, radius) for spread in (along, across)]
    rows, columns = (k / k.norm(dim=1, keepdim=True) for k in kernels)
    return _filtered(noise, rows, columns)


def _averaged(noise: Tensor, spread: Tensor, radius: int) -> Tensor:
    """Average over neighbours by Gaussian weights of a given spread in samples."""
    kernels = _kernels(spread, radius)
    kernels = kernels / kernels.sum(1, keepdim=True)
    return _filtered(noise, kernels, kernels)


def none(clean: Tensor, generator: Generator) -> Tensor:
    """No noise: clips that must come out unchanged."""
    return clean.clone()


def add_gaussian(clean: Tensor, sigma: float | Tensor, generator: Generator) -> Tensor:
    """Add white Gaussian noise of standard deviation ``sigma`` ([0, 1] units) to a tensor of any shape; not clipped."""
    return clean + sigma * torch.randn(clean.shape, generator=generator, device=clean.device)


def gaussian(clean: Tensor, generator: Generator) -> Tensor:
    """White Gaussian noise, sigma 0 to 55/255."""
    return add_gaussian(clean, _uniform(clean, generator, 0, 55 / 255), generator)


def _plane_noise(clean: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw noise of the planes of 4:2:0 video.

    Luma noise has a standard deviation of 2 to 35/255, chroma noise 0 to 3 times that (at most 28/255); some clips have
    noise in luma alone, some in chroma alone. It is white; or blurred, as by scaling; or smeared along lines, as on
    tape: chroma over 4 to 16 pixels, luma over one or two. BT.601 or BT.709.

    Returns:
        ``(N, T, 1, H, W)``, the noise of Y, and ``(N, T, 3, H, W)``, that of U and V converted to RGB at constant Y;
        U and V have half the size and are upsampled linearly.
    """
    n, t, _, h, w = clean.shape
    luma = _log_uniform(clean, generator, 2 / 255, 35 / 255)
    chroma = (luma * _uniform(clean, generator, 0, 3)).clamp(max=28 / 255)
    alone = _uniform(clean, generator, 0, 1)
    chroma = torch.where(alone < 0.2, 0.0, torch.where(alone > 0.85, luma.clamp(max=28 / 255), chroma))
    luma = torch.where(alone > 0.85, 0.0, luma)

    kind = _uniform(clean, generator, 0, 1)
    blurred, tape = kind > 0.5, kind > 0.75

    def spread(blur: tuple[float, float], smear: tuple[float, float]) -> Tensor:
        wide = torch.where(tape, _uniform(clean, generator, *smear), _uniform(clean, generator, *blur))
        return torch.where(blurred, wide, WHITE)

    # A Gaussian of spread s is 2.36 s wide at half maximum. Chroma samples are two pixels wide.
    along, across = spread((0.4, 1.2), (0.4, 0.9)), spread((0.4, 1.2), (WHITE, WHITE))
    y = _smeared(_normal(clean, generator, 1), along, across) * luma
    along, across = spread((0.3, 1.0), (0.85, 3.3)), spread((0.3, 1.0), (WHITE, 0.6))
    uv = _smeared(_normal(clean, generator, 2, scale=2), along, across, radius=8) * chroma
    uv = F.interpolate(uv.flatten(0, 1), size=(h, w), mode="bilinear", align_corners=False).view(n, t, 2, h, w)

    high_definition = _chance(clean, generator, 0.5)
    kr = torch.where(high_definition, 0.2126, 0.299)
    kb = torch.where(high_definition, 0.0722, 0.114)
    red, blue = 2 * (1 - kr) * uv[:, :, 1:], 2 * (1 - kb) * uv[:, :, :1]
    green = (red * kr + blue * kb) / (kr + kb - 1)
    return y, torch.cat([red, green, blue], 2)


def planes(clean: Tensor, generator: Generator) -> Tensor:
    """Noise of the planes of 4:2:0 video (:func:`_plane_noise`)."""
    y, colour = _plane_noise(clean, generator)
    return clean + y + colour


def centred_planes(clean: Tensor, generator: Generator) -> Tensor:
    """Noise of the planes of 4:2:0 video in centred RGB, in which the network gets video (:mod:`vidnoise.color`).

    There, noise of U and V does not affect the mean of the channels. The clip must be centred, too.
    """
    y, colour = _plane_noise(clean, generator)
    return clean + y + colour - colour.mean(2, keepdim=True)


def _demosaiced(mosaic: Tensor, red_row: Tensor, red_column: Tensor, mix: Tensor) -> Tensor:
    """Demosaic samples of a Bayer mosaic, ``(N, T, 1, H, W)`` to ``(N, T, 3, H, W)``.

    Args:
        mosaic: One sample per pixel; the edges wrap around.
        red_row, red_column: Bool, the rows and columns of red samples.
        mix: 0 for bilinear, 1 for the linear kernels of Malvar, He and Cutler, "High-quality linear interpolation for
            demosaicing of Bayer-patterned color images" (2004), which sharpen; or a blend in between.
    """

    def pair(x: Tensor, distance: int, dim: int) -> Tensor:
        return x.roll(distance, dim) + x.roll(-distance, dim)

    beside, above = pair(mosaic, 1, -1), pair(mosaic, 1, -2)
    diagonal, far_beside, far_above = pair(beside, 1, -2), pair(mosaic, 2, -1), pair(mosaic, 2, -2)
    far = far_beside + far_above
    edge = 5 * mosaic - diagonal
    cross = (2 * (beside + above) + mix * (4 * mosaic - far)) / 8
    in_row = (4 * beside + mix * (edge - far_beside + far_above / 2)) / 8
    in_column = (4 * above + mix * (edge - far_above + far_beside / 2)) / 8
    across = (2 * diagonal + mix * (6 * mosaic - 1.5 * far)) / 8
    red = torch.where(red_row, torch.where(red_column, mosaic, in_row), torch.where(red_column, in_column, across))
    green = torch.where(red_row == red_column, cross, mosaic)
    blue = torch.where(red_row, torch.where(red_column, across, in_column), torch.where(red_column, in_row, mosaic))
    return torch.cat([red, green, blue], 2)


def sensor(clean: Tensor, generator: Generator) -> Tensor:
    """Photon and read noise of a sensor after a camera's processing.

    Variances are affine in linear light under white-balance gains; the noise goes through a Bayer mosaic, a linear
    demosaicking (bilinear to Malvar), a colour matrix, the tone curve, and for most clips the camera's own sharpening
    or smoothing. A third are at high sensitivity: stronger noise, of which the camera's noise reduction leaves coarse
    blotches, those of colour wider than those of luma. Most clips are clipped at black, which brightens dark ones; the
    others keep values below.

    The *noise* is mosaicked, not the picture. A linear demosaicking D of (picture + noise) is D(picture) + D(noise);
    so this is exact for a picture that demosaicking recovers perfectly, while the moiré of any other is not noise:
    training the network to restore what is lost to it would teach it to invent detail.
    """
    _, _, _, h, w = clean.shape
    gains = [_uniform(clean, generator, 1.0, 2.4), torch.ones_like(clean[:, :1, :1, :1, :1]),
             _uniform(clean, generator, 1.0, 2.4)]  # fmt: skip
    shot = _log_uniform(clean, generator, 1e-4, 1e-2)
    read = _log_uniform(clean, generator, 1e-3, 1.25e-2)
    reduced = _chance(clean, generator, 0.35)
    sensitivity = torch.where(reduced, _uniform(clean, generator, 1, 5), 1.0)

    # The tone curve: a root with a toe, so that its slope at black is finite, as in all cameras.
    power = _uniform(clean, generator, 1 / 2.4, 1 / 2.0)
    toe = _log_uniform(clean, generator, 1e-4, 1e-2)
    black = toe**power
    contrast = (1 + toe) ** power - black
    linear = (clean.clamp(0, 1) * contrast + black) ** (1 / power) - toe

    rows = torch.arange(h, device=clean.device).view(-1, 1) % 2 == 1
    columns = torch.arange(w, device=clean.device) % 2 == 1
    red_row, red_column = rows ^ _chance(clean, generator, 0.5), columns ^ _chance(clean, generator, 0.5)
    red, green, blue = (gain * (shot * linear[:, :, i : i + 1] + gain * read**2) for i, gain in enumerate(gains))
    variance = torch.where(red_row, torch.where(red_column, red, green), torch.where(red_column, green, blue))
    mosaic = _normal(clean, generator, 1) * (variance * sensitivity).sqrt()
    noise = _demosaiced(mosaic, red_row, red_column, _uniform(clean, generator, 0, 1))
    # From the sensor's colours to the screen's: grays are unchanged, colours and their noise are amplified.
    gray = noise.mean(2, keepdim=True)
    noise = gray + (noise - gray) * _uniform(clean, generator, 1.0, 1.7)

    least = torch.where(_chance(clean, generator, 0.7), 0.0, -toe)
    noisy = (linear + noise).maximum(least).clamp_(max=1)
    noise = ((noisy + toe).clamp_(min=0) ** power - black) / contrast - clean
    # Sharpening above 0, smoothing below: both act on the finished picture and, being linear, equally on its noise.
    processing = _uniform(clean, generator, 0, 1)
    amount = torch.where(
        processing < 0.35, _uniform(clean, generator, 0.2, 1.3),
        torch.where(processing < 0.65, _uniform(clean, generator, -1.0, -0.4), 0.0),
    )  # fmt: skip
    noise = noise + amount * (noise - _averaged(noise, _uniform(clean, generator, 0.5, 1.1), 3))
    gray = noise.mean(2, keepdim=True)
    fine = torch.where(reduced, _uniform(clean, generator, 0.3, 1.1), WHITE)
    coarse = torch.where(reduced, _uniform(clean, generator, 0.5, 2.5), WHITE)
    return clean + _averaged(gray, fine, 4) + _averaged(noise - gray, coarse, 7)


def _grain(clean: Tensor, generator: Generator, sigma: Tensor, common: Tensor) -> Tensor:
    """Draw noise blurred by 0 to 1.5 pixels, of which a share ``common`` (0 to 1) is equal in all channels.

    In half of the clips it depends on the brightness, as film grain does: strong in midtones, weak in black and white.
    """
    noise = _normal(clean, generator, 1) * common + _normal(clean, generator) * (1 - common**2).sqrt()
    spread = _uniform(clean, generator, 0.35, 1.5)
    noise = _smeared(noise, spread, spread)
    bend = torch.where(_chance(clean, generator, 0.5), _uniform(clean, generator, 0.3, 1.0), 0.0)
    gray = clean.mean(2, keepdim=True)
    return clean + noise * sigma * (1 + bend * (2 * (gray * (1 - gray)).clamp_(min=0).sqrt_() - 1))


def correlated(clean: Tensor, generator: Generator) -> Tensor:
    """Film grain: sigma 2 to 40/255, blurred, partly equal in all channels, in some clips dependent on brightness."""
    sigma = _log_uniform(clean, generator, 2 / 255, 40 / 255)
    return _grain(clean, generator, sigma, _uniform(clean, generator, 0.0, 0.9))


def luma(clean: Tensor, generator: Generator) -> Tensor:
    """Noise (nearly) equal in red, green and blue, as in gray footage or with filtered chroma; sigma 2 to 45/255.

    In half of the clips it is white, in half like :func:`correlated`. A network trained on independent channels only
    mistakes such noise for texture.
    """
    sigma = _log_uniform(clean, generator, 2 / 255, 45 / 255)
    common = (1 - _uniform(clean, generator, 0.0, 0.4) ** 4).sqrt()
    white = _normal(clean, generator, 1) * common + _normal(clean, generator) * (1 - common**2).sqrt()
    return torch.where(_chance(clean, generator, 0.5), clean + sigma * white, _grain(clean, generator, sigma, common))


def salt_and_pepper(clean: Tensor, generator: Generator) -> Tensor:
    """Dead samples, black or white, up to 2 %, over light Gaussian noise."""
    noisy = add_gaussian(clean, _uniform(clean, generator, 0, 15 / 255), generator)
    half = _uniform(clean, generator, 0.0005, 0.02) / 2
    chance = torch.rand(clean[:, :, :1].shape, generator=generator, device=clean.device)
    return torch.where(chance < half, 0.0, torch.where(chance > 1 - half, 1.0, noisy))


def banding(clean: Tensor, generator: Generator) -> Tensor:
    """Row noise of a sensor's read-out, 0.5 to 5/255, over :func:`sensor`."""
    n, t, _, h, _ = clean.shape
    rows = torch.randn(n, t, 1, h, 1, generator=generator, device=clean.device)
    return sensor(clean, generator) + rows * _uniform(clean, generator, 0.5 / 255, 5 / 255)


NOISES: dict[str, Noise] = {
    "none": none,
    "gaussian": gaussian,
    "planes": planes,
    "centred_planes": centred_planes,
    "sensor": sensor,
    "correlated": correlated,
    "luma": luma,
    "salt_and_pepper": salt_and_pepper,
    "banding": banding,
}
"""Noise types by their names in training configurations."""
