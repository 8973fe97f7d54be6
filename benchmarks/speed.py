"""Milliseconds a frame: each model's whole step (to RGB, network, correction), without decoding and encoding.

    python benchmarks/speed.py [--size 1920x1080] [--models fast,standard] [--device auto] [-o FILE.json]

One line a model: median and 95th percentile over the frames after the warm-up.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

import vidnoise
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame

WARM_UP = 3


def noisy_frames(height: int, width: int, count: int) -> list[Frame]:
    """8-bit 4:2:0 frames of a moving gradient under noise of sigma 20."""
    generator = torch.Generator().manual_seed(0)
    format = PIXEL_FORMATS["yuv420p"]
    frames = []
    for i in range(count):
        planes = []
        for k in range(3):
            h, w = format.plane_shape(k, height, width)
            ramp = torch.linspace(60, 180, w).roll(2 * i) if k == 0 else torch.full((w,), 128.0)
            noise = torch.randn(h, w, generator=generator) * (20 if k == 0 else 8)
            planes.append((ramp + noise).round().clamp(0, 255).to(torch.uint8))
        frames.append(Frame(tuple(planes), format, ColorInfo(1, 1, 1, 1), index=i))
    return frames


def measure(model: str, frames: list[Frame], device: str, precision: str) -> dict[str, float | str]:
    """Times of the steps in milliseconds; on a GPU each step is waited for."""
    denoiser = vidnoise.Denoiser(model, device=device, precision=precision)
    there = [Frame(tuple(p.to(denoiser.device) for p in f.planes), f.format, f.color, index=f.index) for f in frames]
    times = []
    for frame in there:
        start = time.perf_counter()
        denoiser.push(frame)
        if denoiser.device.type == "cuda":
            torch.cuda.synchronize(denoiser.device)
        times.append(1e3 * (time.perf_counter() - start))
    times = sorted(times[WARM_UP:])
    return {
        "device": str(denoiser.device),
        "precision": str(denoiser.dtype).removeprefix("torch."),
        "ms_p50": round(statistics.median(times), 2),
        "ms_p95": round(times[min(len(times) - 1, int(0.95 * len(times)))], 2),
        "fps": round(1e3 / statistics.mean(times), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--models", default="fast,standard")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--frames", type=int, default=15, help="after the warm-up")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    width, height = (int(n) for n in options.size.split("x"))
    frames = noisy_frames(height, width, WARM_UP + options.frames)
    results = {}
    for model in options.models.split(","):
        try:
            results[model] = row = measure(model, frames, options.device, options.precision)
        except vidnoise.VidnoiseError as ex:
            sys.exit(str(ex))
        sys.stdout.write(
            f"{model:<14} {options.size}  {row['ms_p50']:>8} ms  (p95 {row['ms_p95']} ms)  {row['fps']} fps  "
            f"{row['precision']} on {row['device']}, {torch.get_num_threads()} threads\n"
        )
    if options.output:
        machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
        options.output.write_text(json.dumps({"size": options.size, **machine, "models": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
