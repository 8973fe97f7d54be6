"""How a run ends: when it is stopped, what an error does to the output, and who is waited for."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator

from vidnoise.errors import SizeChangeError, SourceLostError, StalledError
from vidnoise.frame import Frame
from vidnoise.frame.frame_queue import beside
from vidnoise.pipeline.live_policy import KeepAll
from vidnoise.pipeline.meter import Meter
from vidnoise.sinks import Sink
from vidnoise.sources import Source

logger = logging.getLogger(__name__)

READER_SECONDS = 0.1
"""Time between two looks at whether somebody reads a FIFO."""


class Ending:
    """Stops one run, and closes its source and sink.

    Args:
        source, sink, policy, meter: Of the run.
        should_stop: Asked before each frame and while nothing moves; when it says yes, the run ends as if the source
            had.
    """

    def __init__(
        self, source: Source, sink: Sink, policy: KeepAll, meter: Meter, should_stop: Callable[[], bool] | None
    ) -> None:
        self._source, self._sink, self._policy, self._meter = source, sink, policy, meter
        self._should_stop = should_stop or bool
        self.interrupted = False
        """Whether the run was stopped by the user."""
        self._source_error: SizeChangeError | SourceLostError | None = None
        """Raised when the frames before it are written: with frames ahead, some are on their way still."""

    def waiting(self) -> bool:
        """Nothing came for a while: whether the run shall end."""
        if self._should_stop():
            self.interrupted = True
        self._meter.waiting()
        return self.interrupted

    def wait_for_reader(self) -> bool:
        """Until the sink can be opened; False where the run is to end before."""
        while not self._sink.is_ready():
            if self.waiting():
                return False
            time.sleep(READER_SECONDS)
        return True

    def until_stopped(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """``frames``, up to a request to stop, or to an error that leaves what came before it as it is."""
        try:
            for frame in frames:
                if self._should_stop():
                    self.interrupted = True
                    return
                yield frame
        except (SizeChangeError, SourceLostError) as ex:
            self._source_error = ex

    def waiting_for_output(self) -> None:
        """The sink takes nothing for a while: where the run is to end, it need not wait for its readers.

        Raises:
            StalledError: The run is to end, and nobody takes the output.
        """
        self._meter.waiting()
        if not self._should_stop():
            return
        self._sink.stop()
        if self._sink.leave():
            raise StalledError("the output takes nothing any more, and was left")

    @contextlib.contextmanager
    def closing(self, *, close_source: bool = True) -> Iterator[None]:
        """Whatever happens inside: finish the output or take it away, close the source, and raise what it left.

        Raises:
            SizeChangeError, SourceLostError: The source ended with it; what came before is written and finished.
        """
        try:
            yield
            if self._source_error is not None and not self._meter.frames_out:
                raise self._source_error
            self._finish()
        except KeyboardInterrupt:
            self.interrupted = True
            self._finish()
            raise
        except StalledError as ex:
            logger.warning("%s", ex)
            raise
        except BaseException:
            # What was recorded will not come again, whatever it was that failed.
            if self._meter.frames_out and self._policy.lag is not None:
                self._finish()
            else:
                self._sink.abort()
            raise
        finally:
            if close_source:
                self._source.close()
        if isinstance(self._source_error, SizeChangeError):
            raise SizeChangeError(f"{self._source_error}. What came before is finished") from self._source_error
        if self._source_error is not None:
            raise self._source_error

    def _finish(self) -> None:
        """Close the sink, or take it away if the user stopped before the first frame."""
        if self.interrupted and not self._meter.frames_out:
            self._sink.abort()
            return
        if self.interrupted or self._policy.lag is not None:
            self._sink.stop()
        packets = (*self._policy.left_over, *self._source.trailing_packets)
        beside(lambda: self._sink.close(packets), self.waiting_for_output)
        self._meter.tell()
