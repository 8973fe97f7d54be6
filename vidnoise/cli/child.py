"""A process for the files of one device: a codec library that crashes takes its file along, and none of the others.

The process is told what to do on its standard input and answers on its standard output, in pickles. It ends when its
standard input does, so never outlives who started it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from vidnoise.cli.batch import Job
from vidnoise.errors import VidnoiseError
from vidnoise.options import FileOptions
from vidnoise.weights import find_model

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import Progress, RunStats

_WAKE_SECONDS = 0.1
"""How soon a wait for the process notices that the run is to stop."""

_END_SECONDS = 5

_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Where this very package is found."""


class CrashError(VidnoiseError):
    """The process that worked on a file is gone."""


class _Told(NamedTuple):
    """What the process says."""

    kind: str
    """``ready``, ``log``, ``progress``, ``done``, ``failed``."""
    value: Any = None


class Child:
    """Denoises files in a process of its own, which is started when needed, and anew after a crash.

    Args:
        model: A name or file; it is loaded once.
        options: As for :func:`vidnoise.denoise_file`; plain values.

    Raises:
        VidnoiseError: There is no such model or device.
    """

    def __init__(self, model: str, options: FileOptions) -> None:
        find_model(model)  # a wrong name needs no process to be found out
        self._setup = (model, options, logging.getLogger("vidnoise").getEffectiveLevel())
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def denoise(self, job: Job, *, progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> RunStats:
        """Denoise one file.

        Raises:
            VidnoiseError: What :func:`vidnoise.denoise_file` raised.
            CrashError: The process is gone.
        """
        if self._process is None:
            self._start()
        self._send(("denoise", job))
        is_told = False
        try:
            while True:
                if not is_told and should_stop():
                    is_told = True
                    self._send(("stop", None))
                with contextlib.suppress(queue.Empty):
                    told = self._told.get(timeout=_WAKE_SECONDS)
                    if told.kind == "progress":
                        progress(told.value)
                    elif told.kind == "done":
                        return told.value
                    else:
                        self._take(told, f"{job.source} into {job.output}")
        except KeyboardInterrupt:
            self._interrupt()
            raise

    def close(self) -> None:
        """End the process. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            _pipe(process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        if process.poll() is None:
            process.kill()
            process.wait()
        self._reader.join()
        _pipe(process.stdout).close()

    def _start(self) -> None:
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for who started it, who tells it
            env={**os.environ, "PYTHONPATH": os.pathsep.join([_HOME, os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
        self._told: queue.SimpleQueue[_Told] = queue.SimpleQueue()
        self._reader = threading.Thread(target=_read, args=(_pipe(process.stdout), self._told), name="answers")
        self._reader.start()
        try:
            self._send(self._setup)
            while (told := self._told.get()).kind != "ready":
                self._take(told, "before its first file")
        except BaseException:
            self.close()
            raise

    def _send(self, message: object) -> None:
        assert self._process is not None
        with contextlib.suppress(OSError):  # it is gone, which its answers tell better
            _pipe(self._process.stdin).write(pickle.dumps(message))
            _pipe(self._process.stdin).flush()

    def _take(self, told: _Told, what: str) -> None:
        if told.kind == "log":
            name, level, text = told.value
            logging.getLogger(name).log(level, "%s", text)
        elif told.kind == "failed":
            raise told.value
        elif told.kind == "gone":
            assert self._process is not None
            code = self._process.wait()
            self.close()
            raise CrashError(f"{what}: the program crashed ({_how(code)}), most likely in a library that decodes or "
                             "encodes; try another codec")  # fmt: skip

    def _interrupt(self) -> None:
        """At once, but properly: what is there is finished."""
        if self._process is None or not hasattr(signal, "SIGUSR1"):
            return
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGUSR1)
        while self._told.get().kind not in ("done", "failed", "gone"):
            pass


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _how(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _read(stream: IO[bytes], told: queue.SimpleQueue[_Told]) -> None:
    try:
        while True:
            told.put(_Told(*pickle.load(stream)))
    except (EOFError, OSError, pickle.UnpicklingError, TypeError):
        told.put(_Told("gone"))


# --- in the process ---------------------------------------------------------------------------------------------------


class _Answers:
    """Whoever started this process. Any thread may use it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, kind: str, value: Any = None) -> None:
        message = pickle.dumps((kind, value))
        with self._lock:
            self._stream.write(message)
            self._stream.flush()


class _LogToParent(logging.Handler):
    def __init__(self, answer: _Answers) -> None:
        super().__init__()
        self._answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._answer("log", (record.name, record.levelno, text))


def _work(requests: IO[bytes], answer: _Answers) -> None:
    from vidnoise.api import denoise_file
    from vidnoise.session.denoiser import resolve_device
    from vidnoise.weights import load_model

    model, options, level = pickle.load(requests)
    logger = logging.getLogger("vidnoise")
    logger.addHandler(_LogToParent(answer))
    logger.setLevel(level)
    logger.propagate = False
    try:
        loaded = load_model(model, resolve_device(options.device))
    except Exception as ex:
        answer("failed", _portable(ex))
        return
    answer("ready")
    stopping = threading.Event()
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    is_idle = threading.Event()

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, job = pickle.load(requests)
                if kind == "stop":
                    stopping.set()
                else:
                    stopping.clear()
                    is_idle.clear()
                    jobs.put(job)
        if not is_idle.is_set():  # who started us is gone, as after kill -9: nothing is finished for nobody
            os._exit(1)
        jobs.put(None)

    is_idle.set()
    threading.Thread(target=listen, name="requests", daemon=True).start()
    while (job := jobs.get()) is not None:
        result: tuple[str, Any]
        try:
            stats = denoise_file(
                job.source, job.output, model=loaded, should_stop=stopping.is_set,
                progress=lambda progress: answer("progress", progress), **options.keywords(FileOptions),
            )  # fmt: skip
            result = "done", stats
        except KeyboardInterrupt:
            result = "failed", KeyboardInterrupt()
        except Exception as ex:
            logger.debug("where the error below comes from:", exc_info=True)
            result = "failed", _portable(ex)
        is_idle.set()
        answer(*result)


def _portable(error: Exception) -> Exception:
    """The error itself, or what can be sent of it."""
    with contextlib.suppress(Exception):
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def main() -> None:
    """Work until standard input ends."""
    from vidnoise.allocator import keep_freed_memory

    keep_freed_memory()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to all of a service's processes; we are told what to do
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.default_int_handler)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints must not come between the answers
    with contextlib.suppress(BrokenPipeError):
        _work(sys.stdin.buffer, _Answers(answers))


if __name__ == "__main__":
    main()
