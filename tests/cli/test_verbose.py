"""``-v`` says what a run has chosen, and why."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vidnoise.cli import main
from vidnoise.options import FileOptions
from vidnoise.pipeline.choices import choices

QUICK = ("--model", "fast", "--threads", "1", "--device", "cpu")


def said(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert main([str(a) for a in args]) == 0
    return capsys.readouterr().err


def test_everything_that_was_chosen_is_said_with_its_reason(clips, tmp_path: Path, capsys) -> None:
    text = said(capsys, clips("audio"), "-o", tmp_path / "a.mkv", "-v", "--codec", "x264", "--sigma", 9, *QUICK)
    for part in (
        "model fast, version", "device cpu (as asked), 1 thread", "backend eager (", "lookahead of 8 frames (the",
        "noise level: 9/255 (as asked)", "noise of the first frame: 9.0/255", "encoder libx264 (codec x264, as asked)",
        "crf 18", "audio stream #1 (aac, deu) is copied",
    ):  # fmt: skip
        assert part in text, part


def test_a_dropped_track_is_said(clips, tmp_path: Path, capsys) -> None:
    text = said(capsys, clips("audio"), "-o", tmp_path / "a.mkv", "-v", "--tracks=-a", "--lookahead", 0, *QUICK)
    assert "audio stream #1 is dropped, as asked" in text
    assert "lookahead of 0 frames (as asked)" in text
    assert "encoder libx264 (the input is h264" in text
    assert "noise level: estimated" in text


@pytest.mark.parametrize(
    ("given", "device", "is_live", "says"),
    [
        ({}, "cuda", False, "backend b (the fastest on cuda)"),
        ({"backend": "b"}, "cuda", False, "backend b (as asked)"),
        ({"max_memory": 100.0}, "cpu", False, "backend b (in tiles, to keep max_memory)"),
        ({}, "cpu", True, "backend b (live video does not wait for trials)"),
        ({}, "cpu", True, "lookahead of 2 frames (live, within max_latency)"),
        ({}, "cuda", False, "device cuda (a GPU was found)"),
        ({"precision": "fp32"}, "cpu", False, "arithmetic in float32 (as asked)"),
    ],
)
def test_reasons(given: dict[str, Any], device: str, is_live: bool, says: str) -> None:
    import torch

    card = SimpleNamespace(name="m", version="1")
    denoiser = SimpleNamespace(
        model=SimpleNamespace(card=card), device=torch.device(device), dtype=torch.float32, backend_name="b",
        latency_frames=2,
    )  # fmt: skip
    info = SimpleNamespace(is_live=is_live, rate=Fraction(25), field_order=None)
    lines = list(choices(cast(Any, denoiser), FileOptions(**given), cast(Any, info)))
    assert any(says in line for line in lines), lines


def test_twice_adds_debugging(clips, tmp_path: Path, capsys, monkeypatch) -> None:
    from vidnoise.api import logger

    levels: list[int] = []
    monkeypatch.setattr(logger, "info", lambda *args: levels.append(logger.getEffectiveLevel()))
    for flag in ("-v", "-vv"):
        said(capsys, clips("cfr"), "-o", tmp_path / f"{flag}.mkv", flag, *QUICK)
    assert set(levels) == {logging.INFO, logging.DEBUG}
