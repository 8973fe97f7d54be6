# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# Triton compiles these functions with types that are unknown to Python. Planes, strides and coefficients are separate
# arguments, as Triton before 3.3 takes no tuples.
"""Fused conversion of source planes to the network's input: RGB, padded to whole blocks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidnoise.color.chroma import siting
from vidnoise.color.colorimetry import coefficients
from vidnoise.frame import Frame
from vidnoise.kernels import OPTIONS, launching_on
from vidnoise.kernels.planes import components

BLOCK = (4, 64)
"""Rows and columns of half-resolution pixels per program."""


@triton.jit
def _inside(i, size, reflects: tl.constexpr):
    """Map an index beyond the bottom or right edge to the pixel that supplies its value."""
    if reflects:
        return tl.where(i < size, i, 2 * (size - 1) - i)
    return tl.minimum(i, size - 1)


@triton.jit
def _lerp(a, b, weight):
    return tl.where(weight < 0.5, a + weight * (b - a), b - (b - a) * (1 - weight))


@triton.jit
def _load(plane, row_stride, column_stride, y, x, mask):
    # By way of int32, as direct conversion from uint16 to float is not supported everywhere.
    return tl.load(plane + y * row_stride + x * column_stride, mask=mask, other=0).to(tl.int32).to(tl.float32)


@triton.jit
def _chroma(plane, row_stride, column_stride, y, x, mask, height, width, site_x, site_y, offset, scale,
            FACTOR_Y: tl.constexpr, FACTOR_X: tl.constexpr):  # fmt: skip
    """Interpolate a chroma plane linearly at luma position (y, x), as chroma.upsample does."""
    at_y = ((y % FACTOR_Y).to(tl.float32) - site_y) * (1.0 / FACTOR_Y)
    at_x = ((x % FACTOR_X).to(tl.float32) - site_x) * (1.0 / FACTOR_X)
    before_y, before_x = tl.floor(at_y), tl.floor(at_x)
    top = y // FACTOR_Y + before_y.to(tl.int32)
    left = x // FACTOR_X + before_x.to(tl.int32)
    y0, y1 = tl.minimum(tl.maximum(top, 0), height - 1), tl.minimum(tl.maximum(top + 1, 0), height - 1)
    x0, x1 = tl.minimum(tl.maximum(left, 0), width - 1), tl.minimum(tl.maximum(left + 1, 0), width - 1)
    a = (_load(plane, row_stride, column_stride, y0, x0, mask) - offset) * scale
    b = (_load(plane, row_stride, column_stride, y0, x1, mask) - offset) * scale
    c = (_load(plane, row_stride, column_stride, y1, x0, mask) - offset) * scale
    d = (_load(plane, row_stride, column_stride, y1, x1, mask) - offset) * scale
    down = at_y - before_y
    return _lerp(_lerp(a, c, down), _lerp(b, d, down), at_x - before_x)


@triton.jit
def _pixel(p0, p1, p2, r0, k0, r1, k1, r2, k2, y, x, mask, chroma_height, chroma_width, site_x, site_y,
           luma_scale, luma_offset, chroma_offset, chroma_scale, red_cr, green_cb, green_cr, blue_cb,
           mean_cb, mean_cr, FAMILY: tl.constexpr, FACTOR_Y: tl.constexpr, FACTOR_X: tl.constexpr):  # fmt: skip
    """Return R, G and B at (y, x)."""
    first = _load(p0, r0, k0, y, x, mask) * luma_scale - luma_offset
    if FAMILY == "gray":
        return first, first, first
    elif FAMILY == "rgb":
        second = _load(p1, r1, k1, y, x, mask) * luma_scale - luma_offset
        third = _load(p2, r2, k2, y, x, mask) * luma_scale - luma_offset
        return first, second, third
    else:
        cb = _chroma(p1, r1, k1, y, x, mask, chroma_height, chroma_width, site_x, site_y, chroma_offset, chroma_scale,
                     FACTOR_Y, FACTOR_X)  # fmt: skip
        cr = _chroma(p2, r2, k2, y, x, mask, chroma_height, chroma_width, site_x, site_y, chroma_offset, chroma_scale,
                     FACTOR_Y, FACTOR_X)  # fmt: skip
        centred = first - mean_cb * cb - mean_cr * cr
        return centred + red_cr * cr, centred + green_cb * cb + green_cr * cr, centred + blue_cb * cb


@triton.jit
def _planes_to_rgb(p0, p1, p2, rgb, r0, k0, r1, k1, r2, k2, height, width, padded_height, padded_width,
                   chroma_height, chroma_width, site_x, site_y, luma_scale, luma_offset, chroma_offset, chroma_scale,
                   red_cr, green_cb, green_cr, blue_cb, mean_cb, mean_cr,
                   FAMILY: tl.constexpr, FACTOR_Y: tl.constexpr, FACTOR_X: tl.constexpr, REFLECTS: tl.constexpr,
                   ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    half_width = padded_width // 2
    mask = (i < padded_height // 2) & (j < half_width)
    y0, y1 = _inside(2 * i, height, REFLECTS), _inside(2 * i + 1, height, REFLECTS)
    x0, x1 = _inside(2 * j, width, REFLECTS), _inside(2 * j + 1, width, REFLECTS)
    ra, ga, ba = _pixel(p0, p1, p2, r0, k0, r1, k1, r2, k2, y0, x0, mask, chroma_height, chroma_width, site_x, site_y,
                        luma_scale, luma_offset, chroma_offset, chroma_scale, red_cr, green_cb, green_cr, blue_cb,
                        mean_cb, mean_cr, FAMILY, FACTOR_Y, FACTOR_X)  # fmt: skip
    rb, gb, bb = _pixel(p0, p1, p2, r0, k0, r1, k1, r2, k2, y0, x1, mask, chroma_height, chroma_width, site_x, site_y,
                        luma_scale, luma_offset, chroma_offset, chroma_scale, red_cr, green_cb, green_cr, blue_cb,
                        mean_cb, mean_cr, FAMILY, FACTOR_Y, FACTOR_X)  # fmt: skip
    rc, gc, bc = _pixel(p0, p1, p2, r0, k0, r1, k1, r2, k2, y1, x0, mask, chroma_height, chroma_width, site_x, site_y,
                        luma_scale, luma_offset, chroma_offset, chroma_scale, red_cr, green_cb, green_cr, blue_cb,
                        mean_cb, mean_cr, FAMILY, FACTOR_Y, FACTOR_X)  # fmt: skip
    rd, gd, bd = _pixel(p0, p1, p2, r0, k0, r1, k1, r2, k2, y1, x1, mask, chroma_height, chroma_width, site_x, site_y,
                        luma_scale, luma_offset, chroma_offset, chroma_scale, red_cr, green_cb, green_cr, blue_cb,
                        mean_cb, mean_cr, FAMILY, FACTOR_Y, FACTOR_X)  # fmt: skip
    # Interleaved, so that neighbouring threads write neighbouring pixels.
    x = tl.program_id(0) * 2 * COLUMNS + tl.arange(0, 2 * COLUMNS)[None, :]
    wide = (i < padded_height // 2) & (x < padded_width)
    at = 2 * i * padded_width + x
    plane = padded_height * padded_width
    tl.store(rgb + at, tl.interleave(ra, rb), mask=wide)
    tl.store(rgb + at + padded_width, tl.interleave(rc, rd), mask=wide)
    tl.store(rgb + plane + at, tl.interleave(ga, gb), mask=wide)
    tl.store(rgb + plane + at + padded_width, tl.interleave(gc, gd), mask=wide)
    tl.store(rgb + 2 * plane + at, tl.interleave(ba, bb), mask=wide)
    tl.store(rgb + 2 * plane + at + padded_width, tl.interleave(bc, bd), mask=wide)


def to_rgb(frame: Frame, multiple: int = 1, *, rgb: Tensor | None = None) -> Tensor:
    """Convert a frame to the network's input, padded to whole blocks.

    Args:
        frame: A frame of integer samples, on the device.
        multiple: Height and width are padded to multiples of this, by reflection where the picture is large enough,
            else by repeating its border; 1 rounds up to even numbers.
        rgb: Receives the picture, ``(1, 3, H, W)`` float32, contiguous; a new tensor by default.

    Returns:
        ``(1, 3, H, W)`` centred R'G'B', as from :func:`vidnoise.color.to_rgb`.
    """
    format = frame.format
    multiple = max(2, multiple)
    bottom, right = -frame.height % multiple, -frame.width % multiple
    height, width = frame.height + bottom, frame.width + right
    if rgb is None:
        rgb = torch.empty(1, 3, height, width, device=frame.planes[0].device)
    planes = components(frame)
    k = coefficients(frame)
    site_x, site_y = siting(k.chroma_location, format.log2_chroma_w, format.log2_chroma_h)
    grid = (triton.cdiv(width // 2, BLOCK[1]), triton.cdiv(height // 2, BLOCK[0]))
    with launching_on(rgb.device):
        _planes_to_rgb[grid](
            *planes, rgb, *(s for p in planes for s in p.stride()),
            frame.height, frame.width, height, width, *planes[1].shape, site_x, site_y,
            1 / k.luma_scale, k.luma_offset / k.luma_scale, k.chroma_offset, 1 / k.chroma_scale, *k.from_chroma,
            *k.mean_chroma,
            format.family, 1 << format.log2_chroma_h, 1 << format.log2_chroma_w,
            bottom < frame.height and right < frame.width, *BLOCK, **OPTIONS,
        )  # fmt: skip
    return rgb
