"""Several devices at once: each takes the next file when it has finished one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from vidnoise.cli.batch import Job
from vidnoise.errors import UsageError

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import RunStats

Task = tuple[int, Job]
"""Number of a file, and its job."""

Work = Callable[[int, Job], "RunStats"]


def split_devices(names: str) -> list[str]:
    """Split ``"cuda:0,cuda:1"`` into a list.

    Raises:
        UsageError: A name is missing or repeated, or ``auto`` is one of several.
    """
    devices = [name.strip() for name in names.split(",")]
    if not all(devices) or len(set(devices)) < len(devices):
        raise UsageError(f"--device {names!r} must name devices with commas between them, each once")
    if len(devices) > 1 and "auto" in devices:
        raise UsageError("--device auto is one device; name all of several, as in cuda:0,cuda:1")
    return devices


def outcomes(tasks: Sequence[Task], workers: Sequence[Work]) -> Iterator[tuple[int, Job, RunStats | Exception]]:
    """Yield the outcome of each task, in the order in which they end.

    A single worker runs on the caller's thread, task by task on demand; several run on threads of their own, which have
    ended when the iterator has. No task is started after one was interrupted, or after the iterator was closed.

    Args:
        tasks: The files to process.
        workers: One for each device. An exception that a worker raises is the outcome of the task.
    """
    if len(workers) == 1:
        for number, job in tasks:
            try:
                yield number, job, workers[0](number, job)
            except Exception as ex:
                yield number, job, ex
        return
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Job, RunStats | Exception] | None] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    stopped = threading.Event()

    def work(worker: Work) -> None:
        try:
            while not stopped.is_set():
                number, job = waiting.get_nowait()
                try:
                    outcome: RunStats | Exception = worker(number, job)
                except Exception as ex:
                    outcome = ex
                if not isinstance(outcome, Exception) and outcome.interrupted:
                    stopped.set()
                done.put((number, job, outcome))
        except queue.Empty:
            pass
        finally:
            done.put(None)

    threads = [threading.Thread(target=work, args=(w,), name=f"device {i}") for i, w in enumerate(workers)]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            found = done.get()
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
