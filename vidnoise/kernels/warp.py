# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# Triton compiles these functions with types that are unknown to Python.
"""Fused warping and resetting of the recurrent state."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidnoise.kernels import OPTIONS, launching_on
from vidnoise.kernels.bands import store_bands

BLOCK = (4, 32)
"""Rows and columns of half-resolution pixels per program."""


@triton.jit
def _cubic(distance):
    """Return the weight of a sample at a distance: cubic convolution with a = -0.75, as in PyTorch and OpenCV."""
    x = tl.abs(distance)
    near = (1.25 * x - 2.25) * x * x + 1.0
    far = ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0
    return tl.where(x <= 1.0, near, far)


@triton.jit
def _bicubic(image, plane, y, x, height, width, mask):
    """Sample red, green and blue at (y, x) in pixels; edge pixels are repeated beyond the picture."""
    top, left = tl.floor(y), tl.floor(x)
    red, green, blue = tl.zeros_like(y), tl.zeros_like(y), tl.zeros_like(y)
    for m in range(4):  # not unrolled, which would take the compiler 15 seconds
        # The taps of a wild flow may lie outside the range of int32, so they are clamped as floats.
        row = tl.minimum(tl.maximum(top + (m - 1), 0.0), height - 1.0).to(tl.int32)
        r, g, b = tl.zeros_like(y), tl.zeros_like(y), tl.zeros_like(y)
        for k in tl.static_range(4):
            column = tl.minimum(tl.maximum(left + (k - 1), 0.0), width - 1.0).to(tl.int32)
            at = image + row * width + column
            across = _cubic(x - left - (k - 1))
            r += tl.load(at, mask=mask, other=0.0) * across
            g += tl.load(at + plane, mask=mask, other=0.0) * across
            b += tl.load(at + 2 * plane, mask=mask, other=0.0) * across
        down = _cubic(y - top - (m - 1))
        red += r * down
        green += g * down
        blue += b * down
    return red, green, blue


@triton.jit
def _flow_at(flow, i, j, di: tl.constexpr, dj: tl.constexpr, half_height, half_width, mask):
    """Return the flow of one of a square's four pixels, in full-resolution pixels: bilinear from half resolution."""
    near = flow + i * half_width + j
    i1 = tl.minimum(tl.maximum(i + 2 * di - 1, 0), half_height - 1)
    j1 = tl.minimum(tl.maximum(j + 2 * dj - 1, 0), half_width - 1)
    a = tl.load(near, mask=mask, other=0.0)
    b = tl.load(flow + i * half_width + j1, mask=mask, other=0.0)
    c = tl.load(flow + i1 * half_width + j, mask=mask, other=0.0)
    d = tl.load(flow + i1 * half_width + j1, mask=mask, other=0.0)
    return 2 * (0.75 * (0.75 * a + 0.25 * b) + 0.25 * (0.75 * c + 0.25 * d))


@triton.jit
def _pixel(image, flow, i, j, di: tl.constexpr, dj: tl.constexpr, height, width, mask):
    half_height, half_width = height // 2, width // 2
    x = (2 * j + dj).to(tl.float32) + _flow_at(flow, i, j, di, dj, half_height, half_width, mask)
    y = (2 * i + di).to(tl.float32) + _flow_at(
        flow + half_height * half_width, i, j, di, dj, half_height, half_width, mask
    )
    return _bicubic(image, height * width, y, x, height, width, mask)


@triton.jit
def _warp_bands(image, flow, bands, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    n = tl.program_id(2).to(tl.int64)
    half_height, half_width = height // 2, width // 2
    band = half_height * half_width
    mask = (i < half_height) & (j < half_width)
    source = image + n * 3 * height * width
    motion = flow + n * 2 * band
    ra, ga, ba = _pixel(source, motion, i, j, 0, 0, height, width, mask)
    rb, gb, bb = _pixel(source, motion, i, j, 0, 1, height, width, mask)
    rc, gc, bc = _pixel(source, motion, i, j, 1, 0, height, width, mask)
    rd, gd, bd = _pixel(source, motion, i, j, 1, 1, height, width, mask)
    store_bands(bands + n * 12 * band + i * half_width + j, band, mask, ra, rb, rc, rd, ga, gb, gc, gd, ba, bb, bc, bd)


def warp_bands(image: Tensor, flow: Tensor) -> Tensor:
    """Warp a picture bicubically by a flow of half its resolution and return its bands.

    Args:
        image: ``(N, 3, H, W)`` RGB, float32, H and W even; all values finite.
        flow: ``(N, 2, H/2, W/2)`` float32, in pixels of its own resolution.

    Returns:
        ``(N, 12, H/2, W/2)``.
    """
    image, flow = image.contiguous(), flow.float().contiguous()
    n, _, height, width = image.shape
    bands = image.new_empty(n, 12, height // 2, width // 2)
    grid = (triton.cdiv(width // 2, BLOCK[1]), triton.cdiv(height // 2, BLOCK[0]), n)
    with launching_on(image.device):
        _warp_bands[grid](image, flow, bands, height, width, *BLOCK, **OPTIONS)
    return bands


@triton.jit
def _warp_ratio(ratio, flow, out, height, width, unknown, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
                COLUMNS: tl.constexpr):  # fmt: skip
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    n = tl.program_id(2).to(tl.int64)
    plane = height * width
    mask = (i < height) & (j < width)
    at = i * width + j
    x = j.to(tl.float32) + tl.load(flow + n * 2 * plane + at, mask=mask, other=0.0)
    y = i.to(tl.float32) + tl.load(flow + (n * 2 + 1) * plane + at, mask=mask, other=0.0)
    beyond = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    x = tl.minimum(tl.maximum(x, 0.0), width - 1.0)
    y = tl.minimum(tl.maximum(y, 0.0), height - 1.0)
    left, top = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32)
    right, bottom = tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1)
    across, down = x - left.to(tl.float32), y - top.to(tl.float32)
    for channel in tl.static_range(CHANNELS):
        source = ratio + (n * CHANNELS + channel) * plane
        a = tl.load(source + top * width + left, mask=mask, other=0.0)
        b = tl.load(source + top * width + right, mask=mask, other=0.0)
        c = tl.load(source + bottom * width + left, mask=mask, other=0.0)
        d = tl.load(source + bottom * width + right, mask=mask, other=0.0)
        value = (a * (1 - across) + b * across) * (1 - down) + (c * (1 - across) + d * across) * down
        value += tl.where(beyond, unknown, 0.0)
        tl.store(out + (n * CHANNELS + channel) * plane + at, value, mask=mask)


def warp_ratio(ratio: Tensor, flow: Tensor, unknown: float) -> Tensor:
    """Warp a variance ratio bilinearly, adding ``unknown`` where the flow points outside the picture.

    Args:
        ratio: ``(N, C, h, w)`` float32.
        flow: ``(N, 2, h, w)`` float32, in pixels.
        unknown: Ratio that stands for no knowledge.
    """
    ratio, flow = ratio.contiguous(), flow.float().contiguous()
    n, channels, height, width = ratio.shape
    out = torch.empty_like(ratio)
    grid = (triton.cdiv(width, BLOCK[1]), triton.cdiv(height, BLOCK[0]), n)
    with launching_on(ratio.device):
        _warp_ratio[grid](ratio, flow, out, height, width, unknown, channels, *BLOCK, **OPTIONS)
    return out


@triton.jit
def _reset(tensor, continues, size, value, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    if tl.load(continues + n).to(tl.int32) == 0:
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        blank = tl.zeros((BLOCK,), tl.float32) + value
        tl.store(tensor + n.to(tl.int64) * size + at, blank, mask=at < size)


def reset(tensor: Tensor, continues: Tensor, value: float) -> None:
    """Fill the streams of a contiguous ``(N, ...)`` float32 tensor that are to be reset; the others cost nothing.

    Args:
        tensor: Changed in place.
        continues: ``(N,)`` bool; where false, the stream is filled.
        value: The value to fill it with.

    Raises:
        ValueError: The tensor is not contiguous.
    """
    if not tensor.is_contiguous():
        raise ValueError(f"cannot fill a tensor with strides {tensor.stride()} in place")
    size = tensor[0].numel()
    with launching_on(tensor.device):
        _reset[(triton.cdiv(size, 1024), len(tensor))](
            tensor, continues.view(torch.uint8), size, value, 1024, **OPTIONS
        )
