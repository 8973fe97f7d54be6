"""Workers on this machine: a process for each."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Protocol

from vidnoise.parallel.pieces import Piece
from vidnoise.parallel.process import CrashError, Process
from vidnoise.parallel.worker import Clean, Outline, Setup, packed

logger = logging.getLogger(__name__)

ATTEMPTS = 2
"""How often a piece is begun if processes crash."""


class Work(Protocol):
    """A piece that workers have been given."""

    piece: Piece

    def next(self, timeout: float) -> Clean | None:
        """Return the next frame that is wanted, or None if there is none after ``timeout`` seconds.

        Raises:
            VidnoiseError: It could not be denoised.
        """
        ...


class Team(Protocol):
    """Workers, who share the pieces of one stream."""

    size: int
    """Number of pieces that they denoise at the same time."""
    device: str
    """Their devices, for people."""
    threads: int
    """Threads of the network of each."""

    def submit(self, piece: Piece) -> Work:
        """Have a piece denoised as soon as a worker is free."""
        ...

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        ...


class _Work:
    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self._results: queue.SimpleQueue[Clean | Exception] = queue.SimpleQueue()
        self.n_done = 0
        """Number of frames that are finished."""

    @property
    def is_done(self) -> bool:
        return self.n_done == len(self.piece.wanted)

    def put(self, clean: Clean) -> None:
        self.n_done += 1
        self._results.put(clean)

    def fail(self, error: Exception) -> None:
        self._results.put(error)

    def next(self, timeout: float) -> Clean | None:
        try:
            found = self._results.get(timeout=timeout) if timeout else self._results.get_nowait()
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found


class ProcessTeam:
    """Worker processes on this machine, which are started when there is work for them.

    If one crashes, its piece is begun again in another process.

    Args:
        setup: What each of them needs.
        devices: Device of each.
        threads: Threads of the network of each.
    """

    def __init__(self, setup: Setup, devices: Sequence[str], *, threads: int) -> None:
        self._setup, self.threads = setup, threads
        self.size = len(devices)
        self.device = ",".join(devices)
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._is_closed = False
        self._processes: dict[int, Process] = {}
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._drive, args=(number, device), name=f"worker {number}")
            for number, device in enumerate(devices)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, piece: Piece) -> Work:
        work = _Work(piece)
        self._waiting.put(work)
        return work

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            for process in self._processes.values():
                process.kill()
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _drive(self, number: int, device: str) -> None:
        """Have one process do what waits, on a thread of its own."""
        try:
            while (work := self._waiting.get()) is not None and not self._is_closed:
                try:
                    self._finish(number, device, work)
                except Exception as ex:
                    self._end(number)
                    work.fail(ex)
        finally:
            self._end(number)

    def _finish(self, number: int, device: str, work: _Work) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(number, device, work)
            except CrashError as ex:
                if self._is_closed:
                    raise
                if attempt == ATTEMPTS:
                    raise CrashError(f"{ex}, and so did the one before it; fewer jobs need less memory") from ex
                logger.warning("%s; its frames are denoised again", ex)

    def _attempt(self, number: int, device: str, work: _Work) -> None:
        process = self._processes.get(number) or self._start(number, device)
        n_known = work.n_done  # by an earlier attempt, whose results are the same
        n_clean = 0

        def collect(timeout: float | None) -> bool:
            nonlocal n_clean
            message = process.receive(timeout)
            if message is None:
                return False
            if message.kind == "gone":
                raise CrashError(f"a worker on {device} crashed ({self._end(number)})")
            n_clean += 1
            if n_clean > n_known:
                work.put(message.value)
            return True

        process.send(Outline.of(work.piece))
        for frame in work.piece.frames:
            process.send(packed(frame))
            while collect(0):
                pass
        while not work.is_done:
            collect(None)

    def _start(self, number: int, device: str) -> Process:
        process = Process("vidnoise.parallel.worker:work")
        with self._lock:
            self._processes[number] = process
            if self._is_closed:
                process.kill()
        process.send((self._setup, device, self.threads))
        return process

    def _end(self, number: int) -> str:
        """End a process, and return its exit status in words."""
        with self._lock:
            process = self._processes.pop(number, None)
        return "" if process is None else process.close()
