"""Whole runs from decoder to encoder, on a generated clip."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from vidnoise.backends.device import precision_name
from vidnoise.bench.cases import SIGMA, WARM_UP, Case, noisy_frames

RATE = 25


def make_clip(path: Path, height: int, width: int, frames: int) -> None:
    """Write a noisy H.264 clip, with its size rounded down to even numbers, as H.264 requires."""
    from vidnoise.sinks import open_sink
    from vidnoise.sources import open_source

    size = f"{width - width % 2}x{height - height % 2}"
    picture = f"testsrc2=size={size}:rate={RATE}:duration={frames / RATE},noise=alls={SIGMA:g}:allf=t,format=yuv420p"
    with contextlib.closing(open_source(f"lavfi:{picture}")) as source:
        sink = open_sink(str(path), codec="h264", preset="ultrafast", overwrite=True)
        try:
            sink.open(source.info)
            for frame in source:
                sink.write(frame)
            sink.close()
        except BaseException:
            sink.abort()
            raise


def run_clip(case: Case, clip: str, seconds: float, *, threads: int) -> dict[str, Any]:
    """Run ``vidnoise CLIP -o OUT`` (H.264, preset ``veryfast``) in this process, for at most ``seconds``.

    One-time preparations for a size (compiling, choosing a backend) are done before.

    Returns:
        A summary of its :class:`~vidnoise.RunStats`.
    """
    from vidnoise.pipeline.run import run
    from vidnoise.session.denoiser import Denoiser
    from vidnoise.sinks import open_sink
    from vidnoise.sources import open_source

    begin = time.perf_counter()
    ways = {"precision": case.precision, "backend": case.backend, "lookahead": case.lookahead}
    denoiser = Denoiser(case.model, device=case.device, **ways)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(open_source(clip, threads=threads)) as source:
        for frame in noisy_frames(source.info.height, source.info.width, WARM_UP, denoiser.device):
            denoiser.push(frame)
        denoiser.drain()
        denoiser.reset()
        sink = open_sink(os.path.join(folder, "out.mkv"), codec="h264", preset="veryfast", threads=threads)
        start = time.perf_counter()
        stats = run(source, denoiser, sink, should_stop=lambda: time.perf_counter() > start + seconds)
    return {
        "backend_used": denoiser.backend.name,
        "precision_used": precision_name(denoiser.dtype),
        "setup_seconds": round(start - begin, 2),
        "frames": stats.frames_out,
        "fps": round(stats.fps, 3),
        "ms_p50": round(stats.ms_p50, 2),
        "ms_p95": round(stats.ms_p95, 2),
        "stage_ms": {name: round(ms, 2) for name, ms in stats.stage_ms.items()},
    }
