"""The results file of ``vidnoise evaluate``.

JSON: ``protocol`` has the settings that all numbers in the file share; ``methods`` has, by label, ``sigmas`` or (in the
protocols ``real`` and ``photos``) ``scenarios`` (:data:`vidnoise.evaluation.protocol.Rows` by sigma or scenario, with a
filter's ``strength`` and ``strength_at_edge``) and properties of the method as a whole (``kmac_per_pixel``,
``weights``); ``given`` has figures from elsewhere.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from vidnoise.errors import UsageError
from vidnoise.evaluation.tables import Results, markdown

WORDS = {
    "kind": "material", "clips": "clips", "frames": "frames a clip", "blind": "blind",
    "threads": "CPU threads", "device": "device",
}  # fmt: skip
"""Settings that must agree for numbers, or times, in one file, with descriptions for messages."""


def read_results(path: Path | None, protocol: dict[str, Any]) -> Results:
    """Read an earlier results file to add to, or return an empty one; ``protocol`` has this run's settings.

    Raises:
        UsageError: The file cannot be read, or was measured under other settings.
    """
    if path is None or not path.is_file():
        return {"protocol": protocol, "methods": {}}
    try:
        results = json.loads(path.read_text())
        before, _ = results["protocol"], results["methods"]
    except (ValueError, KeyError, TypeError) as ex:
        raise UsageError(f"{path} is not a results file of this version: give another --output") from ex
    for key, words in WORDS.items():
        # None of the file's numbers depends on a setting that is null there.
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
    """Write the JSON file, atomically, and the Markdown tables beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(part, path)
    path.with_suffix(".md").write_text(markdown(results))


def read_references(path: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    """Read the given figures for this run's clips, by label: ``{"psnr": {sigma: dB}, "kmac_per_pixel": ...}``.

    The file is TOML: a table for each set of clips, with ``clips`` (their names), ``frames`` and ``method`` (a
    table by label).

    Raises:
        UsageError: The file cannot be read, or has no table for these clips.
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
