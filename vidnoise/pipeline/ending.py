"""The end of a run: stopping, handling of errors, and waiting for readers."""

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

READER_POLL_SECONDS = 0.1
"""Interval at which to check whether a FIFO has a reader."""


class Ending:
    """Stops a run, and closes its source and sink.

    Args:
        source, sink, policy, meter: Parts of the run.
        should_stop: Called before each frame and while waiting; when it returns True, the run ends as if the source had
            ended.
    """

    def __init__(
        self, source: Source, sink: Sink, policy: KeepAll, meter: Meter, should_stop: Callable[[], bool] | None
    ) -> None:
        self._source, self._sink, self._policy, self._meter = source, sink, policy, meter
        self._should_stop = should_stop or bool
        self.interrupted = False
        """Whether the run was stopped by the user."""
        self._source_error: SizeChangeError | SourceLostError | None = None
        """Error of the source, raised once all frames before it are written."""

    def on_input_wait(self) -> bool:
        """Handle a wait for input; returns whether the run should end."""
        if self._should_stop():
            self.interrupted = True
        self._meter.on_wait()
        return self.interrupted

    def wait_for_reader(self) -> bool:
        """Wait until the sink can be opened; returns False if the run should end first."""
        while not self._sink.is_ready():
            if self.on_input_wait():
                return False
            time.sleep(READER_POLL_SECONDS)
        return True

    def until_stopped(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield frames up to a request to stop, or an error that does not affect the frames before it."""
        try:
            for frame in frames:
                if self._should_stop():
                    self.interrupted = True
                    return
                yield frame
        except (SizeChangeError, SourceLostError) as ex:
            self._source_error = ex

    def on_output_wait(self) -> None:
        """Handle a wait for output: if the run should end, stop waiting for readers.

        Raises:
            StalledError: The run should end, and the output has stalled.
        """
        self._meter.on_wait()
        if not self._should_stop():
            return
        self._sink.stop()
        if self._sink.abandon():
            raise StalledError("the output takes nothing any more, and was left")

    @contextlib.contextmanager
    def closing(self, *, close_source: bool = True) -> Iterator[None]:
        """Finish or abort the output at the end of the context, and close the source.

        Args:
            close_source: Whether to close the source.

        Raises:
            SizeChangeError, SourceLostError: The source ended with this error; the output up to there is finished.
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
            # A live recording cannot be repeated, so it is kept whatever failed.
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
        """Close the sink, or abort it if the user stopped the run before the first frame."""
        if self.interrupted and not self._meter.frames_out:
            self._sink.abort()
            return
        if self.interrupted or self._policy.lag is not None:
            self._sink.stop()
        packets = (*self._policy.orphaned_packets, *self._source.trailing_packets)
        beside(lambda: self._sink.close(packets), self.on_output_wait)
        self._meter.report_progress()
