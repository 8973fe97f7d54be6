"""Static HDR10 metadata as options of the encoders that support it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

_PARAMS_OPTION = {"libx265": "x265-params", "libx264": "x264-params", "libsvtav1": "svtav1-params"}


def hdr_options(encoder: str, hdr: dict[str, Any], options: dict[str, str]) -> dict[str, str] | None:
    """Return ``options`` with the metadata added, or None if the encoder cannot store it.

    Args:
        encoder: FFmpeg's name of the encoder.
        hdr: Metadata as ``sources.description.hdr_metadata`` returns it; may be empty.
        options: The encoder's options so far; not modified.
    """
    if not hdr:
        return options
    option = _PARAMS_OPTION.get(encoder)
    if option is None:
        return None
    parts = [options[option]] if option in options else []
    if "mastering_display" in hdr:
        key = "mastering-display" if encoder != "libx265" else "master-display"
        parts.append(f"{key}={_mastering(hdr['mastering_display'], as_fractions=encoder == 'libsvtav1')}")
    if "content_light" in hdr:
        peak, average = hdr["content_light"]
        key = {"libx265": "max-cll", "libx264": "cll", "libsvtav1": "content-light"}[encoder]
        parts.append(f"{key}={peak},{average}")
    return {**options, option: ":".join(parts)}


def _mastering(values: Sequence[Fraction], *, as_fractions: bool) -> str:
    """Format mastering display metadata as ``G(..)B(..)R(..)WP(..)L(max,min)``.

    Args:
        values: X and y of red, green, blue and white, then the minimum and maximum luminance in cd/m².
        as_fractions: Whether to write decimal fractions, rather than integer multiples of the encoder's unit.
    """

    def pair(a: Fraction, b: Fraction, unit: int) -> str:
        return f"({float(a):.5f},{float(b):.5f})" if as_fractions else f"({round(a * unit)},{round(b * unit)})"

    rx, ry, gx, gy, bx, by, wx, wy, low, high = values
    chroma, light = 50_000, 10_000
    return (
        f"G{pair(gx, gy, chroma)}B{pair(bx, by, chroma)}R{pair(rx, ry, chroma)}"
        f"WP{pair(wx, wy, chroma)}L{pair(high, low, light)}"
    )
