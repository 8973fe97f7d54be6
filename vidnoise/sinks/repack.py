"""Lossless conversion between pixel formats that differ only in the layout of their samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vidnoise.frame import PIXEL_FORMATS, PixelFormat


def canonical(format: PixelFormat) -> PixelFormat:
    """Replace deprecated ``yuvj`` formats, which are ``yuv`` formats with a full-range tag."""
    if format.name.startswith("yuvj"):
        return PIXEL_FORMATS["yuv" + format.name[len("yuvj") :]]
    return format


def components(format: PixelFormat) -> set[str]:
    """Return the components of a format: alpha counts, padding does not."""
    return {c for plane in format.layout for c in plane} - {"x"}


def is_lossless(source: PixelFormat, target: PixelFormat) -> bool:
    """Whether ``target`` can store every sample of ``source`` unchanged."""
    source, target = canonical(source), canonical(target)
    if source.bit_depth != target.bit_depth or not components(source) <= components(target):
        return False
    if source.family == "gray":
        return target.family in ("gray", "yuv")
    return source.family == target.family and (source.log2_chroma_w, source.log2_chroma_h) == (
        target.log2_chroma_w,
        target.log2_chroma_h,
    )


def lossless_target(source: PixelFormat, names: Iterable[str]) -> PixelFormat | None:
    """Return the format closest to ``source`` that loses nothing of it, or None if all of ``names`` lose something."""
    source = canonical(source)
    candidates = [
        PIXEL_FORMATS[name]
        for name in names
        if name in PIXEL_FORMATS and not name.startswith("yuvj") and is_lossless(source, PIXEL_FORMATS[name])
    ]

    def distance(target: PixelFormat) -> tuple[bool, bool, bool, int, int]:
        return (
            target.name != source.name,
            target.family != source.family,
            "a" in components(target) and "a" not in components(source),
            # For a gray picture, as little chroma as possible.
            -(target.log2_chroma_w + target.log2_chroma_h),
            abs(len(target.layout) - len(source.layout)),
        )

    return min(candidates, key=distance, default=None)


def repack(planes: Sequence[Tensor], source: PixelFormat, target: PixelFormat) -> tuple[Tensor, ...]:
    """Move samples from the layout of ``source`` to that of ``target``; :func:`is_lossless` must hold.

    Args:
        planes: Planes shaped by ``source.plane_shape``.
        source: Format of ``planes``.
        target: Format of the result. Components missing from ``source`` are filled: alpha and padding with the
            maximum code, chroma with the neutral one.

    Returns:
        Planes shaped by ``target.plane_shape``.
    """
    source, target = canonical(source), canonical(target)
    if source.layout == target.layout and source.msb_shift == target.msb_shift:
        return tuple(planes)
    found: dict[str, Tensor] = {}
    for names, plane in zip(source.layout, planes, strict=True):
        for i, name in enumerate(names):
            found[name] = plane if len(names) == 1 else plane[..., i]
    height, width = planes[0].shape[:2]
    shift = target.msb_shift - source.msb_shift
    top = 1 if target.is_float else ((1 << target.bit_depth) - 1) << target.msb_shift
    result = []
    for i, names in enumerate(target.layout):
        shape = target.plane_shape(i, height, width)
        plane = torch.empty(shape, dtype=planes[0].dtype)
        for j, name in enumerate(names):
            component = plane if len(names) == 1 else plane[..., j]
            if name in found:
                component.copy_(_shifted(found[name], shift))
            elif name in "uv":
                component.fill_((1 << (target.bit_depth - 1)) << target.msb_shift)
            else:
                component.fill_(top)
        result.append(plane)
    return tuple(result)


def _shifted(samples: Tensor, bits: int) -> Tensor:
    if bits == 0:
        return samples
    # torch has no shifts for uint16 on the CPU.
    wide = samples.to(torch.int32)
    return (wide << bits if bits > 0 else wide >> -bits).to(samples.dtype)
