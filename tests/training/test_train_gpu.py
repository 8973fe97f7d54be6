"""``benchmarks/train_gpu.sh`` on the CPU: where a GPU is lent for minutes, it must train all tiers and lose nothing."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from support.paths import ROOT
from vidnoise.weights import load_model

ABSENT = ("av", "kornia", "click", "rich", "matplotlib", "yaml")
"""What a rented machine need not have."""


@pytest.fixture
def programme(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import train_gpu

    return train_gpu


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_tiers_are_trained_without_what_a_gpu_machine_lacks(tmp_path: Path) -> None:
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name in ABSENT:
        (stubs / f"{name}.py").write_text("raise ImportError('absent')\n")
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(stubs), "OUT": str(tmp_path / "out")}
    command = [ROOT / "benchmarks" / "train_gpu.sh", "--dry-run", "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout
    tiers = ("fast", "standard", "quality")
    expected = {f"{tier}{kind}.safetensors" for tier in tiers for kind in ("", "-raw")} | {"log.csv", "train.log"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == expected  # eight files, none half-written
    for tier in tiers:
        model = load_model(tmp_path / "out" / f"{tier}.safetensors")
        network, card = model.network, model.card
        assert network.config == load_model(tier).network.config
        assert card.training["legs"][-1]["steps"] == 8
        assert card.training["steps"] > 8  # with those before
    with (tmp_path / "out" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(r["tier"], r["stage"]) for r in rows} == {(t, s) for t in tiers for s in ("single frames", "clips")}
    assert "psnr30" in rows[-1]
    assert "Mpixel/s" in (tmp_path / "out" / "train.log").read_text()


def test_stages_share_the_time_and_end_as_asked(programme: Any) -> None:
    def stages(*arguments: str, halvings: int = 0) -> Any:
        return programme.stages("standard", 10.0, programme.parse(["--data", "x", *arguments]), halvings)

    first, second = stages("--stills", "0.3")
    assert (first.minutes, second.minutes) == pytest.approx((3, 7))
    assert first.rate(1.0, 10_000) == second.rate(0.5, 10_000) == 1
    assert second.rate(1.0, 10_000) == 0
    assert second.still_share > 0
    assert stages("--constant")[-1].rate(1.0, 10_000) == 1
    assert [s.name for s in stages("--stills", "1")] == ["single frames"]
    assert [s.name for s in stages("--stills", "0")] == ["clips"]
    assert [s.batch for s in stages(halvings=1)] == [s.batch // 2 for s in stages()]
    assert programme.configuration("fast", 1, programme.parse(["--data", "x", "--initial", "fast=a.safetensors"]), 0)
    for wrong in (["--data", "x", "--tiers", "huge"], []):
        with pytest.raises(SystemExit):
            programme.parse(wrong)


def test_tiers_share_what_is_left(programme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = programme.parse(["--data", "x", "--output", str(tmp_path), "--minutes", "10"])
    run, given = programme.Programme(options, tmp_path / "data", tmp_path), []
    monkeypatch.setattr(programme, "open_pool", lambda *_: None)
    monkeypatch.setattr(programme, "ClipPack", lambda *_: None)

    def train(tier: str, minutes: float) -> None:
        given.append((tier, minutes))
        run.begun -= 60 * minutes  # as if it had taken its time

    monkeypatch.setattr(run, "train", train)
    run.run()
    assert [tier for tier, _ in given] == ["fast", "standard", "quality"]
    assert [minutes for _, minutes in given] == pytest.approx([2, 3.5, 4.5], rel=0.01)


def test_less_memory_means_smaller_batches(programme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = programme.parse(["--data", "x", "--output", str(tmp_path)])
    run, sizes = programme.Programme(options, tmp_path, tmp_path), []
    monkeypatch.setattr(programme, "Trainer", lambda config, *_, **__: SimpleNamespace(config=config))

    def fit(trainer: Any) -> None:
        sizes.append([stage.batch for stage in trainer.config.stages])
        if len(sizes) < 3:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(run, "fit", fit)
    run.train("quality", 1.0)
    assert sizes == [[128, 16], [64, 8], [32, 4]]


def test_without_a_gpu_it_says_so(
    programme: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert programme.main(["--data", "x"]) == 7
    assert "no CUDA device" in caplog.text


@pytest.mark.slow
def test_a_compiled_core_is_trained_and_saved_like_another(
    programme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled(module, backend="eager"))
    programme.make_clips(tmp_path / "data")
    arguments = ["--dry-run", "--compile", "--device", "cpu", "--tiers", "fast", "--stills", "1"]
    options = programme.parse([*arguments, "--output", str(tmp_path / "out")])
    programme.Programme(options, tmp_path / "data", tmp_path).run()
    network = load_model(tmp_path / "out" / "fast-raw.safetensors").network
    before = load_model("fast").network.state_dict()
    assert network.state_dict().keys() == before.keys()
    assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())
