"""What pipes and live video need in the tests: real servers and players, a proxy that spoils packets, a fast model."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.networks import TINY
from vidnoise.model import DenoiseNetwork
from vidnoise.weights import ModelCard, save_model

PYTHON = "/usr/bin/python3"
"""The system's, which has GStreamer's bindings."""


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def with_tiny_model(folder: Path) -> tuple[str, ...]:
    """Options of a run with a network of no worth, which is fast; its file is made in ``folder``."""
    torch.manual_seed(5)
    path = folder / "tiny-1.safetensors"
    save_model(DenoiseNetwork(TINY), ModelCard("tiny", "fast"), path)
    return ("--model", str(path), "--device", "cpu", "--threads", "1")


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def need_rtsp_server() -> None:
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", check], capture_output=True).returncode:
        pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0, python3-gi)")


class RtspServer:
    """A camera that can be switched off and on; ``url`` stays the same."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"rtsp://127.0.0.1:{self._port}/test"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = str(Path(__file__).with_name("rtsp_server.py"))
        self._process = subprocess.Popen([PYTHON, script, str(self._port)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextlib.contextmanager
def ffmpeg(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """ffmpeg in the background; killed at the end."""
    process = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


CAMERA = ("-re", "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25", "-pix_fmt", "yuv420p",
          "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10")  # fmt: skip
"""ffmpeg as a camera: a picture that moves, in real time, for ever."""


class BadLine:
    """A UDP proxy that loses and spoils datagrams."""

    def __init__(self, target: int, *, loses: float, spoils: float) -> None:
        self._in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._in.bind(("127.0.0.1", 0))
        self._in.settimeout(0.2)
        self.port = self._in.getsockname()[1]
        self._target, self._loses, self._spoils = target, loses, spoils
        self._random = random.Random(7)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry)
        self.n_spoilt = self.n_lost = 0

    def _carry(self) -> None:
        while not self._stop.is_set():
            try:
                data = bytearray(self._in.recv(65536))
            except TimeoutError:
                continue
            chance = self._random.random()
            if chance < self._loses:
                self.n_lost += 1
                continue
            if chance < self._loses + self._spoils:
                self.n_spoilt += 1
                for _ in range(20):
                    data[self._random.randrange(len(data))] = self._random.randrange(256)
            self._in.sendto(data, ("127.0.0.1", self._target))

    def __enter__(self) -> BadLine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._in.close()
