"""Denoise several cameras (or files) with one network, whose step takes the frames of all of them together.

python examples/cameras.py rtsp://camera/1 rtsp://camera/2 -o recordings    # until Ctrl-C
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import threading
from pathlib import Path

import vidnoise


def read(source: vidnoise.Source, frames: queue.Queue[vidnoise.Frame | None]) -> None:
    """A thread of each camera, so that a slow one holds up no other."""
    try:
        for frame in source:
            frames.put(frame)
    except vidnoise.VidnoiseError as error:  # a camera that is lost ends its own recording only
        print(error)
    frames.put(None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Denoise several cameras with one network.")
    parser.add_argument("cameras", nargs="+", help="addresses, devices or files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for camera-1.mkv, camera-2.mkv, ...")
    parser.add_argument("--model", default="fast", help="one that keeps up with all cameras, as no frame is dropped")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    batch, streams = vidnoise.StreamBatch(args.model), {}
    for number, camera in enumerate(args.cameras, 1):
        source, sink = vidnoise.open_source(camera), vidnoise.open_sink(args.output / f"camera-{number}.mkv")
        sink.open(source.info)
        waiting = queue.Queue(4)
        streams[batch.open()] = source, sink, waiting
        threading.Thread(target=read, args=(source, waiting), daemon=True).start()
    try:
        while streams:
            arrived = {}
            for session, (source, sink, waiting) in list(streams.items()):
                with contextlib.suppress(queue.Empty):
                    arrived[session] = waiting.get(timeout=0.005)
                    if arrived[session] is None:
                        sink.close(source.trailing_packets)
                        del streams[session], arrived[session]
            for session, (clean,) in batch.push(arrived).items():
                streams[session][1].write(clean)
    finally:  # also on Ctrl-C: what has come so far is kept
        for source, sink, _ in streams.values():
            source.stop()
            sink.close()


if __name__ == "__main__":
    main()
