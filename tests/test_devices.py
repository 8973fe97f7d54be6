"""Several devices share the files of a batch: here devices that are not there, and one CPU under two names."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vidnoise.cli import files, main, run
from vidnoise.cli.batch import Job
from vidnoise.cli.child import Child
from vidnoise.cli.workers import each_alone, outcomes
from vidnoise.errors import DecodeError, UsageError
from vidnoise.options import FileOptions

TASKS = [(i, Job(f"{i}.mp4", f"out/{i}.mp4")) for i in range(1, 9)]


def stats(interrupted: bool = False) -> Any:
    return SimpleNamespace(interrupted=interrupted)


def test_every_file_is_done_once_and_the_devices_work_at_the_same_time() -> None:
    met = threading.Barrier(3, timeout=20)
    done: list[tuple[str, int]] = []

    def worker(device: str) -> Any:
        def work(number: int, job: Job) -> Any:
            if number <= 3:
                met.wait()  # passes only if all three are at work at once
            done.append((device, number))
            return stats()

        return work

    ended = list(outcomes(TASKS, [worker(d) for d in ("cuda:0", "cuda:1", "cuda:2")]))
    assert sorted(number for number, _, _ in ended) == [n for n, _ in TASKS]
    assert sorted(number for _, number in done) == [n for n, _ in TASKS]
    assert {device for device, number in done if number <= 3} == {"cuda:0", "cuda:1", "cuda:2"}


def test_a_device_that_fails_does_not_stop_the_others() -> None:
    def broken(number: int, job: Job) -> Any:
        raise DecodeError(f"{job.source}: damaged", job.source)

    found = {number: outcome for number, _, outcome in outcomes(TASKS, [broken, lambda number, job: stats()])}
    assert len(found) == len(TASKS)
    for number, outcome in found.items():
        assert not isinstance(outcome, DecodeError) or f"{number}.mp4" in str(outcome)
    assert any(isinstance(o, DecodeError) for o in found.values())


def test_after_an_interruption_nothing_is_begun() -> None:
    begun: list[int] = []
    first = threading.Event()

    def work(number: int, job: Job) -> Any:
        begun.append(number)
        if number == 1:
            first.set()
            return stats(interrupted=True)
        assert first.wait(20)
        return stats(interrupted=True)

    ended = list(outcomes(TASKS, [work, work]))
    assert len(ended) == len(begun) <= 2


def test_closing_ends_the_threads() -> None:
    running = outcomes(TASKS, [lambda number, job: stats()] * 2)
    next(running)
    running.close()  # the fixture of conftest.py fails if a thread is left


@pytest.mark.parametrize("names", ["cuda:0,", ",", "", [], "auto,cuda:1"])
def test_devices_that_make_no_sense(names: Any) -> None:
    with pytest.raises(UsageError, match="device"):
        FileOptions(device=names)


def test_the_processes_of_a_batch_share_files_and_no_videos() -> None:
    options = FileOptions(device="cuda:0,cuda:1", jobs=2, threads=6)
    alone = each_alone(options)
    assert [(each.device, each.jobs, each.threads) for each in alone] == [("cuda:0", None, 3), ("cuda:1", None, 3)] * 2
    assert not any(each.is_shared for each in alone)
    assert options.is_shared
    assert [each.threads for each in each_alone(FileOptions(device=["cuda:0", "cuda:1"]))] == [0, 0]


def test_a_device_that_is_not_there_is_said_before_a_video_is_shared(
    clips, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(clips("cfr")), "-o", str(tmp_path / "o.mp4"), "--device", "cpu,cuda:99"]) == 7
    assert "device 'cuda:99' is not available" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_batch_on_two_devices(clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line to files, with two names for the CPU."""
    used: list[str] = []

    class OnCpu(Child):
        def __init__(self, model: str, options: FileOptions) -> None:
            self.device = options.device
            super().__init__(model, replace(options, device="cpu"))

        def denoise(self, job: Job, **calls: Any) -> Any:
            used.append(self.device)
            return super().denoise(job, **calls)

    monkeypatch.setattr(run, "Child", OnCpu)
    names = [str(clips(name)) for name in ("cfr", "bt601", "bt709", "rotated")]
    arguments = [*names, "-o", f"{tmp_path}/", "--model", "fast", "--device", "cuda:0,cuda:1", "--duration", "0.1"]
    assert main([*arguments, "--no-progress"]) == 0
    assert len(used) == 4
    assert set(used) == {"cuda:0", "cuda:1"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bt601.mp4", "bt709.mp4", "cfr.mp4", "rotated.mp4"]
    assert files.existing([Job(n, str(tmp_path / Path(n).name)) for n in names])
