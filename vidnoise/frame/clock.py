"""Times as people write them."""

from __future__ import annotations

import re


def parse_clock(text: str) -> float | None:
    """Seconds of ``90``, ``.5``, ``1:30`` or ``0:01:30.5``; None where ``text`` is no time."""
    if not re.fullmatch(r"(\d+:){0,2}(\d+(\.\d*)?|\.\d+)", text, re.ASCII):
        return None
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total
