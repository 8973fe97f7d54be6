"""Denoise frames as they come from an asynchronous producer, in a thread, so that the event loop goes on meanwhile.

python examples/asyncio_frames.py noisy.mp4
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

import vidnoise


async def produce(path: str) -> AsyncIterator[np.ndarray]:
    """Stands for a websocket or a camera: BGR frames, which one has to wait for."""
    capture = cv2.VideoCapture(path)
    while (bgr := (await asyncio.to_thread(capture.read))[1]) is not None:
        yield bgr
    capture.release()


async def denoised(frames: AsyncIterator[np.ndarray], denoiser: vidnoise.Denoiser) -> AsyncIterator[np.ndarray]:
    """The clean frames. A session is used from one thread at a time, so it has a thread of its own."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, "denoiser") as thread, denoiser:
        async for frame in frames:
            for clean in await loop.run_in_executor(thread, denoiser.push, frame):
                yield clean
        for clean in await loop.run_in_executor(thread, denoiser.flush):
            yield clean


async def main() -> None:
    parser = argparse.ArgumentParser(description="Denoise frames without blocking the event loop.")
    parser.add_argument("noisy", help="a video")
    parser.add_argument("--model", default="fast")
    args, count, beats = parser.parse_args(), 0, 0

    async def beat() -> None:  # what else the loop has to do
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    beating = asyncio.create_task(beat())
    async for clean in denoised(produce(args.noisy), vidnoise.Denoiser(args.model, order="bgr")):
        count += 1
        print(f"\r{clean.shape[1]}x{clean.shape[0]}, frame {count}", end="", flush=True)
    beating.cancel()
    print(f"\n{count} frames; the loop turned {beats} times meanwhile")


if __name__ == "__main__":
    asyncio.run(main())
