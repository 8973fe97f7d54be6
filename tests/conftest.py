"""Fixtures for all tests: clips made on demand, and no thread left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

try:
    from support import clips as clip_kitchen
except ImportError:  # no av, as on bare GPU machines: tests that need no clip still run
    clip_kitchen = None

torch.set_num_threads(1)

os.environ.setdefault("VIDNOISE_CONFIG", os.devnull)  # what the user has set is not what is tested

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in its background, and what we start would inherit it: there would be no Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if not torch.cuda.is_available():
    # Before anybody imports triton: its kernels are then interpreted.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """``clips("vfr")`` is that clip of ``clips.CLIPS``, made when first asked for."""
    if clip_kitchen is None:
        pytest.skip("clips are made by av, which is not installed")
    folder: Path = tmp_path_factory.mktemp("clips")
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            made[name] = clip_kitchen.build(name, folder)
        return made[name]

    return get


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the ONNX files of networks: tracing takes seconds, so all processes of a run trace a graph once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "traced"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def batches_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a batch are worked on in this process: another takes seconds to start, and has test_child.py."""
    import vidnoise
    from vidnoise.options import FileOptions

    class Here:
        def __init__(self, model: str, options: FileOptions) -> None:
            self._options = {"model": model, **options.keywords(FileOptions)}

        def denoise(self, job: Any, **calls: Any) -> Any:
            return vidnoise.denoise_file(job.source, job.output, **self._options, **calls)

        def close(self) -> None: ...

    monkeypatch.setattr("vidnoise.cli.run.Child", Here)


@pytest.fixture
def no_network_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where strength 0 makes no use of what the network finds, it need not look: most of the time of a run."""
    from vidnoise.frame import Frame
    from vidnoise.session.denoiser import Denoiser

    push = Denoiser.push

    def quick(self: Denoiser, frame: Frame) -> list[Frame]:
        if self._amounts.at(frame).strength:
            return push(self, frame)
        frame = replace(frame, planes=tuple(plane.clone() for plane in frame.planes))
        task = self.prepare(frame)
        return [*self.drain(), self.finish(task, task.padded, torch.zeros(()))]

    monkeypatch.setattr(Denoiser, "push", quick)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options of a run with a network of no worth, which is fast."""
    from support.live_peers import with_tiny_model

    return with_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tiny_model(tiny: tuple[str, ...]) -> str:
    """The file of that network."""
    return tiny[1]


@pytest.fixture
def run(tiny: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """``run(...)`` is (exit code, lines on standard error) of that command line, which changes no picture."""
    from vidnoise.cli import main

    def call(*args: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = main([*map(str, args), *tiny, "--strength", "0"])
        return code, capsys.readouterr().err.splitlines()

    return call


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 10
    while left := [t for t in threading.enumerate() if t not in before and t.is_alive()]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left alive: {', '.join(t.name for t in left)}")
        time.sleep(0.01)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``needs_cuda`` skips where there is no GPU; ``FAIL_WITHOUT_CUDA=1`` (the GPU job) makes that a failure."""
    if item.get_closest_marker("needs_cuda") and not torch.cuda.is_available():
        if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
            pytest.fail("FAIL_WITHOUT_CUDA is set, and there is no CUDA device")
        pytest.skip("no CUDA device")
