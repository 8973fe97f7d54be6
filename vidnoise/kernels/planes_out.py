# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# Triton compiles these functions with types that are unknown to Python. Planes, strides and coefficients are separate
# arguments, as Triton before 3.3 takes no tuples.
"""Fused application of the network's output to the source's samples: matrix, chroma resampling and rounding."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidnoise.color.chroma import siting, taps
from vidnoise.color.colorimetry import coefficients
from vidnoise.errors import FormatError
from vidnoise.frame import Frame
from vidnoise.kernels import OPTIONS, launching_on
from vidnoise.kernels.planes import check_covers, components, targets

BLOCK = (4, 64)
"""Rows and columns of chroma samples per program."""


@triton.jit
def _difference(clean, noisy, clean_plane, clean_row, noisy_plane, noisy_row, y, x, mask, strength,
                HAS_NOISY: tl.constexpr):  # fmt: skip
    """Return the differences of R, G and B at (y, x)."""
    at = clean + y * clean_row + x
    r = tl.load(at, mask=mask, other=0.0)
    g = tl.load(at + clean_plane, mask=mask, other=0.0)
    b = tl.load(at + 2 * clean_plane, mask=mask, other=0.0)
    if HAS_NOISY:
        at = noisy + y * noisy_row + x
        r = (r - tl.load(at, mask=mask, other=0.0)) * strength
        g = (g - tl.load(at + noisy_plane, mask=mask, other=0.0)) * strength
        b = (b - tl.load(at + 2 * noisy_plane, mask=mask, other=0.0)) * strength
    return r, g, b


@triton.jit
def _add(source, target, source_row, source_column, target_row, target_column, y, x, mask, correction, step, top):
    """Store ``source + correction``, in whole code steps and clamped to the codes' range."""
    raw = tl.load(source + y * source_row + x * source_column, mask=mask, other=0).to(tl.int32).to(tl.float32)
    # Larger values end at the clamp anyway, and the rounding below is valid up to 2**22.
    steps = tl.minimum(tl.maximum(correction * (1.0 / step), -2097152.0), 2097152.0)
    whole = (steps + 12582912.0) - 12582912.0  # to nearest, ties to even: float32 has no fractions near 1.5 * 2**23
    value = tl.minimum(tl.maximum(whole * step + raw, 0.0), top)
    at = target + y * target_row + x * target_column
    tl.store(at, value.to(tl.int32).to(target.dtype.element_ty), mask=mask)


@triton.jit
def _apply(clean, noisy, p0, p1, p2, q0, q1, q2, clean_plane, clean_row, noisy_plane, noisy_row,
           r0, k0, r1, k1, r2, k2, s0, t0, s1, t1, s2, t2,
           height, width, chroma_height, chroma_width, strength, red, green, blue, scale, to_u, to_v,
           weights_y, weights_x, step, top,
           HAS_NOISY: tl.constexpr, FAMILY: tl.constexpr, FACTOR_Y: tl.constexpr, FACTOR_X: tl.constexpr,
           FIRST_Y: tl.constexpr, TAPS_Y: tl.constexpr, FIRST_X: tl.constexpr, TAPS_X: tl.constexpr,
           ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    y = tl.program_id(1) * (ROWS * FACTOR_Y) + tl.arange(0, ROWS * FACTOR_Y)[:, None]
    x = tl.program_id(0) * (COLUMNS * FACTOR_X) + tl.arange(0, COLUMNS * FACTOR_X)[None, :]
    mask = (y < height) & (x < width)
    r, g, b = _difference(clean, noisy, clean_plane, clean_row, noisy_plane, noisy_row, y, x, mask, strength, HAS_NOISY)
    if FAMILY == "rgb":
        _add(p0, q0, r0, k0, s0, t0, y, x, mask, r * scale, step, top)
        _add(p1, q1, r1, k1, s1, t1, y, x, mask, g * scale, step, top)
        _add(p2, q2, r2, k2, s2, t2, y, x, mask, b * scale, step, top)
    elif FAMILY == "gray":
        _add(p0, q0, r0, k0, s0, t0, y, x, mask, tl.div_rn(r + g + b, tl.zeros_like(r) + 3.0) * scale, step, top)
    else:
        _add(p0, q0, r0, k0, s0, t0, y, x, mask, (r + g + b) * (scale / 3), step, top)  # centred
        i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
        j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        inside = (i < chroma_height) & (j < chroma_width)
        u = tl.zeros((ROWS, COLUMNS), tl.float32)
        v = tl.zeros((ROWS, COLUMNS), tl.float32)
        for k in tl.static_range(FIRST_X, FIRST_X + TAPS_X):
            across = tl.load(weights_x + (k - FIRST_X))
            at_x = tl.minimum(tl.maximum(j * FACTOR_X + k, 0), width - 1)
            for o in tl.static_range(FIRST_Y, FIRST_Y + TAPS_Y):
                down = tl.load(weights_y + (o - FIRST_Y))
                at_y = tl.minimum(tl.maximum(i * FACTOR_Y + o, 0), height - 1)
                r, g, b = _difference(clean, noisy, clean_plane, clean_row, noisy_plane, noisy_row, at_y, at_x, inside,
                                      strength, HAS_NOISY)  # fmt: skip
                luma = g * green + r * red + b * blue
                u += (luma - b * scale) * (across * down)
                v += (luma - r * scale) * (across * down)
        _add(p1, q1, r1, k1, s1, t1, i, j, inside, u * to_u, step, top)
        _add(p2, q2, r2, k2, s2, t2, i, j, inside, v * to_v, step, top)


@lru_cache(maxsize=64)
def _taps(factor: int, offset: float, device: torch.device) -> tuple[int, Tensor]:
    """Return the first offset of :func:`vidnoise.color.chroma.taps`, and the weights on the device."""
    found = taps(factor, offset)
    return found[0][0], torch.tensor([weight for _, weight in found], device=device)


def apply_correction(frame: Frame, clean: Tensor, noisy: Tensor | None = None, strength: float = 1.0) -> Frame:
    """Add ``(clean - noisy) * strength`` to the source samples, in their own format, depth and range.

    Args:
        frame: The noisy frame, of integer samples.
        clean: ``(1, 3, H, W)`` float32 R'G'B'; may extend beyond the frame at the bottom and right.
        noisy: The network's input, from :func:`~vidnoise.kernels.planes_in.to_rgb`, shaped like ``clean``. ``None`` if
            ``clean`` is already a correction.
        strength: Factor on the difference.

    Returns:
        The frame with new planes, as from :func:`vidnoise.color.apply_correction` with ``centred``.

    Raises:
        FormatError: A picture is smaller than the frame, or its rows are not dense.
    """
    format = frame.format
    check_covers(frame, clean=clean, noisy=noisy)
    made = targets(frame)
    before, after = components(frame), components(frame, made)
    k = coefficients(frame)
    site_x, site_y = siting(k.chroma_location, format.log2_chroma_w, format.log2_chroma_h)
    factor_x, factor_y = 1 << format.log2_chroma_w, 1 << format.log2_chroma_h
    first_x, weights_x = _taps(factor_x, site_x, clean.device)
    first_y, weights_y = _taps(factor_y, site_y, clean.device)
    images = (clean, clean if noisy is None else noisy)
    strides = [s for image in images for s in image.stride()[1:3]]
    if any(image.stride(3) != 1 for image in images):
        raise FormatError("pictures for the kernels must have dense rows")
    grid = (triton.cdiv(after[1].shape[1], BLOCK[1]), triton.cdiv(after[1].shape[0], BLOCK[0]))
    with launching_on(clean.device):
        _apply[grid](
            *images, *before, *after, *strides, *(s for p in (*before, *after) for s in p.stride()),
            frame.height, frame.width, *after[1].shape, float(strength), *k.to_luma, k.luma_scale, *k.to_chroma,
            weights_y, weights_x, float(1 << format.msb_shift),
            float((1 << (format.bit_depth + format.msb_shift)) - 1), noisy is not None, format.family,
            factor_y, factor_x, first_y, len(weights_y), first_x, len(weights_x), *BLOCK, **OPTIONS,
        )  # fmt: skip
    return replace(frame, planes=made)
