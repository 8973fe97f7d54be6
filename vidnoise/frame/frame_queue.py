"""The two places where a thread joins the pipeline: :func:`prefetch` behind the source, :func:`drain` before the sink.

Both bound what lies between the threads, hand errors over with their traceback, and return only when their
thread has ended, whatever happened. They know nothing of frames: any item will do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
Policy = Literal["block", "drop_oldest"]

# Waits are woken by the other side; the time-out only lets Ctrl-C through where a lock is not interruptible (Windows).
_WAKE_SECONDS = 0.25


class FrameQueue(Generic[T]):
    """A bounded queue between one producer and one consumer, which either side can end.

    Args:
        depth: Items that may wait, at least 1.
        policy: What a full queue does with one more. ``block`` makes the producer wait (files: nothing is lost);
            ``drop_oldest`` throws the longest waiting item away at once (live: the lag is bounded).
        on_drop: Called as ``on_drop(dropped, following)`` on the producer's thread; what it returns takes the
            place of ``following``, so that it can say that something is missing before it.
        is_late: Whether an item has waited too long to be of use; such items are dropped instead of handed out, and
            told to ``on_drop`` on either side's thread when the next one comes.

    Raises:
        ValueError: ``depth`` is less than 1.
    """

    def __init__(
        self,
        depth: int,
        policy: Policy = "block",
        on_drop: Callable[[T, T], T] | None = None,
        is_late: Callable[[T], bool] | None = None,
    ) -> None:
        if depth < 1:
            raise ValueError(f"a queue needs a depth of at least 1, got {depth}")
        self.depth = depth
        self._policy = policy
        self._on_drop = on_drop
        self._is_late = is_late
        self._orphan: list[T] = []
        """An item that was dropped when none followed yet."""
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._finished = False
        self._error: BaseException | None = None

    def put(self, item: T, on_wait: Callable[[], object] | None = None) -> bool:
        """Add an item; waits for room under ``block``, and calls ``on_wait`` every quarter second meanwhile.

        False means that nobody wants items any more.
        """
        with self._changed:
            while len(self._items) >= self.depth and not self._stopped and self._policy == "block":
                if not self._changed.wait(_WAKE_SECONDS) and on_wait is not None:
                    on_wait()
            if self._stopped:
                return False
            if self._orphan:
                item = self._follow(self._orphan.pop(), item)
            self._items.append(item)
            if len(self._items) > self.depth:
                dropped = self._items.popleft()
                self._items[0] = self._follow(dropped, self._items[0])
            self._changed.notify_all()
            return True

    def _follow(self, dropped: T, following: T) -> T:
        return following if self._on_drop is None else self._on_drop(dropped, following)

    def _drop_late(self) -> None:
        if self._is_late is None:
            return
        while len(self._items) > self._finished and self._is_late(self._items[0]):  # the last of all is never dropped
            late = self._items.popleft()
            if self._items:
                self._items[0] = self._follow(late, self._items[0])
            else:
                self._orphan.append(late)

    def finish(self, error: BaseException | None = None) -> None:
        """No more items will come; the consumer still gets those that wait, then ``error`` if there is one."""
        with self._changed:
            self._finished = True
            self._error = error
            self._items.extendleft(self._orphan)  # nothing follows: late is better than never
            self._orphan.clear()
            self._changed.notify_all()

    def stop(self) -> None:
        """No more items are wanted; a waiting producer is let go and what waits is forgotten."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._orphan.clear()
            self._changed.notify_all()

    def __iter__(self) -> Generator[T, None, None]:
        return self.iterate()

    def iterate(self, on_wait: Callable[[], bool] | None = None) -> Generator[T, None, None]:
        """The items, in order; ``on_wait`` is called every quarter second in which none comes: True ends it."""
        while True:
            with self._changed:
                self._drop_late()
                while not self._items and not self._finished and not self._stopped:
                    woken = self._changed.wait(_WAKE_SECONDS)
                    if not woken and on_wait is not None and on_wait():
                        return
                    self._drop_late()
                if self._stopped or not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # or one more item than `depth` stays alive while we wait
        if self._error is not None and not self._stopped:
            raise self._error


def prefetch(
    upstream: Iterable[T],
    depth: int = 4,
    policy: Policy = "block",
    on_drop: Callable[[T, T], T] | None = None,
    *,
    is_late: Callable[[T], bool] | None = None,
    on_wait: Callable[[], bool] | None = None,
    stop: Callable[[], None] | None = None,
) -> Generator[T, None, None]:
    """Iterate ``upstream`` on a thread of its own, up to ``depth`` items ahead.

    ``is_late`` is told in :class:`FrameQueue`. ``on_wait`` is called on the consumer's thread every quarter second in
    which nothing comes, and ends the iteration by returning True. ``stop`` is called before the thread is joined, to
    let it out of a wait for data.

    The thread starts at the first ``next()`` and has ended when the generator has: at the end, when the consumer
    closes it early, and after an error. It is also the thread that closes ``upstream``'s iterator, because a
    container must not be closed while another thread is reading from it.

    Raises:
        Exception: Whatever ``upstream`` raised, after the items that came before it.
    """
    queue: FrameQueue[T] = FrameQueue(depth, policy, on_drop, is_late)

    def work() -> None:
        error: BaseException | None = None
        try:
            iterator = iter(upstream)
            try:
                for item in iterator:
                    if not queue.put(item):
                        break
                    del item
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
        except BaseException as ex:  # handed over, whatever it is: the consumer decides
            error = ex
        queue.finish(error)

    thread = threading.Thread(target=work, name="vidnoise-source", daemon=True)
    thread.start()
    try:
        yield from queue.iterate(on_wait)
    finally:
        queue.stop()
        if stop is not None:
            stop()
        thread.join()


def beside(work: Callable[[], None], on_wait: Callable[[], object]) -> None:
    """Do ``work`` on a thread of its own, and call ``on_wait`` on this one every quarter second until it is done.

    Raises:
        Exception: Whatever ``work`` raised; or ``on_wait``, and then the thread is left behind.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as ex:  # raised again below, on the caller's thread
            errors.append(ex)

    thread = threading.Thread(target=run, name="vidnoise-sink", daemon=True)
    thread.start()
    _join(thread, on_wait)
    if errors:
        raise errors[0]


def _join(thread: threading.Thread, on_wait: Callable[[], object] | None) -> None:
    while thread.is_alive():
        thread.join(_WAKE_SECONDS)
        if on_wait is not None and thread.is_alive():
            on_wait()


def drain(
    frames: Iterable[T], write: Callable[[T], None], depth: int = 4, *, on_wait: Callable[[], object] | None = None
) -> None:
    """Pull ``frames`` on this thread and ``write`` them on another one, up to ``depth`` behind.

    Returns when everything is written. If pulling fails, or at Ctrl-C (``KeyboardInterrupt``), what waits is written
    before the error is raised; a second Ctrl-C does not wait for it. If writing fails, pulling stops. ``on_wait`` is
    called on this thread every quarter second in which it waits for ``write``; where it raises, the thread that writes
    is left behind.

    Raises:
        Exception: Whatever ``frames`` or ``write`` raised; ``write``'s where both did.
    """
    queue: FrameQueue[T] = FrameQueue(depth)
    errors: list[BaseException] = []
    is_left = False

    def waited() -> None:
        nonlocal is_left
        try:
            if on_wait is not None:
                on_wait()
        except BaseException:
            is_left = True
            raise

    def work() -> None:
        try:
            for item in queue:
                write(item)
                del item
        except BaseException as ex:  # raised again below, on the caller's thread
            errors.append(ex)
        queue.stop()

    thread = threading.Thread(target=work, name="vidnoise-sink", daemon=True)
    thread.start()
    try:
        for item in frames:
            if not queue.put(item, waited):
                break
            del item
        queue.finish()
        _join(thread, waited)
    except BaseException:
        queue.finish()
        if not is_left:
            _join(thread, waited)
        if errors:
            raise errors[0] from None
        raise
    finally:
        queue.stop()
        if not is_left:
            thread.join()
    if errors:
        raise errors[0]
