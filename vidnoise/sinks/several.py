"""One video to several outputs at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from vidnoise.errors import EncodeError, ReaderClosedError, StalledError, VidnoiseError
from vidnoise.frame import Frame, Packet, StreamInfo
from vidnoise.frame.frame_queue import FrameQueue
from vidnoise.sinks.protocol import FinishedAfterUse, Sink
from vidnoise.sinks.stamps import copy_of

logger = logging.getLogger(__name__)

_DEPTH = 8
"""Frames that may wait before each output."""

_MOST_PACKETS = 2000
"""Packets of sound and subtitles that may wait for an output that takes nothing: half a minute or so."""

_WAKE_SECONDS = 0.25

_END_SECONDS = 10.0
"""How long an output that is thrown away may take to come back from what it is doing."""


class TeeSink(FinishedAfterUse):
    """Writes every frame to each of ``sinks``, on a thread for each, so that none has to wait for another.

    A live input goes on where an output does not take its frames in time: that output loses the oldest that wait, and
    they are counted. Files wait, since nothing of them may be lost.

    An output that fails is left, and the others go on: a recording must not end because a viewer has gone. Its error is
    raised when the others are finished, or at once where none is left. A reader that closes its pipe, or takes nothing
    any more when the run is to end, is no error while others go on. Neither is one that has not come yet: its output is
    opened when it does.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._all = list(sinks)
        self._branches: list[_Branch] = []
        self._dropped: dict[str, int] = {}
        self._error: VidnoiseError | None = None
        self._is_ending = False

    @property
    def n_dropped(self) -> dict[str, int]:
        """Frames that outputs did not take in time, by the output's name; none where all were taken."""
        now = {branch.name: branch.n_dropped for branch in self._branches if branch.n_dropped}
        return {**self._dropped, **now}

    def is_ready(self) -> bool:
        """Whether there is one that has to wait for nobody."""
        return any(sink.is_ready() for sink in self._all)

    def stop(self) -> None:
        self._is_ending = True
        for branch in list(self._branches):
            branch.wait_no_longer()
        for sink in self._all:
            sink.stop()

    def leave(self) -> bool:
        """Each output is left on its own."""
        return False

    def open(self, info: StreamInfo) -> None:
        """Open all that are ready, or none: where one of them cannot be opened, the run does not begin."""
        late = [sink for sink in self._all if not sink.is_ready()]
        try:
            for sink in self._all:
                if sink not in late:
                    sink.open(info)
        except BaseException:
            self.abort()
            raise
        self._branches = [_Branch(sink, info, is_open=sink not in late) for sink in self._all]

    def write(self, frame: Frame) -> None:
        if not self._branches:
            raise EncodeError("the outputs are not open")
        # The planes may be a slot of a ring, which is used again as soon as this returns.
        kept = replace(frame, planes=tuple(plane.clone() for plane in frame.planes))

        def write_to(branch: _Branch) -> None:
            branch.write(replace(kept, packets=copies(kept.packets)))

        self._each(write_to)

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        for branch in self._branches:
            branch.finish(copies(trailing_packets))
        self._each(lambda branch: branch.join(lambda: self._is_ending))
        self._note_drops(self._branches)
        self._branches = []
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        branches, self._branches = self._branches, []
        for branch in branches:
            branch.begin_abort()
        stuck = [branch.sink for branch in branches if not branch.has_ended()]
        for sink in self._all:
            if sink not in stuck:  # one that is being used still must not be closed meanwhile
                sink.abort()

    def _each(self, do: Callable[[_Branch], None]) -> None:
        for branch in list(self._branches):
            try:
                do(branch)
            except VidnoiseError as ex:
                self._branches.remove(branch)
                self._note_drops([branch])
                if not self._branches:
                    raise self._error or ex from ex
                logger.warning("%s; the other output goes on", ex)
                if not isinstance(ex, ReaderClosedError):
                    self._error = self._error or ex

    def _note_drops(self, branches: Sequence[_Branch]) -> None:
        for branch in branches:
            if branch.n_dropped:
                self._dropped[branch.name] = branch.n_dropped
                logger.warning("%s: did not take its frames in time: %d were dropped", branch.name, branch.n_dropped)


class _Branch:
    """One of the outputs, and the thread that writes and closes it.

    Args:
        sink: The output.
        info: What it is opened with. Of a live stream, frames that are not taken in time are dropped.
        is_open: Whether it is open already; if not, somebody has to come for it.
    """

    def __init__(self, sink: Sink, info: StreamInfo, *, is_open: bool) -> None:
        self.sink = sink
        self.name: str = getattr(sink, "name", type(sink).__name__)
        self.n_dropped = 0
        self._error: BaseException | None = None
        self._is_aborted = False
        self._info, self._is_open = info, is_open
        self._waits_no_longer = threading.Event()
        self._trailing: tuple[Packet, ...] = ()
        self._queue: FrameQueue[Frame] = FrameQueue(_DEPTH, "drop_oldest" if info.is_live else "block", self._follow)
        self._thread = threading.Thread(target=self._work, name=f"vidnoise-{self.name}", daemon=True)
        self._thread.start()

    def _follow(self, dropped: Frame, following: Frame) -> Frame:
        """``following`` with the sound of the frame before it, unless it is that of half a minute."""
        self.n_dropped += 1
        if self.n_dropped == 1:
            logger.warning("%s: does not take its frames in time; the oldest are dropped", self.name)
        return replace(following, packets=(*dropped.packets, *following.packets)[-_MOST_PACKETS:])

    def _work(self) -> None:
        try:
            if not self._is_open:
                self._open_when_ready()
            for frame in self._queue:
                self.sink.write(frame)
                del frame
            if not self._is_aborted:
                self.sink.close(self._trailing)
        except BaseException as ex:  # raised again on the caller's thread
            self._error = ex
        self._queue.stop()

    def _open_when_ready(self) -> None:
        logger.warning("%s: waits for its reader; the other output goes on", self.name)
        while not self.sink.is_ready():
            if self._waits_no_longer.wait(_WAKE_SECONDS):
                raise ReaderClosedError(f"{self.name}: no reader has come", self.name)
        self.sink.open(self._info)

    def wait_no_longer(self) -> None:
        """The run is to end: for a reader that has not come it is too late."""
        self._waits_no_longer.set()

    def write(self, frame: Frame) -> None:
        """Hand a frame on.

        Raises:
            Exception: What the output raised.
        """
        if not self._queue.put(frame):
            self.join()

    def finish(self, trailing: tuple[Packet, ...]) -> None:
        """No more frames will come; the output is closed when it has those that wait."""
        self._trailing = trailing
        self._queue.finish()
        if self._info.is_live:
            self.wait_no_longer()

    def join(self, is_ending: Callable[[], bool] = lambda: False) -> None:
        """Wait until the output is closed, or has failed, and raise what it raised.

        Raises:
            StalledError: The run is to end, and nobody takes what is written.
        """
        while self._thread.is_alive():
            self._thread.join(_WAKE_SECONDS)
            if is_ending() and self._thread.is_alive() and self.sink.leave():
                raise StalledError(f"{self.name}: takes nothing any more, and was left")
        if self._error is not None:
            raise self._error

    def begin_abort(self) -> None:
        self._is_aborted = True
        self.wait_no_longer()
        self._queue.stop()
        self.sink.stop()

    def has_ended(self) -> bool:
        self._thread.join(_END_SECONDS)
        return not self._thread.is_alive()


def copies(packets: Sequence[Packet]) -> tuple[Packet, ...]:
    """The same packets again: a muxer changes those that it gets."""
    return tuple(replace(packet, data=copy_of(packet.data)) for packet in packets)
