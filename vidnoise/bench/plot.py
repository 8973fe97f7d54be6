"""Plot of a results file: a panel per size with a bar per case; with several streams, a panel of throughput."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidnoise.bench.results import Results, name_of, size_of

OURS, OTHERS = "#1f5fbf", "#c8641e"


def plot_results(results: Results, picture: Path) -> None:
    """Plot a results file as a PNG.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    single = [r for r in results["cases"] if r["status"] == "ok" and r["streams"] is None]
    batched = [r for r in results["cases"] if r["status"] == "ok" and r["streams"] is not None]
    filters = [r for r in results["filters"] if r["status"] == "ok"]
    sizes = list(dict.fromkeys(size_of(r) for r in (*single, *filters)))
    n_bars = {s: sum(size_of(r) == s for r in (*single, *filters)) for s in sizes}
    heights = [0.8 + 0.32 * n_bars[s] for s in sizes] + [3.5] * bool(batched)
    if not heights:
        return
    figure = Figure(figsize=(9, sum(heights) + 0.6), layout="constrained")
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for size, axes in zip(sizes, panels, strict=False):
        bars = [(name_of(r), r["ms_p50"], OURS) for r in single if size_of(r) == size]
        bars += [("below: " * r["is_below"] + r["filter"], r["ms_p50"], OTHERS) for r in filters if size_of(r) == size]
        bars.sort(key=lambda bar: -bar[1])
        drawn = axes.barh([name for name, _, _ in bars], [ms for _, ms, _ in bars], color=[c for _, _, c in bars])
        axes.bar_label(drawn, fmt=lambda ms: f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms", padding=3, fontsize=8)
        axes.set(title=size, xlabel="ms a frame (median)", xscale="log")
        axes.margins(x=0.15)
    if batched:
        _curves(panels[-1], batched)
    figure.savefig(picture, dpi=110)


def _curves(axes: Any, rows: list[dict[str, Any]]) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for r in rows:
        label = f"{name_of(r | {'streams': None})}, {size_of(r)}"
        lines.setdefault(label, []).append((r["streams"], r["fps"]))
    for label, points in lines.items():
        points.sort()
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    counts = sorted({r["streams"] for r in rows})
    axes.set(title="several streams", xlabel="streams in a step", ylabel="frames a second, all streams together")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
