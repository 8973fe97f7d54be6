"""Source samples to the network's RGB, and the network's correction back onto the source samples.

Everything here is linear and exact up to float32: the transfer curve is left alone, nothing is clipped on the way
in, and what returns is a *difference*, so no offset, siting filter or matrix can shift a picture that the network
leaves unchanged.

The network's luma is the mean of R', G' and B', while that of video, Y', is a weighted mean. In plain R'G'B', noise of
the Cb and Cr planes would thus leak into the network's luma, and a clean Y' plane would be denoised along with them. So
the network gets video in *centred* R'G'B': each pixel is shifted along the gray axis until its mean is Y'. Then its
luma is the Y' plane, its chroma the other two, and the noise of each stays separate.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vidnoise.color.chroma import downsample, upsample
from vidnoise.color.colorimetry import BT709, Coefficients, code_scales, coefficients, resolve_color
from vidnoise.errors import FormatError
from vidnoise.frame import Frame, PixelFormat


def gray_codes(frame: Frame, level: float) -> dict[str, float]:
    """Return the sample codes of a gray of ``level`` (0 black, 1 white) by component, without padding and alpha."""
    color = resolve_color(frame.color, frame.format, frame.height, frame.width)
    luma_offset, luma_scale, chroma_offset, _ = code_scales(frame.format, color.range)
    names = _picture_components(frame.format)
    return {n: chroma_offset if n in "uv" else luma_offset + level * luma_scale for n in names}


def component_values(frame: Frame) -> dict[str, Tensor]:
    """Return samples by component, float32 in 8-bit units (code / 4 for 10 bits), without padding and alpha."""
    format = frame.format
    unit = format.step_of_8_bits
    names = _picture_components(format)
    return {name: _to_float(component(frame.planes, format, name)).div_(unit) for name in names}


def ycbcr_codes(frame: Frame) -> tuple[Tensor, ...]:
    """Return Y', Cb and Cr samples as encoded, float32 in 8-bit units (code / 4 for 10 bits).

    Returns:
        Three planes at their own resolutions, or one for gray pictures. RGB pictures are converted to BT.709, limited
        range, 4:2:0, as they would usually be encoded.
    """
    if frame.format.family == "rgb":
        r, g, b = to_rgb(frame)[0]
        kr, kb = BT709
        y = kr * r + (1 - kr - kb) * g + kb * b
        chroma = [downsample((p - y) * (112 / (1 - k)) + 128, 1, 1, 1) for p, k in ((b, kb), (r, kr))]
        return (y * 219 + 16, *chroma)
    values = component_values(frame)
    return tuple(values[name] for name in "yuv" if name in values)


def _picture_components(format: PixelFormat) -> list[str]:
    return [name for components in format.layout for name in components if name not in "ax"]


def component(planes: tuple[Tensor, ...], format: PixelFormat, name: str) -> Tensor:
    """Return a view ``(H, W)`` of one component, in whichever plane it lies.

    Raises:
        FormatError: The format has no such component.
    """
    for plane, components in zip(planes, format.layout, strict=True):
        if name in components:
            return plane if len(components) == 1 else plane[..., components.index(name)]
    raise FormatError(f"pixel format {format.name} has no component {name!r}")


def _to_float(samples: Tensor) -> Tensor:
    """Convert to a new float32 tensor, which the caller may modify."""
    if samples.dtype == torch.float32:
        return samples.clone(memory_format=torch.contiguous_format)
    if samples.dtype == torch.uint16 and samples.device.type != "cpu":
        return _uint16_to_float(samples)
    return samples.to(torch.float32, memory_format=torch.contiguous_format)


def _uint16_to_float(samples: Tensor) -> Tensor:
    """Convert by way of int32, as devices other than the CPU hardly support uint16."""
    return samples.view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF).to(torch.float32)


def _float_to_uint16(values: Tensor) -> Tensor:
    """Inverse of :func:`_uint16_to_float` for whole values in [0, 65535]."""
    return values.to(torch.int32).to(torch.int16).view(torch.uint16)


def _to_samples(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint16 and values.device.type != "cpu":
        return _float_to_uint16(values)
    return values.to(dtype)


def to_rgb(frame: Frame, *, centred: bool = False) -> Tensor:
    """Convert a frame to RGB.

    Args:
        frame: A frame of any format.
        centred: Shift each pixel of Y'CbCr pictures along gray so that the mean of its channels is Y', as the network
            expects (see the module's docstring).

    Returns:
        ``(1, 3, H, W)`` float32 R'G'B', nominally in [0, 1] but never clipped: super-whites, noise below black and
        out-of-gamut colours are preserved. Gray pictures have three equal channels.
    """
    format, height, width = frame.format, frame.height, frame.width
    k = coefficients(frame)

    def lightness(name: str) -> Tensor:
        values = _to_float(component(frame.planes, format, name))
        if format.is_float:
            return values
        values.mul_(1 / k.luma_scale)
        return values.sub_(k.luma_offset / k.luma_scale) if k.luma_offset else values

    rgb = frame.planes[0].new_empty((1, 3, height, width), dtype=torch.float32)
    if format.family == "gray":
        return rgb.copy_(lightness("y"))
    if format.family == "rgb":
        for channel, name in zip(rgb[0], "rgb", strict=True):
            channel.copy_(lightness(name))
        return rgb

    def chroma(name: str) -> Tensor:
        values = _to_float(component(frame.planes, format, name)).sub_(k.chroma_offset).mul_(1 / k.chroma_scale)
        return upsample(values, height, width, format.log2_chroma_w, format.log2_chroma_h, k.chroma_location)

    red_cr, green_cb, green_cr, blue_cb = k.from_chroma
    y, cb, cr = lightness("y"), chroma("u"), chroma("v")
    r, g, b = rgb[0]
    if centred:
        mean_cb, mean_cr = k.mean_chroma
        y = y.sub_(cb, alpha=mean_cb).sub_(cr, alpha=mean_cr)
    torch.add(y, cr, alpha=red_cr, out=r)
    torch.add(y, cb, alpha=blue_cb, out=b)
    torch.add(y, cb, alpha=green_cb, out=g).add_(cr, alpha=green_cr)
    return rgb


def centred(rgb: Tensor, kr: float | Tensor, kb: float | Tensor) -> Tensor:
    """Centre ``(..., 3, H, W)`` R'G'B' as :func:`to_rgb` does.

    Args:
        rgb: Pictures.
        kr, kb: Luma weights of red and blue of the video that the pictures stand for (:data:`LUMA_WEIGHTS`).
    """
    r, g, b = rgb.split(1, -3)
    return rgb + ((kr - 1 / 3) * r + (2 / 3 - kr - kb) * g + (kb - 1 / 3) * b)


def weigh_correction(frame: Frame, correction: Tensor, luma: float, chroma: float) -> Tensor:
    """Scale the luma and the chroma of a correction separately.

    In the frame's own Y'CbCr this scales the correction of the Y' plane and of the Cb and Cr planes. For RGB pictures,
    Y', Cb and Cr of the correction are those of BT.709. Gray ones have luma only.

    Args:
        frame: The frame to be corrected, for its format.
        correction: ``(1, 3, H, W)`` R'G'B' difference, centred.
        luma, chroma: Factors; 0 leaves those planes identical, bit for bit, in integer YUV formats.
    """
    if luma == chroma == 1:
        return correction
    if frame.format.family == "gray":
        return correction * luma
    if frame.format.family == "yuv":
        y = correction.mean(1, keepdim=True)
    else:
        k = coefficients(frame)
        # Multiplied by Python numbers, as copying a tensor of weights to a device would synchronise with it.
        r, g, b = (c * (weight / k.luma_scale) for c, weight in zip(correction.split(1, 1), k.to_luma, strict=True))
        y = r + g + b
    return (correction - y).mul_(chroma).add_(y, alpha=luma)


def apply_correction(frame: Frame, correction: Tensor, dither: Tensor | None = None, *, centred: bool = False) -> Frame:
    """Add the network's correction to the source samples, in their own format, depth and range.

    Args:
        frame: The noisy frame.
        correction: ``(1, 3, H, W)`` R'G'B' difference, clean - noisy, in the units of :func:`to_rgb`.
        dither: ``(H, W)``, values strictly inside (-0.5, 0.5), in code steps: added before rounding.
        centred: Whether the correction is a difference of centred pictures, see :func:`to_rgb`.

    Returns:
        The frame with new planes, rounded and clamped to the codes of the format. Float samples are not clipped. Alpha
        and padding are untouched. A correction of zero returns identical samples.

    Raises:
        FormatError: The correction does not have the size of the frame.
    """
    format = frame.format
    height, width = frame.height, frame.width
    if tuple(correction.shape) != (1, 3, height, width):
        raise FormatError(f"the correction is {tuple(correction.shape)}, but the frame needs (1, 3, {height}, {width})")
    k = coefficients(frame)
    correction = correction[0].float()

    if format.family == "gray":
        # Three equally good estimates of one value.
        corrections = {"y": correction.mean(0).mul_(k.luma_scale)}
    elif format.family == "rgb":
        corrections = {name: correction[i] * k.luma_scale for i, name in enumerate("rgb")}
    else:
        corrections = _ycbcr(correction, format, k, centred)

    planes = list(frame.planes)
    for index, components in enumerate(format.layout):
        wanted = [name for name in components if name in corrections]
        if not wanted:
            continue
        if len(components) == 1:
            planes[index] = _add(planes[index], corrections[components[0]], format, dither)
            continue
        plane = planes[index].clone(memory_format=torch.contiguous_format)
        for name in wanted:
            samples = plane[..., components.index(name)]
            samples.copy_(_add(samples, corrections[name], format, dither))
        planes[index] = plane
    return replace(frame, planes=tuple(planes))


def _ycbcr(rgb: Tensor, format: PixelFormat, k: Coefficients, centred: bool) -> dict[str, Tensor]:
    """Convert ``(3, H, W)`` R'G'B' differences to those of Y', Cb and Cr codes, chroma at its own resolution."""
    red, green, blue = k.to_luma
    r, g, b = rgb
    # In codes from the start, which saves a pass over full-size planes.
    y = (g * green).add_(r, alpha=red).add_(b, alpha=blue)
    scratch = torch.empty_like(y)

    def chroma(primary: Tensor, scale: float) -> Tensor:
        torch.sub(y, primary, alpha=k.luma_scale, out=scratch)
        return downsample(scratch, format.log2_chroma_w, format.log2_chroma_h, k.chroma_location) * scale

    # A shift along gray changes neither B' - Y' nor R' - Y', whichever mean Y' is.
    cb, cr = chroma(b, k.to_chroma[0]), chroma(r, k.to_chroma[1])
    if centred:
        torch.add(r, g, out=y).add_(b).mul_(k.luma_scale / 3)
    return {"y": y, "u": cb, "v": cr}


def _add(samples: Tensor, correction: Tensor, format: PixelFormat, dither: Tensor | None) -> Tensor:
    """Return ``samples + correction`` in whole code steps; overwrites ``correction``."""
    if format.is_float:
        return correction.add_(samples)
    step = 1 << format.msb_shift
    if step > 1:
        correction.mul_(1 / step)
    if dither is not None:
        correction.add_(dither[: correction.shape[0], : correction.shape[1]])
    correction.round_()
    if step > 1:
        correction.mul_(step)
    # Bits below a shifted sample are kept, so the largest code has them all set.
    top = (1 << (format.bit_depth + format.msb_shift)) - 1
    return _to_samples(correction.add_(_to_float(samples)).clamp_(0, top), samples.dtype)
