"""The main loop: from a source through a denoiser into a sink."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import torch

from vidnoise.frame import Frame
from vidnoise.frame.frame_queue import drain, prefetch
from vidnoise.option_values import MAX_LATENCY_MS
from vidnoise.pipeline.device_transfer import DeviceTransfer, make_device_transfer
from vidnoise.pipeline.ending import Ending
from vidnoise.pipeline.live_policy import choose_policy
from vidnoise.pipeline.meter import Meter
from vidnoise.pipeline.stats import Progress, RunStats
from vidnoise.session.protocol import Session
from vidnoise.sinks import Sink
from vidnoise.sources import Source


def run(
    source: Source,
    denoiser: Session,
    sink: Sink,
    *,
    device_transfer: DeviceTransfer | None = None,
    depth: int = 4,
    max_latency_ms: float = MAX_LATENCY_MS,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    close_source: bool = True,
) -> RunStats:
    """Denoise all of ``source`` into ``sink`` in constant memory, and close both.

    Reading and writing run on threads of their own, which have ended when this returns or raises. On an error, the sink
    is aborted, so that no incomplete output gets its final name. On Ctrl-C, everything read so far is written and the
    output finished before ``KeyboardInterrupt`` propagates.

    Args:
        source: The input; a live one drops the oldest waiting frames if it is too fast.
        denoiser: The stream's session, used from this thread only.
        sink: The output, not open yet.
        device_transfer: Copies frames to the denoiser's device and back; by default, suitable for ``denoiser.device``.
        depth: Length of each queue, in frames.
        max_latency_ms: Frames of a live source that would be written later than this after their arrival are dropped.
        on_progress: Called on this thread about ten times a second (once a second for live sources), and at the end.
        should_stop: Called before each frame; when it returns True, the run ends as if the source had ended.
        close_source: False leaves closing to the caller, for a source that continues with pictures of another size.

    Raises:
        SizeChangeError: The picture size changed; the output up to there is finished.
        SourceLostError: A live source did not come back; the output up to there is finished.
        VidnoiseError: Whatever the source, denoiser or sink raised.
    """
    policy = choose_policy(source.info, depth, max_latency_ms)
    meter = Meter(source, denoiser, sink, policy, on_progress)
    ending = Ending(source, sink, policy, meter, should_stop)
    device_transfer = device_transfer or make_device_transfer(torch.device(denoiser.device), depth)
    with ending.closing(close_source=close_source), _Stages() as stage:
        if ending.wait_for_reader():
            sink.open(source.info)
            frames = stage(
                prefetch(
                    meter.decode.iterate(source), depth, policy.when_full, policy.merge_dropped,
                    is_late=policy.is_late, on_wait=ending.on_input_wait, stop=source.stop,
                )
            )  # fmt: skip
            frames = stage(meter.count_input(stage(ending.until_stopped(frames))))
            frames = stage(policy.mark_gaps(frames))
            frames = stage(meter.uploaded.iterate(device_transfer.upload(frames)))
            frames = stage(meter.denoised.iterate(denoiser(frames)))
            # One frame may be in the sink, and one in our hands, beyond those in the queue.
            frames = stage(device_transfer.download(frames, held=policy.sink_queue_length + 2))
            frames = stage(meter.count_output(frames))
            write = policy.filter_late(meter.encode.call(sink.write))
            drain(frames, write, policy.sink_queue_length, on_wait=ending.on_output_wait)
    return meter.stats(interrupted=ending.interrupted)


class _Stages(contextlib.ExitStack):
    """Closes the stages that it was called with, last one first, each on the thread that runs it."""

    def __call__(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        self.callback(getattr(frames, "close", lambda: None))
        return frames
