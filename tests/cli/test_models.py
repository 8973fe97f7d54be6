"""``vidnoise models``: what each is for and what it costs."""

from __future__ import annotations

import json
import re

import pytest

import vidnoise
from vidnoise.bench import cases
from vidnoise.cli import main
from vidnoise.weights import PURPOSES


def output(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(["models", *args]) == 0
    return capsys.readouterr().out


def test_every_shipped_model_has_a_purpose(capsys) -> None:
    assert set(PURPOSES) == set(vidnoise.list_models())
    for line in output(capsys).splitlines():
        name = line.split()[0]
        assert re.search(r"\d+\.\d kMAC/px", line)
        assert PURPOSES[name].summary in line
        assert f"use it when {PURPOSES[name].use_when}" in line
        assert line.endswith("(default)") == (name == "standard")


def test_costs_are_those_of_the_networks(capsys) -> None:
    found = json.loads(output(capsys, "--json", "fast", "standard"))
    assert found["fast"]["kmac_per_pixel"] == pytest.approx(8.5, abs=0.1)
    assert found["standard"]["kmac_per_pixel"] > 2 * found["fast"]["kmac_per_pixel"]
    assert "fps_1080p" not in found["fast"]
    assert found["fast"]["use_when"] == PURPOSES["fast"].use_when


def test_measuring(capsys, monkeypatch) -> None:
    monkeypatch.setitem(cases.SIZES, "1080p", (48, 64))
    assert json.loads(output(capsys, "--json", "--measure", "fast"))["fast"]["fps_1080p"] > 0
    assert re.search(r"kMAC/px +\d+\.\d\d fps", output(capsys, "--measure", "fast"))
