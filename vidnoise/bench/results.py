"""The results file of ``vidnoise bench``, and its Markdown tables.

JSON: ``machine`` and ``settings`` apply to the whole file; ``cases`` has a row for each case
(:meth:`~vidnoise.bench.cases.Case.to_dict` and the measurements, or the reason for the lack of any, with the ceilings
of its rounds), as have ``filters`` and ``end_to_end``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vidnoise.errors import UsageError

Results = dict[str, Any]

KIND = "vidnoise bench"

STAGES = ("decode", "wait_for_input", "upload", "denoise", "download", "wait_for_output", "encode")


def write_file(path: Path, text: str) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_results(path: Path, results: Results) -> None:
    """Write the JSON file, and the tables beside it."""
    write_file(path, json.dumps(results, indent=1) + "\n")
    write_file(path.with_suffix(".md"), markdown(results))


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        UsageError: It cannot be read, or is not a results file.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["kind"] == KIND:
            return results
    except (OSError, ValueError, KeyError, TypeError) as ex:
        raise UsageError(f"{path} is not a results file of vidnoise bench: {type(ex).__name__}: {ex}") from ex
    raise UsageError(f"{path} is not a results file of vidnoise bench")


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Return the lines of a Markdown table; all columns but the first are right-aligned, for numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return [*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]


def size_of(row: dict[str, Any]) -> str:
    """Return the size of a row, such as ``1920x1080``."""
    return f"{row['width']}x{row['height']}"


def name_of(row: dict[str, Any]) -> str:
    """Return model, backend and precision of a row, with the choice of ``auto`` in brackets."""

    def with_choice(asked: str, used: str | None) -> str:
        return f"{asked} ({used})" if asked == "auto" and used else asked

    backend = with_choice(row["backend"], row.get("backend_used"))
    streams = "" if row["streams"] is None else f", {row['streams']} stream{'s' * (row['streams'] > 1)}"
    streams += f", lookahead {row['lookahead']}" if row.get("lookahead") else ""
    return f"{row['model']}, {backend}, {with_choice(row['precision'], row.get('precision_used'))}{streams}"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _share(value: float) -> str:
    return f"{100 * value:.0f}" if value >= 0.1 else f"{100 * value:.1f}"


def _shares(row: dict[str, Any]) -> list[str]:
    """Format the shares of arithmetic and of memory; of lookahead, they are not counted."""
    if "arithmetic_share" not in row:
        return ["–", "–"]
    memory = f"{_share(row['memory_share_fused'])} to {_share(row['memory_share_unfused'])}"
    return [_share(row["arithmetic_share"]), memory]


def _how(results: Results) -> list[str]:
    machine, settings = results["machine"], results["settings"]
    threads = settings["threads"]
    where = machine.get("device") or f"{machine['processor']}, {threads} thread{'s' * (threads > 1)}"
    load = f", load {machine['load']:g} on {machine['cores']} cores at the start" if "load" in machine else ""
    note = f" {settings['note']}" if settings["note"] else ""
    return [f"{where}; torch {machine['torch']}, {machine['date']}{load}.{note}"]


def markdown(results: Results) -> str:
    """Format the frames per second, a table for each size, one of whole runs, and the failures."""
    lines = _how(results)
    sizes = list(dict.fromkeys(size_of(row) for row in (*results["cases"], *results["filters"])))
    if len(sizes) > 1:
        lines += ["", *_summary(sizes, results)]
    for size in sizes:
        lines += ["", *_cases_at(size, results)]
    runs = [row for row in results["end_to_end"] if row["status"] == "ok"]
    if runs:
        head = ["whole run", "fps", *(f"{stage.replace('_', ' ')}, ms" for stage in STAGES)]
        cells = [
            [f"{name_of(r)}, {size_of(r)}", f"{r['fps']:.2f}", *(_ms(r["stage_ms"][stage]) for stage in STAGES)]
            for r in runs
        ]
        lines += ["", *table(head, cells)]
    failed = [
        f"- {name_of(row) if 'model' in row else row['filter']}, {size_of(row)}{what}: {row['reason']}"
        for what, rows in (("", results["cases"]), ("", results["filters"]), (", whole run", results["end_to_end"]))
        for row in rows
        if row["status"] != "ok"
    ]
    if failed:
        lines += ["", "Not measured:", "", *failed]
    return "\n".join(lines) + "\n"


def _summary(sizes: list[str], results: Results) -> list[str]:
    """Format frames per second by size, of all that were measured."""
    fps: dict[str, dict[str, str]] = {}
    for row in (*results["cases"], *results["filters"]):
        if row["status"] == "ok":
            name = row.get("filter") or name_of(row)
            above = "> " if row.get("is_below") else ""
            fps.setdefault(name, {})[size_of(row)] = f"{above}{row['fps']:.{2 if row['fps'] < 10 else 0}f}"
    return table(["frames per second", *sizes], [[name, *(by.get(s, "–") for s in sizes)] for name, by in fps.items()])


def _cases_at(size: str, results: Results) -> list[str]:
    rows = [r for r in results["cases"] if size_of(r) == size and r["status"] == "ok"]
    filters = [r for r in results["filters"] if size_of(r) == size and r["status"] == "ok"]
    if not rows and not filters:
        return []
    cells = [
        [
            name_of(r), _ms(r["ms_p50"]), _ms(r["ms_p95"]), f"{r['fps']:.2f}", f"{r['mpixel_per_second']:.2f}",
            "–" if r["peak_mib"] is None else f"{r['peak_mib']:,.0f}", *_shares(r),
        ]
        for r in rows
    ]  # fmt: skip
    cells += [
        [
            r["filter"],
            f"{'< ' * r['is_below']}{_ms(r['ms_p50'])}",
            "–",
            *(f"{'> ' * r['is_below']}{r[k]:.2f}" for k in ("fps", "mpixel_per_second")),
            "–",
            "–",
            "–",
        ]
        for r in filters
    ]
    head = [
        f"{size}", "ms a frame", "95 %", "fps", "Mpixel/s", "peak memory, MiB", "arithmetic, %", "memory, %"
    ]  # fmt: skip
    reached = []
    # In int8 they are those of float32.
    for precision, ceilings in {r["precision_used"].replace("int8", "fp32"): r["ceilings"] for r in rows}.items():
        reached.append(f"{ceilings['gflops']:,.0f} GFLOP/s in {precision}, {ceilings['gbps']:,.1f} GB/s")
    ceiling = f"Ceilings measured in the same rounds: {'; '.join(reached)}." if reached else ""
    return [*table(head, cells), *(["", ceiling] if ceiling else [])]
