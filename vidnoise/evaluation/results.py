"""The results file of ``vidnoise evaluate``, and the Markdown table made of it.

JSON: ``protocol`` has the settings that all numbers in the file share; ``methods`` has, by label, ``sigmas``
(:data:`vidnoise.evaluation.protocol.Rows` by sigma, with a filter's ``strength`` and ``strength_at_edge``) and
what is known of the method as a whole (``kmac_per_pixel``, ``weights``); ``given`` has figures from elsewhere.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from ..errors import UsageError

Results = dict[str, Any]

WORDS = {
    "kind": "material", "clips": "clips", "frames": "frames a clip", "blind": "blind",
    "threads": "CPU threads", "device": "device",
}  # fmt: skip
"""Settings under which numbers, or times, may stand in one file, in words for messages."""


def read_results(path: Path | None, protocol: dict[str, Any]) -> Results:
    """An earlier results file, to be added to, or an empty one; ``protocol`` has this run's settings.

    Raises:
        UsageError: the file cannot be read, or was measured under other settings.
    """
    if path is None or not path.is_file():
        return {"protocol": protocol, "methods": {}}
    try:
        results = json.loads(path.read_text())
        before, _ = results["protocol"], results["methods"]
    except (ValueError, KeyError, TypeError) as ex:
        raise UsageError(f"{path} is not a results file of this version: give another --output") from ex
    for key, words in WORDS.items():
        # A setting that the file does not know (null) is one that none of its numbers depends on.
        if before.get(key) is not None and before[key] != protocol[key]:
            raise UsageError(
                f"{path} was measured with other settings ({words}: {_words(before[key])}; now: "
                f"{_words(protocol[key])}): give another --output, or run with the same settings"
            )
    return results | {"protocol": protocol}


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def write_results(path: Path, results: Results) -> None:
    """Write the JSON file and the Markdown table beside it; the old file stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(part, path)
    path.with_suffix(".md").write_text(markdown(results))


def read_references(path: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    """The given figures for this run's clips, by label: ``{"psnr": {sigma: dB}, "kmac_per_pixel": ...}``.

    The file is TOML: a table for each set of clips, with ``clips`` (their names), ``frames`` and ``method`` (a
    table by label).

    Raises:
        UsageError: the file cannot be read, or has no table for these clips.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    try:
        sections = tomllib.loads(path.read_text())
        for section in sections.values():
            if sorted(section["clips"]) == protocol["clips"] and section["frames"] == protocol["frames"]:
                return section["method"]
    except (OSError, ValueError, KeyError, TypeError) as ex:
        raise UsageError(f"{path} is not a file of reference figures: {type(ex).__name__}: {ex}") from ex
    raise UsageError(
        f"{path} has no figures for these {len(protocol['clips'])} clips of {protocol['frames']} frames; "
        f"it has some for: {', '.join(sections)}"
    )


def sigmas_of(results: Results) -> list[str]:
    """All noise levels (8-bit units) at which anything was measured, rising."""
    return sorted({s for method in results["methods"].values() for s in method["sigmas"]}, key=float)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return [*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]


def markdown(results: Results) -> str:
    """Two tables: quality, one column a sigma; first frames and cost. The best at the strongest noise first."""
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
        return " / ".join(parts)

    labels = sorted(means, key=best_first)
    what = "PSNR (dB) / SSIM" + ("" if stills else " / temporal error")
    lines = [f"{what}, mean over {'pictures' if stills else 'clips'}.", ""]
    lines += _table(
        ["method", *(f"sigma {s}" for s in sigmas)],
        [[label, *(cell(means[label].get(s, {})) for s in sigmas)] for label in labels],
    )
    lines += ["", *_costs(results, labels, sigmas, stills)]
    return "\n".join(lines) + "\n"


def _costs(results: Results, labels: list[str], sigmas: list[str], stills: bool) -> list[str]:
    """The second table, of what was measured here only; times are medians over sigmas."""
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
    lines += _table([*head, "ms/MP", "kMAC/px", "strength"], rows)
    if edges:
        lines += ["", "\\* the best strength is the weakest or strongest of those tried, or the filter's own limit."]
    return lines
