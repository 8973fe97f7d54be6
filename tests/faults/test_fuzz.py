"""A few hundred damaged inputs of every kind, and those that failed once; ``make fuzz`` has tens of thousands."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

if not hasattr(os, "fork"):
    pytest.skip("mutants run in forked processes", allow_module_level=True)

from faults.fuzz.run import mutant, outcomes, reproducers, seeds_of, try_one
from faults.fuzz.targets import Target, targets
from vidnoise.errors import UsageError

MUTANTS = 9
FINE = ("fine", "refused")

TARGETS = {target.name: target for target in targets()}


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SVT_LOG", "1")
    monkeypatch.setattr("fuzz.run.HANG_SECONDS", 60)  # others may be busy, too


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused_in_one_line(name: str) -> None:
    target = TARGETS[name]
    seeds = seeds_of(target)
    if not seeds:
        pytest.skip("this build of FFmpeg cannot write it")
    assert try_one(target, seeds[0]) == ("fine", ""), "the seed itself"
    mutants = [(str(number), mutant(target, seeds, number)) for number in range(MUTANTS)]
    found = [(number, kind, why) for number, _, (kind, why) in outcomes(target, mutants) if kind not in FINE]
    assert found == []


def test_what_failed_once_does_not_fail_again() -> None:
    for path in reproducers():
        target = TARGETS[path.name.partition("--")[0]]
        ((_, _, (kind, why)),) = outcomes(target, [(path.name, path.read_bytes())])
        assert kind in FINE, f"{path.name}: {why}"


def test_mutants_are_the_same_each_time() -> None:
    target = TARGETS["template"]
    seeds = seeds_of(target)
    assert [mutant(target, seeds, n) for n in range(20)] == [mutant(target, seeds, n) for n in range(20)]
    assert len({mutant(target, seeds, n) for n in range(20)}) > 15


def test_control_the_runner_sees_every_way_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(data: bytes, folder: Path) -> None:
        if data == b"internal":
            raise ZeroDivisionError("oh")
        if data == b"crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if data == b"hang":
            time.sleep(60)
        if data == b"left":
            (folder / "x.part").touch()
        if data == b"refused":
            raise UsageError("no")

    monkeypatch.setattr("fuzz.run.HANG_SECONDS", 2)
    names = [b"fine", b"internal", b"crash", b"refused", b"hang", b"left"]
    found = outcomes(Target("x", lambda folder: [b""], run), [(n.decode(), n) for n in names])
    assert [(number, kind) for number, _, (kind, _) in found] == [
        ("fine", "fine"), ("internal", "failed"), ("crash", "crashed"), ("refused", "refused"), ("hang", "hung"),
        ("left", "failed"),
    ]  # fmt: skip
