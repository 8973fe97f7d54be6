"""Several processes at once: each takes the next file when it has finished one."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vidnoise.cli.batch import Job
from vidnoise.options import FileOptions

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import RunStats

Task = tuple[int, Job]
"""Number of a file, and its job."""

Work = Callable[[int, Job], "RunStats"]


def each_alone(options: FileOptions) -> list[FileOptions]:
    """Return the options of each process of a batch, where processes share the files, and none shares a video.

    A cluster shares each video instead, one after the other.
    """
    if options.cluster is not None:
        return [options]
    threads = options.threads
    if options.jobs is not None:
        threads = max(1, (threads or os.cpu_count() or 1) // options.jobs)
    return [replace(options, device=device, jobs=None, threads=threads) for device in options.devices] * (
        options.jobs or 1
    )


def outcomes(tasks: Sequence[Task], workers: Sequence[Work]) -> Iterator[tuple[int, Job, RunStats | Exception]]:
    """Yield the outcome of each task, in the order in which they end.

    A single worker runs on the caller's thread, task by task on demand; several run on threads of their own, which have
    ended when the iterator has. No task is started after one was interrupted, or after the iterator was closed.

    Args:
        tasks: The files to process.
        workers: One for each process. An exception that a worker raises is the outcome of the task.
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
