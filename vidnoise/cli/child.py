"""A subprocess for the files of one device, so that a crash in a codec library affects a single file.

The process receives requests on its standard input and replies on its standard output, as pickles. It ends when its
standard input does, so it never outlives its parent.
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
"""Interval at which a wait for the process checks whether to stop."""

_END_SECONDS = 5

_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Folder that contains this package."""


class CrashError(VidnoiseError):
    """The process that worked on a file has crashed."""


class _Message(NamedTuple):
    """A message from the process."""

    kind: str
    """One of ``ready``, ``log``, ``progress``, ``done``, ``failed`` and ``gone``."""
    value: Any = None


class Child:
    """Denoises files in a subprocess, which is started when needed, and again after a crash.

    Args:
        model: Name or file of the model, which is loaded once.
        options: Options as for :func:`vidnoise.denoise_file`; plain values.
        label: Printed before each message of the process.

    Raises:
        VidnoiseError: The model or device does not exist.
    """

    def __init__(self, model: str, options: FileOptions, label: str = "") -> None:
        find_model(model)  # reports a wrong name without starting a process
        self._prefix = f"{label}: " if label else ""
        self._setup = (model, options, logging.getLogger("vidnoise").getEffectiveLevel())
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def denoise(self, job: Job, *, progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> RunStats:
        """Denoise one file.

        Args:
            job: The file.
            progress: Called about ten times a second.
            should_stop: Called regularly; when it returns True, the file ends there.

        Raises:
            VidnoiseError: Whatever :func:`vidnoise.denoise_file` raised.
            CrashError: The process has crashed.
        """
        if self._process is None:
            self._start()
        self._send(("denoise", job))
        has_sent_stop = False
        try:
            while True:
                if not has_sent_stop and should_stop():
                    has_sent_stop = True
                    self._send(("stop", None))
                with contextlib.suppress(queue.Empty):
                    message = self._messages.get(timeout=_WAKE_SECONDS)
                    if message.kind == "progress":
                        progress(message.value)
                    elif message.kind == "done":
                        return message.value
                    else:
                        self._handle(message, f"{job.source} into {job.output}")
        except KeyboardInterrupt:
            self._interrupt()
            raise

    def close(self) -> None:
        """End the process. Idempotent."""
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
            start_new_session=True,  # Ctrl-C must reach only the parent, which informs the process
            env={**os.environ, "PYTHONPATH": os.pathsep.join([_HOME, os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
        self._messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._reader = threading.Thread(target=_read, args=(_pipe(process.stdout), self._messages), name="replies")
        self._reader.start()
        try:
            self._send(self._setup)
            while (message := self._messages.get()).kind != "ready":
                self._handle(message, "before its first file")
        except BaseException:
            self.close()
            raise

    def _send(self, message: object) -> None:
        assert self._process is not None
        with contextlib.suppress(OSError):  # it has crashed, which the reply thread will report
            _pipe(self._process.stdin).write(pickle.dumps(message))
            _pipe(self._process.stdin).flush()

    def _handle(self, message: _Message, what: str) -> None:
        if message.kind == "log":
            name, level, text = message.value
            logging.getLogger(name).log(level, "%s%s", self._prefix, text)
        elif message.kind == "failed":
            raise message.value
        elif message.kind == "gone":
            assert self._process is not None
            code = self._process.wait()
            self.close()
            raise CrashError(
                f"{what}: the program crashed ({_describe_exit(code)}), most likely in a library that decodes or "
                "encodes; try another codec"
            )

    def _interrupt(self) -> None:
        """Interrupt the current file, and wait until its output is finished."""
        if self._process is None or not hasattr(signal, "SIGUSR1"):
            return
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGUSR1)
        while self._messages.get().kind not in ("done", "failed", "gone"):
            pass


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _describe_exit(code: int) -> str:
    """Describe an exit status."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _read(stream: IO[bytes], messages: queue.SimpleQueue[_Message]) -> None:
    try:
        while True:
            messages.put(_Message(*pickle.load(stream)))
    except (EOFError, OSError, pickle.UnpicklingError, TypeError):
        messages.put(_Message("gone"))


# --- in the process ---------------------------------------------------------------------------------------------------


class _Replies:
    """Sends replies to the parent process. Thread-safe."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, kind: str, value: Any = None) -> None:
        message = pickle.dumps((kind, value))
        with self._lock:
            self._stream.write(message)
            self._stream.flush()


class _LogToParent(logging.Handler):
    def __init__(self, reply: _Replies) -> None:
        super().__init__()
        self._reply = reply

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._reply("log", (record.name, record.levelno, text))


def _work(requests: IO[bytes], reply: _Replies) -> None:
    from vidnoise.api import denoise_file
    from vidnoise.backends.device import resolve_device
    from vidnoise.weights import load_model

    model, options, level = pickle.load(requests)
    logger = logging.getLogger("vidnoise")
    logger.addHandler(_LogToParent(reply))
    logger.setLevel(level)
    logger.propagate = False
    try:
        loaded = load_model(model, resolve_device(options.device))
    except Exception as ex:
        reply("failed", _portable(ex))
        return
    reply("ready")
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
        if not is_idle.is_set():  # the parent is gone, as after kill -9: do not finish the file
            os._exit(1)
        jobs.put(None)

    is_idle.set()
    threading.Thread(target=listen, name="requests", daemon=True).start()
    while (job := jobs.get()) is not None:
        result: tuple[str, Any]
        try:
            stats = denoise_file(
                job.source, job.output, model=loaded, should_stop=stopping.is_set,
                progress=lambda progress: reply("progress", progress), **options.keywords(FileOptions),
            )  # fmt: skip
            result = "done", stats
        except KeyboardInterrupt:
            result = "failed", KeyboardInterrupt()
        except Exception as ex:
            logger.debug("where the error below comes from:", exc_info=True)
            result = "failed", _portable(ex)
        is_idle.set()
        reply(*result)


def _portable(error: Exception) -> Exception:
    """Return the error itself, or a replacement that can be pickled."""
    with contextlib.suppress(Exception):
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def main() -> None:
    """Process requests until standard input ends."""
    from vidnoise.allocator import keep_freed_memory

    keep_freed_memory()
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
    ):  # services send these to all processes
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.default_int_handler)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # other output must not get in between the replies
    with contextlib.suppress(BrokenPipeError):
        _work(sys.stdin.buffer, _Replies(replies))


if __name__ == "__main__":
    main()
