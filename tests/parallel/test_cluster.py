"""A local Ray of two workers, of which one is killed. Needs `pip install vidnoise[cluster]`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import vidnoise
from parallel.conftest import Denoised, contents

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    yield
    ray.shutdown()


def busy_workers() -> list[int]:
    """The ids of the processes that are denoising a piece for Ray."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::denoise"):
                found.append(int(folder.name))
        except OSError:  # it has ended
            pass
    return found


@pytest.mark.usefixtures("local_ray")
def test_two_workers_of_which_one_is_killed_make_the_same_file(alone: Denoised, tmp_path: Path) -> None:
    killed: list[int] = []
    is_over = threading.Event()

    def kill_one() -> None:
        while not killed and not is_over.wait(0.02):
            for pid in busy_workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        progress: list[int] = []
        stats = vidnoise.denoise_file(
            alone.source, tmp_path / "out.mkv", cluster="auto", jobs=2, **{**alone.options, "threads": 1},
            progress=lambda now: progress.append(now.frames),
        )  # fmt: skip
    finally:
        is_over.set()
        killer.join()
    assert len(killed) == 1
    assert contents(tmp_path / "out.mkv") == alone.contents
    assert (stats.frames_out, stats.n_cuts, stats.device, progress[-1]) == (78, 2, "cpu of a cluster", 78)
