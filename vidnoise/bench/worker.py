"""Worker processes for cases, so that memory is measured separately and a case that hangs or dies affects no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from vidnoise.allocator import keep_freed_memory
from vidnoise.errors import VidnoiseError


class WorkerError(Exception):
    """Failure of a case; the text is the reason."""


class Worker:
    """A process that answers calls one at a time.

    Args:
        threads: CPU threads for everything in the process.
        patience_seconds: Timeout for an answer.
    """

    def __init__(self, threads: int, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads), name="vidnoise-bench")
        self._process.start()
        theirs.close()

    def call(self, what: str, *args: Any, patience_seconds: float | None = None) -> Any:
        """Call ``setup`` (of a case), ``burst`` or ``facts`` (see :class:`Session`), or ``run`` (:func:`run_clip`).

        Raises:
            WorkerError: It failed, died or took too long; the process has then been ended.
        """
        patience = patience_seconds or self.patience_seconds
        try:
            self._connection.send((what, *args))
            if not self._connection.poll(patience):
                raise WorkerError(f"{what} took more than {patience:g} s")
            is_done, answer = self._connection.recv()
        except (EOFError, OSError) as ex:
            self._process.join(5)
            code = self._process.exitcode
            hint = ": out of memory?" if code == -9 else ""
            self.close()
            raise WorkerError(f"the process ended during {what} (exit status {code}{hint})") from ex
        except BaseException:  # Ctrl-C too: a remaining process would be waited for at exit
            self.close()
            raise
        if not is_done:
            self.close()
            raise WorkerError(answer)
        return answer

    def close(self) -> None:
        """End the process. May be called twice."""
        self._connection.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


def _serve(connection: Connection, threads: int) -> None:
    # Ctrl-C reaches the whole process group; the parent ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    keep_freed_memory()  # as the command does
    import torch

    from vidnoise.opencv import cv2

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    session: Any = None
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            what, *args = connection.recv()
            try:
                if what == "setup":
                    from vidnoise.bench.session import Session

                    session = Session(*args)
                    answer: Any = session.facts()
                elif what == "run":
                    from vidnoise.bench.end_to_end import run_clip

                    answer = run_clip(*args, threads=threads)
                else:
                    answer = getattr(session, what)(*args)
            except VidnoiseError as ex:
                connection.send((False, str(ex)))
            except Exception as ex:  # any error of a backend's library is reported, and the benchmark continues
                text = " ".join(str(ex).split())
                connection.send((False, f"{type(ex).__name__}: {text[:300]}"))
            else:
                connection.send((True, answer))
