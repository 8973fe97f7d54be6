"""From a source through a denoiser into a sink: the whole main job, on one screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from vidnoise.frame import Frame
from vidnoise.frame.frame_queue import drain, prefetch
from vidnoise.options import MAX_LATENCY_MS
from vidnoise.pipeline.device_transfer import Transfer, make_transfer
from vidnoise.pipeline.ending import Ending
from vidnoise.pipeline.live_policy import choose_policy
from vidnoise.pipeline.meter import Meter
from vidnoise.pipeline.stats import Progress, RunStats
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldDenoiser
from vidnoise.sinks import Sink
from vidnoise.sources import Source


def run(
    source: Source,
    denoiser: Denoiser | FieldDenoiser,
    sink: Sink,
    *,
    transfer: Transfer | None = None,
    depth: int = 4,
    max_latency_ms: float = MAX_LATENCY_MS,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    close_source: bool = True,
) -> RunStats:
    """Denoise all of ``source`` into ``sink``, in constant memory; both are closed when it returns or raises.

    Reading and writing happen on threads of their own, which have ended by then too. On an error the sink is
    aborted, so that nothing half-written gets its final name. On Ctrl-C what was read so far is written and
    finished properly before ``KeyboardInterrupt`` goes on.

    Args:
        source: What to read; a live one drops the oldest waiting frames when it is too fast.
        denoiser: The stream's session; it is used from this thread only.
        sink: Where to write; not open yet.
        transfer: The way to the denoiser's device and back; by default the one for ``denoiser.device``.
        depth: Frames that may wait at each joint.
        max_latency_ms: Of a live source: frames that would be written later after their arrival are dropped.
        on_progress: Called on this thread about ten times a second (live: once a second), and once at the end.
        should_stop: Asked before each frame; when it says yes, the run ends as if the source had.
        close_source: False leaves that to the caller: the source may go on with pictures of another size.

    Raises:
        SizeChangeError: The pictures change their size; what came before is written and finished properly.
        SourceLostError: A live source did not come back; what came before is written and finished properly.
        VidnoiseError: Whatever the source, denoiser or sink raised.
    """
    policy = choose_policy(source.info, depth, max_latency_ms)
    meter = Meter(source, denoiser, sink, policy, on_progress)
    ending = Ending(source, sink, policy, meter, should_stop)
    transfer = transfer or make_transfer(denoiser.device, depth)
    with ending.closing(close_source=close_source), _Stages() as stage:
        if ending.wait_for_reader():
            sink.open(source.info)
            frames = stage(
                prefetch(
                    meter.decode.iterate(source), depth, policy.when_full, policy.dropped,
                    is_late=policy.is_late, on_wait=ending.waiting, stop=source.stop,
                )
            )  # fmt: skip
            frames = stage(meter.arriving(stage(ending.until_stopped(frames))))
            frames = stage(policy.arriving(frames))
            frames = stage(meter.uploaded.iterate(transfer.upload(frames)))
            frames = stage(meter.denoised.iterate(denoiser(frames)))
            # A frame may wait in the queue, be with the sink, and be in our hand.
            frames = stage(transfer.download(frames, held=policy.behind + 2))
            frames = stage(meter.leaving(frames))
            write = policy.writing(meter.encode.call(sink.write))
            drain(frames, write, policy.behind, on_wait=ending.waiting_for_output)
    return meter.stats(interrupted=ending.interrupted)


class _Stages(contextlib.ExitStack):
    """Closes the stages that it was shown, the last one first, each on the thread that runs it."""

    def __call__(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        self.callback(getattr(frames, "close", lambda: None))
        return frames
