"""A subprocess for the files of one device, so that a crash in a codec library affects a single file."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vidnoise.cli.batch import Job
from vidnoise.options import FileOptions
from vidnoise.parallel.process import CrashError, Message, Process, Receive, Reply, portable
from vidnoise.weights import find_model

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import Progress, RunStats

logger = logging.getLogger(__name__)

_WAKE_SECONDS = 0.1
"""Interval at which a wait for the process checks whether to stop."""


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
        self._setup = (model, options)
        self._process: Process | None = None
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
                message = self._receive(f"{job.source} into {job.output}", _WAKE_SECONDS)
                if message is None:
                    continue
                if message.kind == "progress":
                    progress(message.value)
                elif message.kind == "refused":
                    raise message.value
                else:
                    return message.value
        except KeyboardInterrupt:
            self._interrupt()
            raise

    def close(self) -> None:
        """End the process. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _start(self) -> None:
        self._process = Process(f"{__name__}:work", self._prefix)
        try:
            self._send(self._setup)
            self._receive("before its first file")
        except BaseException:
            self.close()
            raise

    def _send(self, message: object) -> None:
        assert self._process is not None
        self._process.send(message)

    def _receive(self, what: str, timeout: float | None = None) -> Message | None:
        """Return the next message, or None after ``timeout``; ``what`` is what a crash would be about."""
        process = self._process
        assert process is not None
        message = process.receive(timeout)
        if message is not None and message.kind == "gone":
            self._process = None
            raise CrashError(
                f"{what}: the program crashed ({process.close()}), most likely in a library that decodes or encodes; "
                "try another codec"
            )
        return message

    def _interrupt(self) -> None:
        """Interrupt the current file, and wait until its output is finished."""
        if self._process is None:
            return
        self._process.interrupt()
        with contextlib.suppress(Exception):
            while (message := self._process.receive()) is not None and message.kind == "progress":
                pass


# --- in the process ---------------------------------------------------------------------------------------------------


def work(receive: Receive, reply: Reply) -> None:
    """Denoise the files that the parent process asks for."""
    from vidnoise.api import denoise_file
    from vidnoise.backends.device import resolve_device
    from vidnoise.weights import load_model

    model, options = receive()
    loaded = load_model(model, resolve_device(options.device))
    reply("ready")
    stopping = threading.Event()
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    is_idle = threading.Event()

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, job = receive()
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
            result = "refused", KeyboardInterrupt()
        except Exception as ex:
            logger.debug("where the error below comes from:", exc_info=True)
            result = "refused", portable(ex)
        is_idle.set()
        reply(*result)


__all__ = ["Child", "CrashError"]
