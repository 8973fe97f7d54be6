"""A subprocess that runs a function of this package and exchanges messages with it.

Messages are pickles on the process's standard input and output. It ends when its standard input does, so it never
outlives its parent.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from vidnoise.errors import VidnoiseError

_END_SECONDS = 5

_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Folder that contains this package."""


class CrashError(VidnoiseError):
    """A subprocess has crashed."""


class Message(NamedTuple):
    """A message from a subprocess."""

    kind: str
    """What the function chose; or ``failed``, with its exception, or ``gone``."""
    value: Any = None


class Process:
    """A subprocess. One thread at a time may send and receive; any thread may kill it.

    Args:
        function: ``module:name`` of the function that it runs, which takes a function that receives the next message
            and raises EOFError at the end, and a thread-safe function that sends a kind and a value back. An exception
            that it raises is the message ``failed``.
        prefix: Printed before what it logs.
    """

    def __init__(self, function: str, prefix: str = "") -> None:
        self._prefix = prefix
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, function], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must reach only the parent, which informs the process
            env={**os.environ, "PYTHONPATH": os.pathsep.join([_HOME, os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._reader = threading.Thread(
            target=_read, args=(_pipe(self._process.stdout), self._messages), name="replies"
        )  # fmt: skip
        self._reader.start()
        self.send(logging.getLogger("vidnoise").getEffectiveLevel())

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: object) -> None:
        """Send a message; waits until the process has room for it. Has no effect on one that is gone."""
        with contextlib.suppress(OSError):  # it has crashed, which the next call of receive() will report
            _pipe(self._process.stdin).write(pickle.dumps(message))
            _pipe(self._process.stdin).flush()

    def receive(self, timeout: float | None = None) -> Message | None:
        """Return the next message, or None if none comes within ``timeout`` seconds. What it logs is logged here.

        Raises:
            Exception: Whatever its function raised.
        """
        while True:
            try:
                message = self._messages.get(timeout=timeout)
            except queue.Empty:
                return None
            if message.kind == "failed":
                raise message.value
            if message.kind != "log":
                return message
            name, level, text = message.value
            logging.getLogger(name).log(level, "%s%s", self._prefix, text)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in its main thread, where the system has such signals."""
        if hasattr(signal, "SIGUSR1"):
            with contextlib.suppress(OSError):
                self._process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End it at once; :meth:`close` must still be called."""
        self._process.kill()

    def close(self) -> str:
        """End it, and wait until it has ended; returns its exit status in words."""
        process = self._process
        with contextlib.suppress(OSError):
            _pipe(process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        if process.poll() is None:
            process.kill()
        code = process.wait()
        self._reader.join()
        _pipe(process.stdout).close()
        return _describe_exit(code)


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


def _read(stream: IO[bytes], messages: queue.SimpleQueue[Message]) -> None:
    try:
        while True:
            messages.put(Message(*pickle.load(stream)))
    except (EOFError, OSError, pickle.UnpicklingError, TypeError):
        messages.put(Message("gone"))


# --- in the process ---------------------------------------------------------------------------------------------------

Receive = Callable[[], Any]


class Reply:
    """Sends messages to the parent process. Thread-safe."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, kind: str, value: Any = None) -> None:
        message = pickle.dumps((kind, value))
        with self._lock:
            self._stream.write(message)
            self._stream.flush()


class _LogToParent(logging.Handler):
    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._reply("log", (record.name, record.levelno, text))


def portable(error: BaseException) -> BaseException:
    """Return the error itself, or a replacement that can be pickled."""
    with contextlib.suppress(Exception):
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def main(function: str) -> None:
    """Run a function until it returns, as :class:`Process` explains."""
    from vidnoise.allocator import keep_freed_memory

    keep_freed_memory()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # services send these to all processes
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.default_int_handler)
    reply = Reply(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # other output must not get in between the replies

    def receive() -> Any:
        return pickle.load(sys.stdin.buffer)

    with contextlib.suppress(BrokenPipeError, EOFError):
        logger = logging.getLogger("vidnoise")
        logger.setLevel(receive())
        logger.addHandler(_LogToParent(reply))
        logger.propagate = False
        module, _, name = function.partition(":")
        try:
            getattr(importlib.import_module(module), name)(receive, reply)
        except (BrokenPipeError, EOFError):
            raise
        except Exception as ex:
            logger.debug("where the error below comes from:", exc_info=True)
            reply("failed", portable(ex))


if __name__ == "__main__":
    main(sys.argv[1])
