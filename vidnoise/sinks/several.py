"""Writing one video to several outputs at once."""

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

_QUEUE_LENGTH = 8
"""Length of the queue of each output, in frames."""

_MAX_WAITING_PACKETS = 2000
"""Packets of audio and subtitles to keep for an output that takes nothing: half a minute or so."""

_WAKE_SECONDS = 0.25

_END_SECONDS = 10.0
"""How long to wait for an output that is being aborted."""


class TeeSink(FinishedAfterUse):
    """Writes every frame to several sinks, each on its own thread, so that none has to wait for another.

    For a live input, an output that does not keep up loses the oldest frames in its queue, and they are counted. For
    other inputs the run waits, since nothing may be lost.

    An output that fails is closed while the others continue: a recording must not end because a viewer has left. Its
    error is raised when the others are finished, or at once if none is left. A reader that closes its pipe, or takes
    nothing when the run ends, is not an error while others continue. Neither is a reader that has not come yet: its
    output is opened when it comes.

    Args:
        sinks: The outputs, not open yet.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._all = list(sinks)
        self._branches: list[_Branch] = []
        self._dropped: dict[str, int] = {}
        self._error: VidnoiseError | None = None
        self._is_ending = False

    @property
    def n_dropped(self) -> dict[str, int]:
        """Number of frames that outputs did not take in time, by the output's name; empty if all were taken."""
        now = {branch.name: branch.n_dropped for branch in self._branches if branch.n_dropped}
        return {**self._dropped, **now}

    def is_ready(self) -> bool:
        """Whether at least one output can be opened without waiting for a reader."""
        return any(sink.is_ready() for sink in self._all)

    def stop(self) -> None:
        self._is_ending = True
        for branch in list(self._branches):
            branch.stop_waiting()
        for sink in self._all:
            sink.stop()

    def abandon(self) -> bool:
        """Return False: outputs are abandoned one by one."""
        return False

    def open(self, info: StreamInfo) -> None:
        """Open all outputs that are ready; if one of them cannot be opened, none is."""
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
        # The planes may be a slot of a ring, which is reused as soon as this returns.
        copied = replace(frame, planes=tuple(plane.clone() for plane in frame.planes))

        def write_to(branch: _Branch) -> None:
            branch.write(replace(copied, packets=copies(copied.packets)))

        self._for_each(write_to)

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        for branch in self._branches:
            branch.finish(copies(trailing_packets))
        self._for_each(lambda branch: branch.join(lambda: self._is_ending))
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
            if sink not in stuck:  # a sink still in use by its thread must not be closed
                sink.abort()

    def _for_each(self, action: Callable[[_Branch], None]) -> None:
        for branch in list(self._branches):
            try:
                action(branch)
            except VidnoiseError as ex:
                self._branches.remove(branch)
                self._note_drops([branch])
                if not self._branches:
                    if self._error is None:
                        raise
                    logger.error("%s", ex)  # the other's error is the one raised
                    raise self._error from ex
                logger.warning("%s; the other output goes on", ex)
                if not isinstance(ex, ReaderClosedError):
                    self._error = self._error or ex

    def _note_drops(self, branches: Sequence[_Branch]) -> None:
        for branch in branches:
            if branch.n_dropped:
                self._dropped[branch.name] = branch.n_dropped
                logger.warning("%s: did not take its frames in time: %d were dropped", branch.name, branch.n_dropped)


class _Branch:
    """One output, and the thread that writes and closes it.

    Args:
        sink: The output.
        info: Description of the video; for a live one, frames that are not taken in time are dropped.
        is_open: Whether the sink is open already; if not, it is opened once it is ready.
    """

    def __init__(self, sink: Sink, info: StreamInfo, *, is_open: bool) -> None:
        self.sink = sink
        self.name: str = getattr(sink, "name", type(sink).__name__)
        self.n_dropped = 0
        self._error: BaseException | None = None
        self._is_aborted = False
        self._info, self._is_open = info, is_open
        self._stops_waiting = threading.Event()
        self._trailing: tuple[Packet, ...] = ()
        when_full = "drop_oldest" if info.is_live else "block"
        self._queue: FrameQueue[Frame] = FrameQueue(_QUEUE_LENGTH, when_full, self._carry_packets)
        self._thread = threading.Thread(target=self._work, name=f"vidnoise-{self.name}", daemon=True)
        self._thread.start()

    def _carry_packets(self, dropped: Frame, following: Frame) -> Frame:
        """Return ``following`` with the packets of a dropped frame, up to a maximum."""
        self.n_dropped += 1
        if self.n_dropped == 1:
            logger.warning("%s: does not take its frames in time; the oldest are dropped", self.name)
        return replace(following, packets=(*dropped.packets, *following.packets)[-_MAX_WAITING_PACKETS:])

    def _work(self) -> None:
        try:
            if not self._is_open:
                self._open_when_ready()
            for frame in self._queue:
                self.sink.write(frame)
                del frame
            if not self._is_aborted:
                self.sink.close(self._trailing)
        except BaseException as ex:  # re-raised on the caller's thread
            self._error = ex
        self._queue.stop()

    def _open_when_ready(self) -> None:
        logger.warning("%s: waits for its reader; the other output goes on", self.name)
        while not self.sink.is_ready():
            if self._stops_waiting.wait(_WAKE_SECONDS):
                raise ReaderClosedError(f"{self.name}: no reader has come", self.name)
        self.sink.open(self._info)

    def stop_waiting(self) -> None:
        """Stop waiting for a reader: the run is ending."""
        self._stops_waiting.set()

    def write(self, frame: Frame) -> None:
        """Queue a frame.

        Raises:
            Exception: Whatever the output raised.
        """
        if not self._queue.put(frame):
            self.join()

    def finish(self, trailing: tuple[Packet, ...]) -> None:
        """Close the output once it has written the frames in its queue."""
        self._trailing = trailing
        self._queue.finish()
        if self._info.is_live:
            self.stop_waiting()

    def join(self, is_ending: Callable[[], bool] = lambda: False) -> None:
        """Wait until the output is closed, and raise its error if it failed.

        Args:
            is_ending: Whether the run is ending, so that a stalled output should be abandoned.

        Raises:
            StalledError: The output was abandoned.
        """
        while self._thread.is_alive():
            self._thread.join(_WAKE_SECONDS)
            if is_ending() and self._thread.is_alive() and self.sink.abandon():
                raise StalledError(f"{self.name}: takes nothing any more, and was left")
        if self._error is not None:
            raise self._error

    def begin_abort(self) -> None:
        self._is_aborted = True
        self.stop_waiting()
        self._queue.stop()
        self.sink.stop()

    def has_ended(self) -> bool:
        self._thread.join(_END_SECONDS)
        return not self._thread.is_alive()


def copies(packets: Sequence[Packet]) -> tuple[Packet, ...]:
    """Copy packets, for a muxer to modify."""
    return tuple(replace(packet, data=copy_of(packet.data)) for packet in packets)
