# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# Triton compiles these functions with types that are unknown to Python.
"""Fused conversions from pictures to the network's bands, and from bands and residual back to pictures."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from vidnoise.kernels import OPTIONS, launching_on
from vidnoise.model.luma_chroma import ROTATION

BLOCK = (4, 64)
"""Rows and columns of half-resolution pixels per program."""

LUMA = tl.constexpr(ROTATION[0][0])
SIDES = tl.constexpr(ROTATION[1][0])
OUTER, MIDDLE = tl.constexpr(ROTATION[2][0]), tl.constexpr(ROTATION[2][1])


@triton.jit
def _to_luma_chroma(red, green, blue):
    """See model.luma_chroma.rgb_to_luma_chroma."""
    sides = red + blue
    return (sides + green) * LUMA, (red - blue) * SIDES, sides * OUTER + green * MIDDLE


@triton.jit
def _to_rgb(luma, first, second):
    """See model.luma_chroma.luma_chroma_to_rgb."""
    sides, difference = luma * LUMA + second * OUTER, first * SIDES
    return sides + difference, luma * LUMA + second * MIDDLE, sides - difference


@triton.jit
def _store_squares(target, band, mask, a, b, c, d):
    """Store the bands of one channel from the four pixels of each square; see model.wavelet.haar."""
    ab, cd, a_b, c_d = a + b, c + d, a - b, c - d
    tl.store(target, (ab + cd) * 0.5, mask=mask)
    tl.store(target + 3 * band, (a_b + c_d) * 0.5, mask=mask)
    tl.store(target + 6 * band, (ab - cd) * 0.5, mask=mask)
    tl.store(target + 9 * band, (a_b - c_d) * 0.5, mask=mask)


@triton.jit
def store_bands(target, band, mask, ra, rb, rc, rd, ga, gb, gc, gd, ba, bb, bc, bd):
    """Store all bands of a picture from red, green and blue of the four pixels of each square.

    ``target`` points to the first band of each square; ``band`` is the stride from one band to the next.
    """
    ya, fa, sa = _to_luma_chroma(ra, ga, ba)
    yb, fb, sb = _to_luma_chroma(rb, gb, bb)
    yc, fc, sc = _to_luma_chroma(rc, gc, bc)
    yd, fd, sd = _to_luma_chroma(rd, gd, bd)
    _store_squares(target, band, mask, ya, yb, yc, yd)
    _store_squares(target + band, band, mask, fa, fb, fc, fd)
    _store_squares(target + 2 * band, band, mask, sa, sb, sc, sd)


@triton.jit
def _rgb_to_bands(image, bands, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    n = tl.program_id(2).to(tl.int64)
    half_height, half_width = height // 2, width // 2
    mask = (i < half_height) & (j < half_width)
    plane = height * width
    red = image + n * 3 * plane + 2 * i * width + 2 * j
    green, blue = red + plane, red + 2 * plane
    band = half_height * half_width
    store_bands(
        bands + n * 12 * band + i * half_width + j, band, mask,
        tl.load(red, mask=mask), tl.load(red + 1, mask=mask),
        tl.load(red + width, mask=mask), tl.load(red + width + 1, mask=mask),
        tl.load(green, mask=mask), tl.load(green + 1, mask=mask),
        tl.load(green + width, mask=mask), tl.load(green + width + 1, mask=mask),
        tl.load(blue, mask=mask), tl.load(blue + 1, mask=mask),
        tl.load(blue + width, mask=mask), tl.load(blue + width + 1, mask=mask),
    )  # fmt: skip


def rgb_to_bands(rgb: Tensor) -> Tensor:
    """Compute :func:`vidnoise.model.luma_chroma.rgb_to_bands` of ``(N, 3, H, W)`` float32."""
    rgb = rgb.contiguous()
    n, _, height, width = rgb.shape
    bands = rgb.new_empty(n, 12, height // 2, width // 2)
    with launching_on(rgb.device):
        _rgb_to_bands[_grid(bands)](rgb, bands, height, width, *BLOCK, **OPTIONS)
    return bands


def _grid(bands: Tensor) -> tuple[int, int, int]:
    n, _, h, w = bands.shape
    return triton.cdiv(w, BLOCK[1]), triton.cdiv(h, BLOCK[0]), n


@triton.jit
def _pixels(low, horizontal, vertical, diagonal):
    """Return the upper and lower rows of the squares of one channel; see model.wavelet.inverse_haar."""
    low, horizontal, vertical, diagonal = low * 0.5, horizontal * 0.5, vertical * 0.5, diagonal * 0.5
    lv, hd, l_v, h_d = low + vertical, horizontal + diagonal, low - vertical, horizontal - diagonal
    return tl.interleave(lv + hd, lv - hd), tl.interleave(l_v + h_d, l_v - h_d)


@triton.jit
def _load_channel(bands, band, mask):
    return (tl.load(bands, mask=mask), tl.load(bands + 3 * band, mask=mask),
            tl.load(bands + 6 * band, mask=mask), tl.load(bands + 9 * band, mask=mask))  # fmt: skip


@triton.jit
def _less_noise(f0, f1, f2, f3, remaining, residual, band, residual_c, mask):
    """Subtract the remaining noise from the bands of one channel."""
    low, detail = tl.load(remaining, mask=mask), tl.load(remaining + 3 * band, mask=mask)
    r0 = tl.load(residual, mask=mask).to(tl.float32)
    r1 = tl.load(residual + 3 * residual_c, mask=mask).to(tl.float32)
    r2 = tl.load(residual + 6 * residual_c, mask=mask).to(tl.float32)
    r3 = tl.load(residual + 9 * residual_c, mask=mask).to(tl.float32)
    return f0 - low * r0, f1 - detail * r1, f2 - detail * r2, f3 - detail * r3


@triton.jit
def _store_row(target, plane, mask, luma, first, second):
    red, green, blue = _to_rgb(luma, first, second)
    tl.store(target, red, mask=mask)
    tl.store(target + plane, green, mask=mask)
    tl.store(target + 2 * plane, blue, mask=mask)


@triton.jit
def _store_picture(target, width, plane, mask, y0, y1, y2, y3, f0, f1, f2, f3, s0, s1, s2, s3):
    """Store red, green and blue from the bands of luma and chroma."""
    y_upper, y_lower = _pixels(y0, y1, y2, y3)
    f_upper, f_lower = _pixels(f0, f1, f2, f3)
    s_upper, s_lower = _pixels(s0, s1, s2, s3)
    _store_row(target, plane, mask, y_upper, f_upper, s_upper)
    _store_row(target + width, plane, mask, y_lower, f_lower, s_lower)


@triton.jit
def _bands_to_rgb(bands, rgb, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    x = tl.program_id(0) * 2 * COLUMNS + tl.arange(0, 2 * COLUMNS)[None, :]
    n = tl.program_id(2).to(tl.int64)
    half_width = width // 2
    mask = (i < height // 2) & (j < half_width)
    wide = (i < height // 2) & (x < width)
    band, plane = (height // 2) * half_width, height * width
    source = bands + n * 12 * band + i * half_width + j
    y0, y1, y2, y3 = _load_channel(source, band, mask)
    f0, f1, f2, f3 = _load_channel(source + band, band, mask)
    s0, s1, s2, s3 = _load_channel(source + 2 * band, band, mask)
    _store_picture(rgb + n * 3 * plane + 2 * i * width + x, width, plane, wide,
                   y0, y1, y2, y3, f0, f1, f2, f3, s0, s1, s2, s3)  # fmt: skip


def bands_to_rgb(bands: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Compute :func:`vidnoise.model.luma_chroma.bands_to_rgb` of ``(N, 12, h, w)`` float32.

    Args:
        bands: Luma and chroma.
        out: Receives the picture, ``(N, 3, 2h, 2w)`` float32, contiguous; a new tensor by default.
    """
    out = _picture(bands) if out is None else out
    with launching_on(out.device):
        _bands_to_rgb[_grid(bands)](bands.contiguous(), out, *out.shape[2:], *BLOCK, **OPTIONS)
    return out


def _picture(bands: Tensor) -> Tensor:
    n, _, h, w = bands.shape
    return bands.new_empty(n, 3, 2 * h, 2 * w)


@triton.jit
def _remove_noise(bands, remaining, residual, fused_bands, clean, fused, height, width,
             residual_n, residual_c, residual_h, residual_w,
             IS_SAME: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    x = tl.program_id(0) * 2 * COLUMNS + tl.arange(0, 2 * COLUMNS)[None, :]
    n = tl.program_id(2).to(tl.int64)
    half_width = width // 2
    mask = (i < height // 2) & (j < half_width)
    wide = (i < height // 2) & (x < width)
    band, plane = (height // 2) * half_width, height * width
    at, picture = i * half_width + j, n * 3 * plane + 2 * i * width + x
    source = bands + n * 12 * band + at
    y0, y1, y2, y3 = _load_channel(source, band, mask)
    f0, f1, f2, f3 = _load_channel(source + band, band, mask)
    s0, s1, s2, s3 = _load_channel(source + 2 * band, band, mask)
    if IS_SAME:
        _store_picture(fused + picture, width, plane, wide, y0, y1, y2, y3, f0, f1, f2, f3, s0, s1, s2, s3)
    else:
        other = fused_bands + n * 12 * band + at
        a0, a1, a2, a3 = _load_channel(other, band, mask)
        b0, b1, b2, b3 = _load_channel(other + band, band, mask)
        c0, c1, c2, c3 = _load_channel(other + 2 * band, band, mask)
        _store_picture(fused + picture, width, plane, wide, a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3)
    level = remaining + n * 6 * band + at
    noise = residual + n * residual_n + i * residual_h + j * residual_w
    y0, y1, y2, y3 = _less_noise(y0, y1, y2, y3, level, noise, band, residual_c, mask)
    f0, f1, f2, f3 = _less_noise(f0, f1, f2, f3, level + band, noise + residual_c, band, residual_c, mask)
    s0, s1, s2, s3 = _less_noise(s0, s1, s2, s3, level + 2 * band, noise + 2 * residual_c, band, residual_c, mask)
    _store_picture(clean + picture, width, plane, wide, y0, y1, y2, y3, f0, f1, f2, f3, s0, s1, s2, s3)


def remove_noise(
    bands: Tensor, remaining: Tensor, residual: Tensor, fused_bands: Tensor,
    *, clean: Tensor | None = None, fused: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute :meth:`vidnoise.model.operations.Operations.remove_noise`.

    Args:
        bands: ``(N, 12, h, w)`` float32.
        remaining: ``(N, 6, h, w)`` float32, level of the noise that remains in them.
        residual: ``(N, 12, h, w)`` of any float type and layout: that noise in units of its level.
        fused_bands: ``(N, 12, h, w)`` float32, the remembered estimate; if it is ``bands`` itself, it is read only
            once.
        clean, fused: Receive the results, ``(N, 3, 2h, 2w)`` float32, contiguous; new tensors by default.

    Returns:
        The clean frame, ``bands_to_rgb(bands - per_band(remaining) * residual)``, and ``bands_to_rgb(fused_bands)``.
    """
    clean = _picture(bands) if clean is None else clean
    fused = _picture(bands) if fused is None else fused
    is_same = fused_bands is bands
    bands = bands.contiguous()
    with launching_on(clean.device):
        _remove_noise[_grid(bands)](
            bands, remaining.contiguous(), residual, bands if is_same else fused_bands.contiguous(), clean, fused,
            *clean.shape[2:], *residual.stride(), is_same, *BLOCK, **OPTIONS,
        )  # fmt: skip
    return clean, fused
