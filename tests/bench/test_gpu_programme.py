"""``benchmarks/gpu.sh`` on the CPU: where a GPU is lent for minutes, it must run to its end and lose nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

PROGRAMME = ROOT / "benchmarks" / "gpu.sh"


def run(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OUT": str(output), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(PROGRAMME), *options], capture_output=True, text=True, env=environment, timeout=580, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_dry_run_measures_everything(tmp_path: Path) -> None:
    done = run(tmp_path, "--dry-run", "--parts", "machine,kernels,model,pipeline,profile")
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log.txt").read_text()
    results = json.loads((tmp_path / "gpu.json").read_text())
    rows = {part["part"]: part["rows"] for part in results["parts"]}
    assert {row["kernel"] for row in rows["kernels"]} >= {
        "RGB to bands",
        "warp state to bands",
        "correction onto planes",
    }
    assert all("failed" not in row for part in rows.values() for row in part)
    assert rows["model"][0]["step_ms"] > 0
    assert rows["model"][0]["both_ways_ms"] > 0
    assert rows["pipeline"][0]["frames"] == 3
    text = (tmp_path / "gpu.md").read_text()
    assert "| tier | precision | backend |" in text
    assert "Self CPU" in (tmp_path / "profile.txt").read_text()


def test_a_part_that_fails_or_hangs_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    parts = tmp_path / "gpu_parts.py"
    parts.write_text(
        "import sys, time\n"
        "part, rows = sys.argv[1], sys.argv[3]\n"
        "open(rows, 'a').write('{\"ms\": 1.5}\\n{\"ms\": ')\n"
        "if part == 'tests': time.sleep(60)\n"
        "if part == 'kernels': sys.exit(3)\n"
    )
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    found = [
        gpu.run_part(gpu.Part(name, 1, name), seconds, tmp_path / f"{name}.jsonl", tmp_path / "log.txt", [])
        for name, seconds in (("tests", 3), ("kernels", 60), ("model", 60))
    ]
    assert [part["outcome"] for part in found] == ["stopped after 3 s", "failed (exit status 3)", "ok"]
    assert all(part["rows"] == [{"ms": 1.5}] for part in found)
    text = gpu.markdown({"date": "today", "note": "", "parts": found})
    assert text.count("| 1.5 |") == 3


def test_a_part_nobody_knows_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--dry-run", "--parts", "modell")
    assert done.returncode == 2
    assert "no such part: modell" in done.stderr


def test_all_budgets_together_fit_the_time() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import gpu
    finally:
        sys.path.pop(0)
    assert sum(part.seconds for part in gpu.PARTS) < 9 * 60
