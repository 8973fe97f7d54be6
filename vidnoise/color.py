"""Source samples to the network's RGB, and the network's correction back onto the source samples.

Everything here is linear and exact up to float32: the transfer curve is left as it is, nothing is clipped on the way
in, and what goes back is a *difference*, so no offset, siting filter or matrix can shift a picture that the network
leaves alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from .chroma import downsample, upsample
from .errors import FormatError
from .frame import ColorInfo, Frame, PixelFormat

LIMITED, FULL = 1, 2

_LUMA_WEIGHTS: dict[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),  # ITU-R BT.709-6, item 3.2
    4: (0.30, 0.11),  # FCC Title 47 CFR 73.682
    5: (0.299, 0.114),  # ITU-R BT.601-7 (625 lines), BT.470 System B, G
    6: (0.299, 0.114),  # ITU-R BT.601-7 (525 lines), SMPTE 170M
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # ITU-R BT.2020-2, table 4, non-constant luminance
}
"""``(Kr, Kb)`` by H.273 MatrixCoefficients."""

BT709 = _LUMA_WEIGHTS[1]
"""``(Kr, Kb)``, for RGB pictures, which have no matrix of their own."""

# Not linear in R'G'B' (constant luminance, ICtCp, chromaticity-derived). The correction only needs a matrix that
# separates lightness from colour in about the same way, and this one is inverted exactly.
_NEAREST = {10: 9, 11: 9, 12: 9, 13: 9, 14: 9}


def resolve_color(color: ColorInfo, format: PixelFormat, height: int, width: int) -> ColorInfo:
    """Fills in what the source does not say. This is the only place where untagged video gets a rule.

    - Matrix: BT.709 from 720 lines or 1280 columns up, else BT.601; RGB and gray pictures have none (0).
    - Range: full for ``yuvj*``, RGB, gray and float samples, else limited.
    - Chroma location: centre for ``yuvj*`` (JPEG), else left (MPEG-2 and everything since).

    Returns:
        A :class:`ColorInfo` with a matrix that this module knows, and no unspecified matrix, range or location.
    """
    matrix, range_, location = color.matrix, color.range, color.chroma_location
    is_jpeg = format.name.startswith("yuvj")
    if format.family != "yuv":
        matrix = 0
    else:
        matrix = _NEAREST.get(matrix, matrix)
        if matrix not in _LUMA_WEIGHTS:
            matrix = 1 if height >= 720 or width >= 1280 else 6
    if is_jpeg or format.is_float:
        range_ = FULL
    elif range_ not in (LIMITED, FULL):
        range_ = LIMITED if format.family == "yuv" else FULL
    if not 1 <= location <= 6:
        location = 2 if is_jpeg else 1
    return replace(color, matrix=matrix, range=range_, chroma_location=location)


@lru_cache(maxsize=256)
def _scales(format: PixelFormat, range_: int) -> tuple[float, float, float, float]:
    """``(luma offset, luma scale, chroma offset, chroma scale)``: code = offset + scale * value (H.273, eq. 20-31)."""
    if format.is_float:
        return 0.0, 1.0, 0.0, 1.0
    step = float(1 << format.msb_shift)
    unit = step * 2.0 ** (format.bit_depth - 8)
    top = step * (2.0**format.bit_depth - 1)
    if range_ == LIMITED:
        return 16 * unit, 219 * unit, 128 * unit, 224 * unit
    return 0.0, top, 128 * unit, top


def gray_codes(frame: Frame, level: float) -> dict[str, float]:
    """The sample codes of a gray of ``level`` (0 black, 1 white), by component; padding and alpha are left out."""
    color = resolve_color(frame.color, frame.format, frame.height, frame.width)
    luma_offset, luma_scale, chroma_offset, _ = _scales(frame.format, color.range)
    names = _picture_components(frame.format)
    return {n: chroma_offset if n in "uv" else luma_offset + level * luma_scale for n in names}


def component_values(frame: Frame) -> dict[str, Tensor]:
    """Each component's samples, float32, in 8-bit units (code / 4 for 10 bits); padding and alpha are left out."""
    format = frame.format
    unit = 1 / 255 if format.is_float else 2.0 ** (format.bit_depth - 8 + format.msb_shift)
    names = _picture_components(format)
    return {name: _to_float(_component(frame.planes, format, name)).div_(unit) for name in names}


def ycbcr_codes(frame: Frame) -> tuple[Tensor, ...]:
    """Y', Cb and Cr samples as they are encoded, float32, in 8-bit units (code / 4 for 10 bits).

    Returns:
        Three planes at their own resolutions; gray pictures have one. RGB pictures are given as BT.709, limited
        range, 4:2:0, which is what one would encode them as.
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


def _component(planes: tuple[Tensor, ...], format: PixelFormat, name: str) -> Tensor:
    """The view ``(H, W)`` of one component, wherever it lies."""
    for plane, components in zip(planes, format.layout, strict=True):
        if name in components:
            return plane if len(components) == 1 else plane[..., components.index(name)]
    raise FormatError(f"pixel format {format.name} has no component {name!r}")


def _to_float(samples: Tensor) -> Tensor:
    """A float32 tensor that is ours to change."""
    if samples.dtype == torch.float32:
        return samples.clone(memory_format=torch.contiguous_format)
    if samples.dtype == torch.uint16 and samples.device.type != "cpu":
        return _uint16_to_float(samples)
    return samples.to(torch.float32, memory_format=torch.contiguous_format)


def _uint16_to_float(samples: Tensor) -> Tensor:
    """Through int32: devices other than the CPU hardly know uint16."""
    return samples.view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF).to(torch.float32)


def _float_to_uint16(values: Tensor) -> Tensor:
    """Inverse of :func:`_uint16_to_float` for whole values in [0, 65535]."""
    return values.to(torch.int32).to(torch.int16).view(torch.uint16)


def _to_samples(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint16 and values.device.type != "cpu":
        return _float_to_uint16(values)
    return values.to(dtype)


def to_rgb(frame: Frame) -> Tensor:
    """The picture as the network sees it.

    Returns:
        ``(1, 3, H, W)`` float32 R'G'B', nominally in [0, 1] but never clipped: super-whites, noise below black and
        colours outside the gamut stay what they are. Gray pictures have three equal channels.
    """
    format, height, width = frame.format, frame.height, frame.width
    color = resolve_color(frame.color, format, height, width)
    luma_offset, luma_scale, chroma_offset, chroma_scale = _scales(format, color.range)

    def lightness(name: str) -> Tensor:
        values = _to_float(_component(frame.planes, format, name))
        if format.is_float:
            return values
        values.mul_(1 / luma_scale)
        return values.sub_(luma_offset / luma_scale) if luma_offset else values

    rgb = frame.planes[0].new_empty((1, 3, height, width), dtype=torch.float32)
    if format.family == "gray":
        return rgb.copy_(lightness("y"))
    if format.family == "rgb":
        for channel, name in zip(rgb[0], "rgb", strict=True):
            channel.copy_(lightness(name))
        return rgb

    def chroma(name: str) -> Tensor:
        values = _to_float(_component(frame.planes, format, name)).sub_(chroma_offset).mul_(1 / chroma_scale)
        return upsample(values, height, width, format.log2_chroma_w, format.log2_chroma_h, color.chroma_location)

    kr, kb = _LUMA_WEIGHTS[color.matrix]
    kg = 1 - kr - kb
    y, cb, cr = lightness("y"), chroma("u"), chroma("v")
    r, g, b = rgb[0]
    torch.add(y, cr, alpha=2 * (1 - kr), out=r)
    torch.add(y, cb, alpha=2 * (1 - kb), out=b)
    torch.add(y, cb, alpha=-2 * (1 - kb) * kb / kg, out=g).add_(cr, alpha=-2 * (1 - kr) * kr / kg)
    return rgb


def weigh_correction(frame: Frame, correction: Tensor, luma: float, chroma: float) -> Tensor:
    """The correction with its lightness and its colour scaled apart.

    In the frame's own Y'CbCr this scales the correction of the Y' plane and of the Cb and Cr planes. RGB pictures
    have no such planes; there the Y', Cb and Cr of the correction are BT.709's. Gray ones have lightness only.

    Args:
        frame: For its format and matrix.
        correction: ``(1, 3, H, W)`` R'G'B' difference.
        luma, chroma: Factors; 0 leaves those planes identical, bit for bit, in integer YUV formats.
    """
    if luma == chroma == 1:
        return correction
    if frame.format.family == "gray":
        return correction * luma
    color = resolve_color(frame.color, frame.format, frame.height, frame.width)
    kr, kb = _LUMA_WEIGHTS[color.matrix or 1]
    y = correction.new_tensor((kr, 1 - kr - kb, kb)).view(1, 3, 1, 1).mul(correction).sum(1, keepdim=True)
    return (correction - y).mul_(chroma).add_(y, alpha=luma)


def apply_correction(frame: Frame, correction: Tensor, dither: Tensor | None = None) -> Frame:
    """Adds the network's correction to the source samples, in their own format, depth and range.

    Args:
        frame: The noisy frame.
        correction: ``(1, 3, H, W)`` R'G'B' difference, clean - noisy, in the units of :func:`to_rgb`.
        dither: ``(H, W)``, values strictly inside (-0.5, 0.5), in steps of the sample's code: added before rounding.

    Returns:
        The frame with new planes: rounded, and clamped to the range of the sample's code. Float samples are not
        clipped. Alpha and padding are untouched. A correction of zero returns the very same samples.
    """
    format = frame.format
    height, width = frame.height, frame.width
    if tuple(correction.shape) != (1, 3, height, width):
        raise FormatError(f"the correction is {tuple(correction.shape)}, but the frame needs (1, 3, {height}, {width})")
    color = resolve_color(frame.color, format, height, width)
    correction = correction[0].float()
    _, luma_scale, _, chroma_scale = _scales(format, color.range)

    if format.family == "gray":
        # Three equally good estimates of one value.
        corrections = {"y": correction.mean(0).mul_(luma_scale)}
    elif format.family == "rgb":
        corrections = {name: correction[i] * luma_scale for i, name in enumerate("rgb")}
    else:
        corrections = _ycbcr(correction, format, color, luma_scale, chroma_scale)

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


def _ycbcr(
    rgb: Tensor, format: PixelFormat, color: ColorInfo, luma_scale: float, chroma_scale: float
) -> dict[str, Tensor]:
    """``(3, H, W)`` R'G'B' differences as differences of Y', Cb and Cr codes, the chroma at its own resolution."""
    kr, kb = _LUMA_WEIGHTS[color.matrix]
    r, g, b = rgb
    # In codes from the start: every pass over a full-size plane that can be folded into another one is.
    y = (g * ((1 - kr - kb) * luma_scale)).add_(r, alpha=kr * luma_scale).add_(b, alpha=kb * luma_scale)
    scratch = torch.empty_like(y)

    def chroma(primary: Tensor, weight: float) -> Tensor:
        torch.sub(y, primary, alpha=luma_scale, out=scratch)
        small = downsample(scratch, format.log2_chroma_w, format.log2_chroma_h, color.chroma_location)
        return small * (-chroma_scale / luma_scale / (2 * (1 - weight)))

    u, v = chroma(b, kb), chroma(r, kr)
    return {"y": y, "u": u, "v": v}


def _add(samples: Tensor, correction: Tensor, format: PixelFormat, dither: Tensor | None) -> Tensor:
    """``samples + correction`` in whole code steps; ``correction`` is ours to change."""
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
