"""Interpretation of sample codes: matrices, ranges and chroma locations."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from vidnoise.frame import ColorInfo, Frame, PixelFormat

LIMITED, FULL = 1, 2

LUMA_WEIGHTS: dict[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),  # ITU-R BT.709-6, item 3.2
    4: (0.30, 0.11),  # FCC Title 47 CFR 73.682
    5: (0.299, 0.114),  # ITU-R BT.601-7 (625 lines), BT.470 System B, G
    6: (0.299, 0.114),  # ITU-R BT.601-7 (525 lines), SMPTE 170M
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # ITU-R BT.2020-2, table 4, non-constant luminance
}
"""``(Kr, Kb)`` by H.273 MatrixCoefficients."""

BT709 = LUMA_WEIGHTS[1]
"""``(Kr, Kb)`` used for RGB pictures, which have no matrix of their own."""

# Matrices that are not linear in R'G'B' (constant luminance, ICtCp, chromaticity-derived). The correction only needs
# one that separates lightness from colour in about the same way, and the substitute is inverted exactly.
_NEAREST = {10: 9, 11: 9, 12: 9, 13: 9, 14: 9}


def resolve_color(color: ColorInfo, format: PixelFormat, height: int, width: int) -> ColorInfo:
    """Fill in unspecified colour properties. All rules for untagged video are here.

    - Matrix: BT.709 from 720 lines or 1280 columns, else BT.601; RGB and gray pictures have none (0).
    - Range: full for ``yuvj*``, RGB, gray and float samples, else limited.
    - Chroma location: centre for ``yuvj*`` (JPEG), else left (MPEG-2 and everything since).

    Returns:
        A :class:`ColorInfo` with a matrix known to this module and a specified range and chroma location.
    """
    matrix, range_, location = color.matrix, color.range, color.chroma_location
    is_jpeg = format.name.startswith("yuvj")
    if format.family != "yuv":
        matrix = 0
    else:
        matrix = _NEAREST.get(matrix, matrix)
        if matrix not in LUMA_WEIGHTS:
            matrix = 1 if height >= 720 or width >= 1280 else 6
    if is_jpeg or format.is_float:
        range_ = FULL
    elif range_ not in (LIMITED, FULL):
        range_ = LIMITED if format.family == "yuv" else FULL
    if not 1 <= location <= 6:
        location = 2 if is_jpeg else 1
    return replace(color, matrix=matrix, range=range_, chroma_location=location)


@lru_cache(maxsize=256)
def code_scales(format: PixelFormat, range_: int) -> tuple[float, float, float, float]:
    """Return ``(luma offset, luma scale, chroma offset, chroma scale)``.

    A sample's code is offset + scale * value (H.273, equations 20-31).
    """
    if format.is_float:
        return 0.0, 1.0, 0.0, 1.0
    step = float(1 << format.msb_shift)
    unit = step * 2.0 ** (format.bit_depth - 8)
    top = step * (2.0**format.bit_depth - 1)
    if range_ == LIMITED:
        return 16 * unit, 219 * unit, 128 * unit, 224 * unit
    return 0.0, top, 128 * unit, top


class Coefficients(NamedTuple):
    """Coefficients of the conversion between the samples of a frame and R'G'B'."""

    luma_offset: float
    luma_scale: float
    chroma_offset: float
    chroma_scale: float
    """These four are from :func:`code_scales`; those of luma apply to R'G'B' and gray samples too."""
    chroma_location: int
    from_chroma: tuple[float, float, float, float]
    """R' = Y' + [0] Cr, G' = Y' + [1] Cb + [2] Cr, B' = Y' + [3] Cb."""
    mean_chroma: tuple[float, float]
    """(R' + G' + B')/3 = Y' + [0] Cb + [1] Cr."""
    to_luma: tuple[float, float, float]
    """For differences: Y' code = [0] R' + [1] G' + [2] B'."""
    to_chroma: tuple[float, float]
    """For differences: Cb code = [0] (Y' code - B' luma_scale), Cr code = [1] (Y' code - R' luma_scale)."""


def coefficients(frame: Frame) -> Coefficients:
    """Return the coefficients for ``frame``; RGB and gray pictures, which have no matrix, use BT.709's."""
    return _coefficients(frame.format, resolve_color(frame.color, frame.format, frame.height, frame.width))


def luma_weights(color: ColorInfo, format: PixelFormat, height: int, width: int) -> tuple[float, float]:
    """Return ``(Kr, Kb)`` of a video; RGB and gray pictures, which have no matrix, use BT.709's."""
    return LUMA_WEIGHTS[resolve_color(color, format, height, width).matrix or 1]


@lru_cache(maxsize=256)
def _coefficients(format: PixelFormat, color: ColorInfo) -> Coefficients:
    scales = code_scales(format, color.range)
    _, luma_scale, _, chroma_scale = scales
    kr, kb = LUMA_WEIGHTS[color.matrix or 1]
    kg = 1 - kr - kb
    red_cr, green_cb, green_cr, blue_cb = 2 * (1 - kr), -2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg, 2 * (1 - kb)
    return Coefficients(
        *scales,
        color.chroma_location,
        (red_cr, green_cb, green_cr, blue_cb),
        ((green_cb + blue_cb) / 3, (red_cr + green_cr) / 3),
        (kr * luma_scale, kg * luma_scale, kb * luma_scale),
        (-chroma_scale / luma_scale / (2 * (1 - kb)), -chroma_scale / luma_scale / (2 * (1 - kr))),
    )
