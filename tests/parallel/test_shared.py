"""Processes share a video: the file is the same, whatever becomes of a process, or there is none."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidnoise
from parallel.conftest import Denoised, contents
from vidnoise.errors import BackendError, FormatError, UsageError
from vidnoise.options import FileOptions
from vidnoise.parallel import cluster, team
from vidnoise.parallel.process import CrashError, Process


def crashing(monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[int]:
    """Let the first processes crash in the middle of their first piece; returns the ids of all."""
    begun: list[int] = []

    class Crashing(Process):
        def __init__(self, function: str) -> None:
            super().__init__(function)
            begun.append(self.pid)
            self._sent_until_crash = 14 if len(begun) <= times else -1

        def send(self, message: object) -> None:
            super().send(message)
            if "_sent_until_crash" in vars(self):
                self._sent_until_crash -= 1
                if self._sent_until_crash == 0:
                    while self._messages.empty():  # until frames have come back, which must not come twice
                        time.sleep(0.01)
                    self.kill()

    monkeypatch.setattr(team, "Process", Crashing)
    return begun


def test_two_processes_of_which_one_is_killed_make_the_same_file(
    alone: Denoised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = crashing(monkeypatch, times=1)
    progress: list[int] = []
    stats = vidnoise.denoise_file(
        alone.source, tmp_path / "out.mkv", device=["cpu", "cpu"], **alone.options,
        progress=lambda now: progress.append(now.frames),
    )  # fmt: skip
    assert len(begun) == 3
    assert "a worker on cpu crashed (SIGKILL); its frames are denoised again" in caplog.text
    assert contents(tmp_path / "out.mkv") == alone.contents
    assert (stats.frames_in, stats.frames_out, stats.n_cuts, stats.backend) == (78, 78, 2, "eager")
    assert (stats.device, stats.precision, progress[-1]) == ("cpu,cpu", alone.precision, 78)


def test_a_piece_that_crashes_processes_again_and_again_is_an_error(
    alone: Denoised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing(monkeypatch, times=9)
    with pytest.raises(CrashError, match=r"a worker on cpu crashed \(SIGKILL\), and so did the"):
        vidnoise.denoise_file(alone.source, tmp_path / "out.mkv", jobs=2, device="cpu", **alone.options)
    assert not list(tmp_path.iterdir())


def test_an_error_in_a_worker_is_an_error_of_the_run(alone: Denoised, tmp_path: Path) -> None:
    mask = np.ones((10, 90), np.float32)
    with pytest.raises(FormatError, match="the mask is 90x10"):
        vidnoise.denoise_file(alone.source, tmp_path / "out.mkv", jobs=2, device="cpu", mask=mask, **alone.options)
    assert not list(tmp_path.iterdir())


# --- what cannot be shared, without any process -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"jobs": 2, "grain_table": "table.txt"}, "a grain table is made from all frames in one process"),
        ({"jobs": 0}, "jobs must be between 1 and 256"),
        ({"cluster": "auto", "device": ["cuda:0", "cuda:1"]}, "a cluster has devices of its own"),
        ({"jobs": 2, "backend": object()}, "cannot share a backend"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        FileOptions(**options)


def test_a_mask_that_is_a_video_is_refused(alone: Denoised, tmp_path: Path) -> None:
    options = {**alone.options, "mask": alone.source, "jobs": 2, "device": "cpu"}
    with pytest.raises(UsageError, match="a mask that is a video is read in step with the frames"):
        vidnoise.denoise_file(alone.source, tmp_path / "out.mkv", **options)
    assert not list(tmp_path.iterdir())


def test_a_live_input_is_denoised_by_one_process_and_that_is_said(
    tmp_path: Path, tiny_model: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "Process", None)
    stats = vidnoise.denoise_file(
        "lavfi:testsrc2=size=64x48:rate=25", tmp_path / "o.mkv", live=True, jobs=2, device="cpu", model=tiny_model,
        duration=0.2,
    )  # fmt: skip
    assert stats.frames_out
    assert any(
        record.levelno == logging.WARNING and "so one process denoises it" in record.getMessage()
        for record in caplog.records
    )


def test_a_cluster_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ray:
        def init(self, address: str, **_: object) -> None:
            raise ConnectionError("Could not find\nany running Ray instance.")

    with pytest.raises(BackendError, match=r"no Ray cluster can be reached at 'auto' \(Could not find any running"):
        cluster._connect(Ray(), "auto")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BackendError, match=r"pip install vidnoise\[cluster\]"):
        cluster._import_ray()
