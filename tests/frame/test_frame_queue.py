"""The thread joint: order, bounds, errors, and that no thread outlives it (conftest checks that after each test)."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
import traceback
from collections.abc import Iterator

import pytest

from vidnoise.frame.frame_queue import FrameQueue, drain, prefetch

pytestmark = pytest.mark.realtime


class Numbers:
    """Counts up; notes how far it was read, and by which thread it was closed."""

    def __init__(self, n: int, fail_at: int | None = None, wait: float = 0) -> None:
        self.n, self.fail_at, self.wait = n, fail_at, wait
        self.n_read = 0
        self.closed_by: str | None = None

    def __iter__(self) -> Iterator[int]:
        try:
            for i in range(self.n):
                if i == self.fail_at:
                    raise ValueError(f"broken at {i}")
                self.n_read += 1
                yield i
                if self.wait:
                    time.sleep(self.wait)
        finally:
            self.closed_by = threading.current_thread().name


def until(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def test_everything_arrives_in_order():
    numbers = Numbers(200)
    assert list(prefetch(numbers, depth=3)) == list(range(200))
    assert numbers.closed_by == "vidnoise-source"


def test_reading_ahead_is_bounded():
    numbers = Numbers(100)
    frames = prefetch(numbers, depth=3)
    assert next(frames) == 0
    # One with the consumer, three waiting, one in the producer's hand.
    assert until(lambda: numbers.n_read == 5)
    time.sleep(0.05)
    assert numbers.n_read == 5
    frames.close()


def test_a_generator_that_is_never_started_starts_no_thread():
    numbers = Numbers(5)
    prefetch(numbers).close()
    assert numbers.n_read == 0
    assert numbers.closed_by is None


@pytest.mark.parametrize("n_taken", [1, 3])
def test_a_consumer_that_stops_early(n_taken):
    numbers = Numbers(1000)
    frames = prefetch(numbers, depth=2)
    for _ in range(n_taken):
        next(frames)
    frames.close()
    # Closed when close() returns, by the thread that read, and without reading on.
    assert numbers.closed_by == "vidnoise-source"
    assert numbers.n_read <= n_taken + 4


def test_a_producers_error_comes_after_what_it_produced_with_its_traceback():
    numbers = Numbers(10, fail_at=4)
    got = []
    with pytest.raises(ValueError, match="broken at 4") as caught:
        for item in prefetch(numbers, depth=8):
            got.append(item)
    assert got == [0, 1, 2, 3]
    assert any(
        entry.line == 'raise ValueError(f"broken at {i}")' for entry in traceback.extract_tb(caught.value.__traceback__)
    )
    assert numbers.closed_by == "vidnoise-source"


def test_an_iterable_that_cannot_even_start():
    class Broken:
        def __iter__(self):
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        list(prefetch(Broken()))


def test_drop_oldest_keeps_the_newest_and_reports_each_gap():
    dropped = []

    def on_drop(old, following):
        dropped.append(old)
        return (following[0], True)

    source = ((i, False) for i in range(60))
    got = []
    frames = prefetch(source, depth=2, policy="drop_oldest", on_drop=on_drop)
    got.append(next(frames))
    until(lambda: len(dropped) >= 57)
    got.extend(frames)
    frames.close()
    numbers = [i for i, _ in got]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 59
    assert sorted(numbers + [i for i, _ in dropped]) == list(range(60))
    assert dropped
    # Exactly those that follow a gap are marked.
    for (before, _), (after, marked) in itertools.pairwise(got):
        assert marked == (after != before + 1)


def test_drop_oldest_never_drops_the_end_or_an_error():
    frames = prefetch(Numbers(50, fail_at=49), depth=1, policy="drop_oldest")
    time.sleep(0.01)
    with pytest.raises(ValueError, match="broken at 49"):
        for _ in frames:
            time.sleep(0.001)


def test_a_slow_consumer_of_a_blocking_queue_loses_nothing():
    got = []
    for i in prefetch(Numbers(40), depth=1):
        time.sleep(0.001)
        got.append(i)
    assert got == list(range(40))


def test_drain_writes_everything_on_another_thread():
    got, threads = [], set()

    def write(item):
        got.append(item)
        threads.add(threading.current_thread().name)

    drain(iter(range(100)), write, depth=2)
    assert got == list(range(100))
    assert threads == {"vidnoise-sink"}


def test_drain_stays_within_its_depth():
    gate = threading.Event()
    numbers = Numbers(100)

    def write(item):
        gate.wait(30)

    thread = threading.Thread(target=drain, args=(numbers, write, 3))
    thread.start()
    # One being written, three waiting, one in the producer's hand.
    assert until(lambda: numbers.n_read == 5)
    time.sleep(0.05)
    assert numbers.n_read == 5
    gate.set()
    thread.join()
    assert numbers.n_read == 100


def test_a_sinks_error_stops_the_source():
    numbers = Numbers(1000)

    def write(item):
        if item == 5:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), contextlib.closing(prefetch(numbers, depth=2)) as frames:
        drain((i for i in frames), write, depth=2)
    assert numbers.closed_by == "vidnoise-source"
    assert numbers.n_read < 20


def test_an_error_on_the_last_item_is_not_lost():
    def write(item):
        time.sleep(0.02)
        if item == 2:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        drain(iter(range(3)), write, depth=4)


def test_a_sources_error_through_both_joints():
    numbers = Numbers(100, fail_at=10)
    got = []
    with pytest.raises(ValueError, match="broken at 10"), contextlib.closing(prefetch(numbers, depth=2)) as frames:
        drain(frames, got.append, depth=2)
    assert got == list(range(len(got)))
    assert numbers.closed_by == "vidnoise-source"


def test_ctrl_c_writes_what_was_pulled_then_raises():
    numbers = Numbers(10_000, wait=0.001)
    got = []

    def interrupted(frames):
        for i in frames:
            if i == 20:
                signal.raise_signal(signal.SIGINT)
            yield i

    def write(item):
        time.sleep(0.003)
        got.append(item)

    with pytest.raises(KeyboardInterrupt), contextlib.closing(prefetch(numbers, depth=2)) as frames:
        drain(interrupted(frames), write, depth=4)
    assert got == list(range(20))
    assert numbers.closed_by == "vidnoise-source"


def test_ctrl_c_while_waiting_for_a_slow_source():
    gate = threading.Event()

    def slow():
        yield 0
        gate.wait(30)
        yield 1

    timer = threading.Timer(0.1, lambda: (signal.raise_signal(signal.SIGINT), gate.set()))
    got = []
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), contextlib.closing(prefetch(slow(), depth=2)) as frames:
        drain(frames, got.append)
    timer.join()
    assert time.monotonic() - start < 15
    assert got[:1] == [0]


def test_no_item_is_kept_alive_longer_than_needed():
    import weakref

    class Item:
        pass

    alive: list[weakref.ref] = []
    most = 0

    def items():
        for _ in range(50):
            item = Item()
            alive.append(weakref.ref(item))
            yield item
            del item

    for item in prefetch(items(), depth=2):
        most = max(most, sum(r() is not None for r in alive))
        del item
    # Two waiting, one in the producer's hand, one in the generator's frame, one with us.
    assert most <= 5


def test_depth_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        FrameQueue(0)
