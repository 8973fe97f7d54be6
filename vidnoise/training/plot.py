"""Plot of a training run: the parts of the loss and the validation PSNR over time, stage by stage."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path


def plot_log(log: Path, picture: Path) -> None:
    """Plot ``log.csv`` as a PNG; a run without validation clips has no PSNR to plot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from vidnoise.training.objectives import PARTS

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # A cell is empty if its row was written before the column existed.
    columns = {key: [float(r[key] or "nan") for r in rows] for key in rows[0] if key != "stage"}
    hours = columns["hours"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for part in (p for p in (*PARTS, "still") if any(v > 0 for v in columns.get(p, ()))):
        # A part that was not trained (single frames have no flow) is zero, which has no logarithm.
        left.plot(hours, [v if v > 0 else float("nan") for v in columns[part]], label=part)
    left.set(xlabel="hours", ylabel="loss, by part", yscale="log")
    scores = [key for key in columns if key.startswith("psnr")]
    for key in scores:
        seen = [(h, v) for h, v in zip(hours, columns[key], strict=True) if v == v]  # not every row has a validation
        right.plot(*zip(*seen, strict=True), label=f"sigma {key[4:].replace('b', ', blind')}")
    right.set(xlabel="hours", ylabel="validation PSNR, dB" if scores else "no validation clips")
    for before, after in pairwise(rows):
        if before["stage"] != after["stage"]:
            for axes in (left, right):
                axes.axvline(float(before["hours"]), color="gray", linewidth=0.8, linestyle=":")
            left.annotate(
                after["stage"], (float(before["hours"]), 1), xycoords=("data", "axes fraction"), va="bottom", size=8
            )
    for axes in (left, right):
        if axes.lines and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    plt.close(figure)
