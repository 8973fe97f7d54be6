"""Markdown tables of the results of ``vidnoise evaluate``."""

from __future__ import annotations

import statistics
from typing import Any

Results = dict[str, Any]
"""See :mod:`vidnoise.evaluation.results`."""


def markdown(results: Results) -> str:
    """Format all tables of a results file."""
    return gaussian(results) if results["protocol"]["kind"] in ("video", "stills") else real(results)


def sigmas_of(results: Results) -> list[str]:
    """Return all measured noise levels (8-bit units), in ascending order."""
    return sorted({s for method in results["methods"].values() for s in method["sigmas"]}, key=float)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return [*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]


def gaussian(results: Results) -> str:
    """Format two tables: quality, with a column per sigma; and first frames and cost.

    The method that is best at the strongest noise comes first.
    """
    sigmas = sigmas_of(results)
    stills = results["protocol"]["kind"] == "stills"
    means = {
        label: {s: rows["mean"] for s, rows in method["sigmas"].items()} for label, method in results["methods"].items()
    }
    for label, given in results.get("given", {}).items():
        if known := {s: {"psnr": v} for s, v in given["psnr"].items() if s in sigmas}:
            means[f"{label} (given)"] = known

    def best_first(label: str) -> list[float]:
        return [-means[label].get(s, {}).get("psnr", 0.0) for s in reversed(sigmas)]

    def cell(mean: dict[str, float]) -> str:
        parts = [f"{mean['psnr']:.2f}"] if "psnr" in mean else ["–"]
        parts += [f"{mean['ssim']:.3f}"] if "ssim" in mean else []
        parts += [f"{mean['temporal_error']:.1f}"] if "temporal_error" in mean else []
        parts += [f"{mean['vmaf']:.1f}"] if "vmaf" in mean else []
        return " / ".join(parts)

    labels = sorted(means, key=best_first)
    what = "PSNR (dB) / SSIM" + ("" if stills else " / temporal error")
    what += " / VMAF" if any("vmaf" in mean for levels in means.values() for mean in levels.values()) else ""
    lines = [f"{what}, mean over {'pictures' if stills else 'clips'}.", ""]
    lines += table(
        ["method", *(f"sigma {s}" for s in sigmas)],
        [[label, *(cell(means[label].get(s, {})) for s in sigmas)] for label in labels],
    )
    lines += ["", *_costs(results, labels, sigmas, stills)]
    return "\n".join(lines) + "\n"


def _costs(results: Results, labels: list[str], sigmas: list[str], stills: bool) -> list[str]:
    """Format the second table, of methods measured here only; times are medians over sigmas."""
    protocol, rows, edges = results["protocol"], [], []
    for label in labels:
        method = results["methods"].get(label)
        if method is None:
            continue
        levels = [method["sigmas"].get(s, {"mean": {}}) for s in sigmas]
        firsts = [f"{m['mean']['psnr_first']:.2f}" if "psnr_first" in m["mean"] else "–" for m in levels]
        times = [m["mean"]["ms_per_megapixel"] for m in levels if "ms_per_megapixel" in m["mean"]]
        kmac = method.get("kmac_per_pixel")
        strengths = [f"{m['strength']:g}" + "*" * m["strength_at_edge"] if "strength" in m else "–" for m in levels]
        edges += [s for s in strengths if s.endswith("*")]
        rows.append(
            [label] + ([] if stills else firsts)
            + [f"{statistics.median(times):,.0f}" if times else "–"]
            + [f"{kmac:.1f}" if kmac else "–", " ".join(strengths) if any(s != "–" for s in strengths) else "–"]
        )  # fmt: skip
    head = ["method", *([] if stills else [f"first frame, sigma {s}" for s in sigmas])]
    clock = "wall clock"
    if protocol["threads"]:
        clock += f", {protocol['threads']} CPU thread{'s' * (protocol['threads'] > 1)}"
    if protocol["device"] not in (None, "cpu"):
        clock += f", networks on {protocol['device']}"
    what = "Cost" if stills else "PSNR (dB) of the first frame, and cost"
    lines = [f"{what}: ms a megapixel ({clock}), thousands of multiply-adds a pixel; strengths by sigma.", ""]
    lines += table([*head, "ms/MP", "kMAC/px", "strength"], rows)
    if edges:
        lines += ["", "\\* the best strength is the weakest or strongest of those tried, or the filter's own limit."]
    return lines


def real(results: Results) -> str:
    """Format the results of ``real`` and ``photos``: PSNR by scenario, then a table by plane for each scenario.

    Methods are ordered by their gain over the noisy clips, across the measured scenarios.
    """
    about, methods = results["protocol"]["scenarios"], results["methods"]
    photos = results["protocol"]["kind"] == "photos"
    means = {
        label: {name: method["scenarios"][name]["mean"] for name in about if name in method["scenarios"]}
        for label, method in methods.items()
    }
    noisy = means.get("noisy", {})

    def gain(label: str) -> float:
        return statistics.fmean(m["psnr"] - noisy.get(name, {"psnr": 0.0})["psnr"] for name, m in means[label].items())

    labels = sorted((label for label in means if means[label]), key=gain, reverse=True)
    lines = [f"PSNR (dB) in RGB, mean over {'photographs' if photos else 'clips'}.", ""]
    lines += table(
        ["method", *about],
        [[label, *(f"{means[label][n]['psnr']:.2f}" if n in means[label] else "–" for n in about)] for label in labels],
    )
    for name, words in about.items():
        here = [label for label in labels if name in means[label]]
        if not here:
            continue
        lines += ["", f"**{name}**: {words}. PSNR in dB, errors (root mean squares) and flicker in 8-bit units.", ""]
        columns = {"RGB": "psnr", "VMAF": "vmaf", "first frame": "psnr_first",
                   "Y": "psnr_y", "U": "psnr_u", "V": "psnr_v",
                   "error Y": "rms_y", "error U": "rms_u", "error V": "rms_v", "flicker": "temporal_error"}  # fmt: skip
        columns = {words: key for words, key in columns.items() if any(key in means[label][name] for label in here)}
        edges = {label: methods[label]["scenarios"][name].get("strength_at_edge", False) for label in here}
        strengths = {label: methods[label]["scenarios"][name].get("strength", "") for label in here}
        rows = []
        for label in sorted(here, key=lambda label: -means[label][name]["psnr"]):
            mean = means[label][name]
            cells = [f"{mean[key]:.2f}" if key in mean else "–" for key in columns.values()]
            rows.append([label, *cells, (strengths[label] or "–") + "\\*" * edges[label]])
        lines += table(["method", *columns, "strength"], rows)
        if any(edges.values()):
            lines += ["", "\\* the strongest of those tried, or the filter's own limit."]
    return "\n".join(lines) + "\n"
