"""The GPU programme of ``benchmarks/gpu.sh``: parts in processes of their own, each with a budget of seconds.

A part that fails, hangs or runs out of its budget loses what it had not written yet, and nothing of the others: it
appends a line of JSON to its file as soon as a figure is known. After each part ``gpu.json`` and ``gpu.md`` are
written anew. The parts are in :mod:`gpu_parts`, which stands beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    name: str
    seconds: float
    """Budget."""
    title: str


PARTS = (
    Part("machine", 30, "Machine"),
    Part("tests", 110, "Correctness"),
    Part("kernels", 45, "Kernels against their references"),
    Part("model", 110, "Model alone"),
    Part("pipeline", 60, "Upload, model, download"),
    Part("files", 50, "Files, decoder to encoder"),
    Part("profile", 35, "Where the time goes"),
    Part("compile", 75, "Compiled by torch.compile"),
)
"""In the order of their worth: what the whole has no time for is the last ones."""


def run_part(part: Part, seconds: float, rows_file: Path, log: Path, options: list[str]) -> dict[str, Any]:
    """One part in a process of its own; its rows are whatever it had written by its end."""
    start = time.monotonic()
    command = [sys.executable, str(HERE / "gpu_parts.py"), part.name, "--rows", str(rows_file), *options]
    with log.open("a", encoding="utf-8") as out:
        out.write(f"\n==== {part.name}\n")
        out.flush()
        # Triton's kernels run on the CPU by its interpreter only, which has to be chosen before it is imported.
        environment = {**os.environ, "TRITON_INTERPRET": "1"} if "cpu" in options else None
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:  # with whatever it has started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = rows_file.read_text(encoding="utf-8").splitlines() if rows_file.exists() else []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:  # the one that was being written
            continue
    outcome = (
        "ok" if code == 0 else f"stopped after {seconds:.0f} s" if code is None else f"failed (exit status {code})"
    )
    return {"part": part.name, "outcome": outcome, "seconds": round(time.monotonic() - start, 1), "rows": rows}


def markdown(results: dict[str, Any]) -> str:
    """Tables of everything, a section for each part."""
    done = {found["part"]: found for found in results["parts"]}
    machine = next((row for row in done.get("machine", {}).get("rows", ())), {})
    lines = [f"# {machine.get('device', 'Unknown device')}", ""]
    lines.append(f"By `benchmarks/gpu.sh`, {results['date']}. {results['note']}".strip())
    for part in PARTS:
        found = done.get(part.name)
        if found is None:
            continue
        lines += ["", f"## {part.title}", "", f"{found['outcome']}, {found['seconds']} s"]
        rows = found["rows"]
        kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            kinds.setdefault(tuple(row), []).append(row)
        for names, same in kinds.items():
            lines += ["", "| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
            lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in same]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return "–" if value is None else str(value).replace("|", "/").replace("\n", " ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "gpu", help="folder for gpu.json, gpu.md, log.txt, ...")
    parser.add_argument("--device", default="cuda:0", help="cpu is for trying the programme only")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--minutes", type=float, default=8.7, help="for the whole")
    parser.add_argument("--parts", default="all", help="comma-separated: " + ", ".join(p.name for p in PARTS))
    parser.add_argument("--note", default="", help="a sentence for the results")
    given = parser.parse_args()
    wanted = [p.name for p in PARTS] if given.parts == "all" else given.parts.split(",")
    if unknown := set(wanted) - {p.name for p in PARTS}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    options = ["--device", "cpu" if given.dry_run else given.device, "--output", str(given.output)]
    options += ["--tiny"] if given.dry_run else []
    given.output.mkdir(parents=True, exist_ok=True)
    log = given.output / "log.txt"
    log.write_text("", encoding="utf-8")
    patience = 5 if given.dry_run else 1  # an interpreter on a shared CPU has no hurry
    end = time.monotonic() + 60 * given.minutes * patience
    results: dict[str, Any] = {
        "kind": "vidnoise gpu",
        "date": time.strftime("%Y-%m-%d"),
        "note": given.note,
        "parts": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for part in (p for p in PARTS if p.name in wanted):
            seconds = min(part.seconds * patience, end - time.monotonic())
            if seconds < 5:
                found = {"part": part.name, "outcome": "left out: no time", "seconds": 0.0, "rows": []}
            else:
                found = run_part(part, seconds, Path(folder) / f"{part.name}.jsonl", log, options)
            print(f"{part.name}: {found['outcome']}, {found['seconds']} s, {len(found['rows'])} rows")  # noqa: T201
            results["parts"].append(found)
            (given.output / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            (given.output / "gpu.md").write_text(markdown(results), encoding="utf-8")
    return 0 if all(found["outcome"] == "ok" for found in results["parts"]) else 1


if __name__ == "__main__":
    sys.exit(main())
