"""Several devices at once: each takes the next file as soon as it has done one."""

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
"""A file and its number."""

Work = Callable[[int, Job], "RunStats"]


def split_devices(names: str) -> list[str]:
    """``"cuda:0,cuda:1"`` as a list.

    Raises:
        UsageError: one is missing or named twice; ``auto`` beside others.
    """
    devices = [name.strip() for name in names.split(",")]
    if not all(devices) or len(set(devices)) < len(devices):
        raise UsageError(f"--device {names!r} must name devices with commas between them, each once")
    if len(devices) > 1 and "auto" in devices:
        raise UsageError("--device auto is one device; name all of several, as in cuda:0,cuda:1")
    return devices


def outcomes(tasks: Sequence[Task], workers: Sequence[Work]) -> Iterator[tuple[int, Job, RunStats | Exception]]:
    """What became of each task, in the order in which they end.

    One worker works on the caller's thread, task by task as it is asked; several on threads of their own, which have
    ended when the iterator has. No task is begun after one that was interrupted, or after the iterator was closed.

    Args:
        tasks: what is to be done.
        workers: who does it, one for each device; what one raises is the task's outcome.
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
