"""The picture of a run: loss and validation PSNR over time."""

from __future__ import annotations

import csv
from pathlib import Path


def plot_log(log: Path, picture: Path) -> None:
    """Draw ``log.csv`` as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    hours = [float(r["hours"]) for r in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.plot(hours, [float(r["clean"]) for r in rows])
    left.set(xlabel="hours", ylabel="restoration loss", yscale="log")
    for key in (k for k in rows[0] if k.startswith("psnr")):
        right.plot(hours, [float(r[key]) for r in rows], label=f"sigma {key[4:].replace('b', ', blind')}")
    right.set(xlabel="hours", ylabel="validation PSNR, dB")
    right.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    plt.close(figure)
