"""A live run that cannot keep up names the faster model, once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from vidnoise.pipeline import meter as module
from vidnoise.pipeline.meter import Meter


def meter(model: str, *, n_dropped: int, n_written: int, is_live: bool = True) -> Meter:
    policy = SimpleNamespace(lag=object() if is_live else None, n_dropped=n_dropped, n_late=0)
    made = Meter(
        cast(Any, None), cast(Any, SimpleNamespace(model_name=model)), cast(Any, None), cast(Any, policy), None
    )
    made.encode.count = n_written
    return made


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADVICE_AFTER_SECONDS", 0.0)


def test_the_faster_model_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    slow = meter("standard", n_dropped=30, n_written=10)
    slow.report_progress()
    slow.report_progress()
    (said,) = caplog.messages
    assert "most frames are dropped (30, and 10 written): model standard is too slow" in said
    assert 'model="fast"' in said


def test_nothing_is_faster_than_the_fastest(caplog: pytest.LogCaptureFixture) -> None:
    meter("fast", n_dropped=30, n_written=10).report_progress()
    (said,) = caplog.messages
    assert "model=" not in said


def test_no_advice_where_most_frames_are_written_or_nothing_is_live_or_it_has_just_begun(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter("standard", n_dropped=10, n_written=10).report_progress()
    meter("standard", n_dropped=30, n_written=10, is_live=False).report_progress()
    monkeypatch.setattr(module, "ADVICE_AFTER_SECONDS", 5.0)
    meter("standard", n_dropped=30, n_written=10).report_progress()
    assert caplog.messages == []
