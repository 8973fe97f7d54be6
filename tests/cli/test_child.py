"""The files of a batch are worked on in another process: what crashes there costs one file."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.clips import Clip
from vidnoise import errors
from vidnoise.cli import main, run
from vidnoise.cli.batch import Job
from vidnoise.cli.child import Child, CrashError
from vidnoise.errors import SourceOpenError, UnknownModelError, VidnoiseError
from vidnoise.options import FileOptions

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")

OPTIONS = FileOptions(device="cpu", strength=0.0, threads=1, duration=0.2)


def calls(**others: Any) -> dict[str, Any]:
    return {"progress": lambda progress: None, "should_stop": lambda: False, **others}


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child("fast", OPTIONS)
    yield child
    child.close()


def test_a_crash_costs_the_file_in_hand_only(
    clips: Callable[[str], Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Crashing(Child):
        def _send(self, message: Any) -> None:
            if message[0] == "denoise" and "b.mp4" in message[1].source:
                os.kill(self._process.pid, signal.SIGSEGV)  # type: ignore[union-attr]
            super()._send(message)

    monkeypatch.setattr(run, "Child", Crashing)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(clips("cfr").path.read_bytes())
    arguments = [str(tmp_path), "-o", f"{tmp_path}/out/", "--model", "fast", "--threads", "1", "--duration", "0.2"]
    assert main(arguments) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "c.mp4"]
    err = capsys.readouterr().err.splitlines()
    assert "2/3 failed" in err[1]
    assert "the program crashed (SIGSEGV)" in err[1]
    assert "1 of 3 files failed" in err[-2]


def test_statistics_progress_and_errors_come_back(child: Child, clips: Callable[[str], Clip], tmp_path: Path) -> None:
    seen: list[int] = []
    job = Job(str(clips("cfr")), str(tmp_path / "a.mkv"))
    stats = child.denoise(job, **calls(progress=lambda progress: seen.append(progress.frames)))
    assert (stats.frames_out, stats.interrupted, seen[-1]) == (5, False, 5)
    with pytest.raises(SourceOpenError, match="no such file") as caught:
        child.denoise(Job("nowhere.mp4", str(tmp_path / "b.mkv")), **calls())
    assert caught.value.uri == "nowhere.mp4"


def test_what_the_other_process_logs_is_logged_here(
    child: Child, clips: Callable[[str], Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child.denoise(Job(str(clips("everything")), str(tmp_path / "a.avi")), **calls())
    assert any("is left out" in record.getMessage() for record in caplog.records)


def test_a_stop_finishes_the_file(tmp_path: Path) -> None:
    endless = "lavfi:testsrc2=size=64x48:rate=25"
    with contextlib.closing(Child("fast", replace(OPTIONS, duration=None))) as child:
        seen: list[int] = []
        stats = child.denoise(
            Job(endless, str(tmp_path / "a.mkv")),
            **calls(progress=lambda progress: seen.append(progress.frames), should_stop=lambda: bool(seen)),
        )
        assert stats.interrupted
        assert stats.frames_out > 0

        def interrupt(progress: object) -> None:
            raise KeyboardInterrupt  # as the second Ctrl-C does

        with pytest.raises(KeyboardInterrupt):
            child.denoise(Job(endless, str(tmp_path / "b.mkv")), **calls(progress=interrupt))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "b.mkv"]


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """After a kill -9 nothing goes on behind the user's back, nor gets its final name."""
    script = (
        "import os, signal; from vidnoise.cli.batch import Job; from vidnoise.cli.child import Child\n"
        "from vidnoise.options import FileOptions\n"
        "child = Child('fast', FileOptions(device='cpu', strength=0.0, threads=1))\n"
        "print(child._process.pid, flush=True)\n"
        f"child.denoise(Job('lavfi:testsrc2=size=64x48:rate=25', {str(tmp_path / 'a.mkv')!r}), "
        "should_stop=lambda: False, progress=lambda p: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            break  # dead, and waiting for init
        signal.sigtimedwait([], 0.1)
    else:
        pytest.fail("it goes on")
    assert not (tmp_path / "a.mkv").exists()


def test_an_unknown_model_is_said_before_anything_runs() -> None:
    with pytest.raises(UnknownModelError, match="unknown model"):
        Child("nonsense", OPTIONS)


def test_control_a_child_that_is_gone_says_so(child: Child, tmp_path: Path) -> None:
    """The last to use it."""
    assert child._process is not None
    child._process.kill()
    with pytest.raises(CrashError, match="SIGKILL"):
        child.denoise(Job("a.mp4", str(tmp_path / "a.mkv")), **calls())


@pytest.mark.parametrize("error", [e for e in vars(errors).values() if isinstance(e, type)], ids=lambda e: e.__name__)
def test_every_error_travels(error: type[VidnoiseError]) -> None:
    twin = pickle.loads(pickle.dumps(error("what went wrong")))
    assert type(twin) is error
    assert str(twin) == "what went wrong"
