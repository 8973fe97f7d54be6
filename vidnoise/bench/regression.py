"""Detection of slowdowns between two results files, by ratios of times corrected for the speed of the machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vidnoise.bench.results import Results, name_of, size_of, table

TOLERANCE = 1.15
"""Ratio of times beyond which a case counts as slower: medians of a few rounds vary by several percent."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one case between both files."""

    name: str
    old_ms: float
    new_ms: float | None
    """Milliseconds in the new file; None if the case failed."""
    machine: float
    """Slowdown of the machine itself: the geometric mean of the ratios of both ceilings."""
    reason: str = ""

    @property
    def ratio(self) -> float:
        """Slowdown of the case beyond that of the machine."""
        return math.inf if self.new_ms is None else self.new_ms / self.old_ms / self.machine

    def is_slower(self, tolerance: float) -> bool:
        return self.ratio > tolerance


def compare(old: Results, new: Results) -> tuple[list[Change], list[str]]:
    """Compare two results files.

    Returns:
        The changes of all cases measured in ``old`` and tried in ``new``, the worst first; and lines about cases that
        are in one file only, and about other obstacles to a comparison.
    """
    lines = []
    threads = old["settings"]["threads"], new["settings"]["threads"]
    if threads[0] != threads[1]:
        lines.append(f"measured with {threads[0]} and with {threads[1]} threads")
    before, after = _rows(old), _rows(new)
    changes = []
    for key, a in before.items():
        b = after.get(key)
        name = f"{name_of(a)}, {a['device']}, {size_of(a)}"
        if b is None:
            lines.append(f"only in the old file: {name}")
        elif a["status"] == "ok":
            changes.append(_change(name, a, b))
    for key, b in after.items():
        if b["status"] == "ok" and before.get(key, {"status": "none"})["status"] != "ok":
            lines.append(f"measured in the new file only: {name_of(b)}, {b['device']}, {size_of(b)}")
    return sorted(changes, key=lambda c: -c.ratio), lines


def _rows(results: Results) -> dict[tuple[Any, ...], dict[str, Any]]:
    keys = ("model", "device", "backend", "precision", "height", "width", "streams")
    # Files from before there was a lookahead have none.
    return {(*(row[k] for k in keys), row.get("lookahead", 0)): row for row in results["cases"]}


def _change(name: str, a: dict[str, Any], b: dict[str, Any]) -> Change:
    if b["status"] != "ok":
        return Change(name, a["ms_p50"], None, 1.0, b["reason"])
    ratios = [a["ceilings"][k] / b["ceilings"][k] for k in ("gflops", "gbps")]
    return Change(name, a["ms_p50"], b["ms_p50"], math.sqrt(ratios[0] * ratios[1]))


def markdown(changes: list[Change], lines: list[str], tolerance: float) -> str:
    """Format a table with remarks."""
    rows = [
        [
            c.name, f"{c.old_ms:.2f}", "failed" if c.new_ms is None else f"{c.new_ms:.2f}", f"{c.machine:.2f}",
            "–" if c.new_ms is None else f"{c.ratio:.2f}", "slower" if c.is_slower(tolerance) else "",
        ]
        for c in changes
    ]  # fmt: skip
    head = ["case", "old, ms", "new, ms", "machine slower by", "case slower by", ""]
    text = table(head, rows) if rows else ["No case is in both files."]
    said = [f"- {c.name}: {c.reason}" for c in changes if c.new_ms is None] + [f"- {line}" for line in lines]
    return "\n".join([*text, *([""] if said else []), *said]) + "\n"
