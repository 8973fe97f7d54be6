"""Plot of quality against cost: a row per sigma, with time on the left and multiply-adds on the right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidnoise.evaluation.tables import Results, sigmas_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUPS: dict[str, dict[str, Any]] = {
    "vidnoise": {"color": "#1f5fbf", "marker": "o"},
    "vidnoise, frame by frame": {"color": "#1f5fbf", "marker": "o", "markerfacecolor": "white"},
    "other filters": {"color": "#c8641e", "marker": "s"},
    "given": {"color": "#666666", "marker": "D", "markerfacecolor": "white"},
}
"""Styles by kind of method, as named in the legend."""


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one sigma."""

    label: str
    group: str
    psnr: float
    ms: float | None
    """Milliseconds per megapixel."""
    kmac: float | None
    """Thousands of multiply-adds per pixel."""


def points(results: Results, sigma: str) -> list[Point]:
    """Return all methods at a sigma, those with given figures last."""
    found = []
    for label, method in results["methods"].items():
        if sigma in method["sigmas"]:
            mean, kmac = method["sigmas"][sigma]["mean"], method.get("kmac_per_pixel")
            ours = "vidnoise, frame by frame" if method.get("frame_wise") else "vidnoise"
            group = "other filters" if kmac is None else ours
            # The marker already shows what runs frame by frame.
            short = label.replace(" (frame by frame)", "").replace(", frame by frame", "")
            found.append(Point(short, group, mean["psnr"], mean.get("ms_per_megapixel"), kmac))
    for label, given in results.get("given", {}).items():
        if sigma in given["psnr"]:
            found.append(Point(label, "given", given["psnr"][sigma], None, given.get("kmac_per_pixel")))
    return found


def plot_results(results: Results, picture: Path) -> None:
    """Plot a results file as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    sigmas = sigmas_of(results)
    figure = Figure(figsize=(13, 5.2 * len(sigmas)), layout="constrained")
    axes = figure.subplots(len(sigmas), 2, squeeze=False)
    threads = results["protocol"]["threads"]
    clock = f"ms a megapixel, {threads} CPU thread{'s' * (threads > 1)}" if threads else "ms a megapixel"
    for sigma, (left, right) in zip(sigmas, axes, strict=True):
        here = points(results, sigma)
        left.set(title=f"sigma {sigma}", xlabel=clock, ylabel="PSNR, dB")
        right.set(title=f"sigma {sigma}, networks", xlabel="kMAC a pixel", ylabel="PSNR, dB")
        scatter(left, [(p, p.ms) for p in here if p.ms])
        gray = GROUPS["given"]["color"]
        for i, p in enumerate(p for p in here if p.group == "given"):
            left.axhline(p.psnr, color=gray, linewidth=0.7, linestyle=":")
            # Side by side, as the lines may be close together.
            spot = (0.01 + 0.25 * (i % 4), p.psnr)
            left.annotate(p.label, spot, xycoords=("axes fraction", "data"), fontsize=7, va="bottom", color=gray)
        scatter(right, [(p, p.kmac) for p in here if p.kmac])
    handles = [Line2D([], [], linestyle="", label=name, **style) for name, style in GROUPS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.draw_without_rendering()  # labels are placed by their extent, which requires a final layout
    figure.set_layout_engine("none")
    for panel in axes.flat:
        label_dots(panel)
    figure.savefig(picture, dpi=110)


def scatter(axes: Axes, placed: list[tuple[Point, float]]) -> None:
    """Draw a dot at the ``x`` given with each point and its PSNR."""
    axes.set_xscale("log")
    axes.grid(alpha=0.25, which="both")
    axes.margins(0.12, 0.08)
    for p, x in placed:
        axes.plot([x], [p.psnr], linestyle="", label=p.label, **GROUPS[p.group])


LIFTS = (0, 9, -9, 18, -18, 30, -30, 42, -42, 54, -54, 66, -66, 78, -78)
OFFSETS = [(side * d, lift) for d in (7, 16, 30, 50) for lift in LIFTS for side in (1, -1)]
"""Possible positions of a label relative to its dot, in points, nearest first."""


def label_dots(axes: Axes) -> None:
    """Write each dot's label at the nearest position where it covers neither a dot nor an earlier label."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    dots = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    at = {line: (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in dots}  # type: ignore[index]
    on_screen = {line: axes.transData.transform(xy) for line, xy in at.items()}
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in on_screen.values()]
    taken += [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    for line in sorted(dots, key=lambda d: -at[d][1]):
        note = axes.annotate(
            str(line.get_label()), at[line], (0, 0), textcoords="offset points", fontsize=8, va="center",
            color=line.get_color(),
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip
        box = Bbox.null()
        for dx, dy in OFFSETS:
            note.set_position((dx, dy))
            note.set_horizontalalignment("left" if dx > 0 else "right")
            note.get_window_extent()  # moves the label to its position
            box = Text.get_window_extent(note)  # extent of the text without its leader
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
