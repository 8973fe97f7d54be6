# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# Triton compiles these functions: what types they get there, Python does not know.
"""The Haar transform, and the network's residual back to pictures, in one pass each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import OPTIONS, launching_on

BLOCK = (4, 64)
"""Half-resolution pixels of one program, rows and columns."""


@triton.jit
def _haar(image, bands, height, width, CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    n, channel = tl.program_id(2) // CHANNELS, tl.program_id(2) % CHANNELS
    half_height, half_width = height // 2, width // 2
    mask = (i < half_height) & (j < half_width)
    source = image + tl.program_id(2).to(tl.int64) * height * width + 2 * i * width + 2 * j
    a, b = tl.load(source, mask=mask), tl.load(source + 1, mask=mask)
    c, d = tl.load(source + width, mask=mask), tl.load(source + width + 1, mask=mask)
    ab, cd, a_b, c_d = a + b, c + d, a - b, c - d
    band = half_height * half_width
    target = bands + (n * 4 * CHANNELS + channel).to(tl.int64) * band + i * half_width + j
    tl.store(target, (ab + cd) * 0.5, mask=mask)
    tl.store(target + CHANNELS * band, (a_b + c_d) * 0.5, mask=mask)
    tl.store(target + 2 * CHANNELS * band, (ab - cd) * 0.5, mask=mask)
    tl.store(target + 3 * CHANNELS * band, (a_b - c_d) * 0.5, mask=mask)


def haar(image: Tensor) -> Tensor:
    """:func:`vidnoise.model.wavelet.haar` of ``(N, C, H, W)`` float32."""
    image = image.contiguous()
    n, channels, height, width = image.shape
    bands = image.new_empty(n, 4 * channels, height // 2, width // 2)
    grid = (triton.cdiv(width // 2, BLOCK[1]), triton.cdiv(height // 2, BLOCK[0]), n * channels)
    with launching_on(image.device):
        _haar[grid](image, bands, height, width, channels, *BLOCK, **OPTIONS)
    return bands


@triton.jit
def _squares(low, horizontal, vertical, diagonal):
    """The four pixels of each square, see model.wavelet.inverse_haar."""
    low, horizontal, vertical, diagonal = low * 0.5, horizontal * 0.5, vertical * 0.5, diagonal * 0.5
    lv, hd, l_v, h_d = low + vertical, horizontal + diagonal, low - vertical, horizontal - diagonal
    return tl.interleave(lv + hd, lv - hd), tl.interleave(l_v + h_d, l_v - h_d)


@triton.jit
def _restore(fused_bands, left, residual, clean, fused, height, width, residual_n, residual_c, residual_h, residual_w,
             ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    n = tl.program_id(2).to(tl.int64)
    half_width = width // 2
    mask = (i < height // 2) & (j < half_width)
    x = tl.program_id(0) * 2 * COLUMNS + tl.arange(0, 2 * COLUMNS)[None, :]
    wide = (i < height // 2) & (x < width)
    band = (height // 2) * half_width
    at = i * half_width + j
    noise = residual + n * residual_n + i * residual_h + j * residual_w
    for channel in range(3):
        f = fused_bands + (n * 12 + channel) * band + at
        f0, f1 = tl.load(f, mask=mask), tl.load(f + 3 * band, mask=mask)
        f2, f3 = tl.load(f + 6 * band, mask=mask), tl.load(f + 9 * band, mask=mask)
        level = left + (n * 6 + channel) * band + at
        low, detail = tl.load(level, mask=mask), tl.load(level + 3 * band, mask=mask)
        r = noise + channel * residual_c
        r0 = tl.load(r, mask=mask).to(tl.float32)
        r1 = tl.load(r + 3 * residual_c, mask=mask).to(tl.float32)
        r2 = tl.load(r + 6 * residual_c, mask=mask).to(tl.float32)
        r3 = tl.load(r + 9 * residual_c, mask=mask).to(tl.float32)
        target = (n * 3 + channel) * height * width + 2 * i * width + x
        upper, lower = _squares(f0, f1, f2, f3)
        tl.store(fused + target, upper, mask=wide)
        tl.store(fused + target + width, lower, mask=wide)
        upper, lower = _squares(f0 - low * r0, f1 - detail * r1, f2 - detail * r2, f3 - detail * r3)
        tl.store(clean + target, upper, mask=wide)
        tl.store(clean + target + width, lower, mask=wide)


def restore(
    fused_bands: Tensor, left: Tensor, residual: Tensor, *, clean: Tensor | None = None, fused: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """From bands to pictures: what the network makes of a frame, and the frame that it fused.

    Args:
        fused_bands: ``(N, 12, h, w)`` float32.
        left: ``(N, 6, h, w)`` float32: the level of the noise left in them.
        residual: ``(N, 12, h, w)`` of any float type and layout: that noise in units of its level.
        clean, fused: where to put the results, ``(N, 3, 2h, 2w)`` float32, contiguous; new by default.

    Returns:
        ``inverse_haar(fused_bands - per_band(left) * residual)`` and ``inverse_haar(fused_bands)``.
    """
    n, _, h, w = fused_bands.shape
    height, width = 2 * h, 2 * w
    clean = fused_bands.new_empty(n, 3, height, width) if clean is None else clean
    fused = torch.empty_like(clean) if fused is None else fused
    grid = (triton.cdiv(w, BLOCK[1]), triton.cdiv(h, BLOCK[0]), n)
    with launching_on(clean.device):
        _restore[grid](
            fused_bands.contiguous(), left.contiguous(), residual, clean, fused, height, width, *residual.stride(),
            *BLOCK, **OPTIONS,
        )  # fmt: skip
    return clean, fused
