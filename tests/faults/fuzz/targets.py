"""What is fuzzed: for each kind of input some good ones, and what the program does with them.

A target takes the damaged input and may do one of two things: succeed, or raise a ``VidnoiseError`` of one line.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import torch

from faults.fuzz.mutate import damaged, damaged_text
from support.clips import Recipe, write
from support.networks import TINY
from vidnoise import cache
from vidnoise.backends.measurements import FILE, Kind, Measurement, Measurements
from vidnoise.cli.batch import plan_batch
from vidnoise.errors import VidnoiseError
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.resume.segments import EncodedPacket, Parts
from vidnoise.session.strength import Strength
from vidnoise.sinks import open_sink
from vidnoise.sources import open_source
from vidnoise.sources.raw import raw_options
from vidnoise.text import safe, shown
from vidnoise.training.config import CONFIGS, load_config
from vidnoise.weights import ModelCard, load_model, save_model

MOST_FRAMES = 12


@dataclass(frozen=True)
class Target:
    """A kind of input."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    """Good ones; made in a folder that is empty."""
    run: Callable[[bytes, Path], None]
    """What the program does with one, in a folder of its own."""
    is_text: bool = False

    def mutant(self, seeds: list[bytes], rng: random.Random) -> bytes:
        seed = rng.choice(seeds)
        if not self.is_text or rng.random() < 0.2:
            return damaged(seed, rng)
        return damaged_text(seed.decode(), rng).encode("utf-8", "surrogatepass")


# --- media ------------------------------------------------------------------------------------------------------------

_FAST = {"preset": "ultrafast"}
_KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mp4-h264": (".mp4", "libx264", {"options": _FAST, "audio": (("aac", "eng"),), "chapters": True, "rotation": 90}),
    "mov-prores": (".mov", "prores_ks", {"pix_fmt": "yuv422p10le", "audio": (("pcm_s16le", "eng"),)}),
    "mp4-hevc": (".mp4", "libx265", {"options": {**_FAST, "x265-params": "log-level=none"}, "width": 64}),
    "mkv-ffv1": (".mkv", "ffv1", {"subtitles": True, "attachment": True, "chapters": True}),
    "mkv-10bit": (".mkv", "libx264", {"options": _FAST, "pix_fmt": "yuv420p10le", "color": (9, 1, 9, 16)}),
    "webm-vp8": (".webm", "libvpx", {}),
    "webm-vp9": (".webm", "libvpx-vp9", {"options": {"cpu-used": "8"}}),
    "mkv-av1": (".mkv", "libsvtav1", {"options": {"preset": "12"}, "width": 64, "height": 64}),
    "avi-mpeg4": (".avi", "mpeg4", {"rate": Fraction(25)}),
    "avi-mjpeg": (".avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    "ts-h264": (".ts", "libx264", {"options": _FAST, "audio": (("mp2", "eng"),)}),
    "ts-mpeg2": (".ts", "mpeg2video", {}),
    "mpg-mpeg1": (".mpg", "mpeg1video", {}),
    "flv-h263": (".flv", "flv", {}),
    "flv-h264": (".flv", "libx264", {"options": _FAST}),
    "asf-wmv2": (".wmv", "wmv2", {}),
    "nut-rgb": (".nut", "ffv1", {"pix_fmt": "bgr0"}),
    "gif": (".gif", "gif", {"pix_fmt": "gray"}),
    "mxf-mpeg2": (".mxf", "mpeg2video", {}),
    "h264": (".h264", "libx264", {"options": _FAST}),
    "mkv-alpha": (".mkv", "ffv1", {"pix_fmt": "yuva420p"}),
    "apng": (".apng", "apng", {"pix_fmt": "rgba"}),
    "mov-png": (".mov", "png", {"pix_fmt": "rgb24"}),
}
"""Containers and codecs; those that this build of FFmpeg cannot write are left out."""


def _media(name: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        extension, codec, changes = _KINDS[name]
        size = {"width": 48, "height": 32, "options": {}, "time_base": Fraction(1, 25), "ticks": tuple(range(6))}
        try:
            return [
                write(folder / f"seed{extension}", Recipe(extension, codec, **{**size, **changes})).path.read_bytes()
            ]
        except (av.error.FFmpegError, ValueError, KeyError):
            return []

    return seeds


def _denoise(data: bytes, folder: Path) -> None:
    """A run with strength 0: all of it but the network, whose input is samples whatever the file was."""
    path, out = folder / "input", folder / "out.mkv"
    path.write_bytes(data)
    try:
        with contextlib.closing(open_source(str(path), max_pixels=1 << 20, threads=1)) as source:
            sink = open_sink(out, codec="ffv1", threads=1)
            try:
                sink.open(source.info)
                for number, frame in enumerate(source):
                    sink.write(frame)
                    if number == MOST_FRAMES:
                        break
                sink.close(source.trailing_packets)
            except BaseException:
                sink.abort()
                raise
    except VidnoiseError:
        if out.exists():
            raise AssertionError("a half-written file under its final name") from None
        raise
    with av.open(str(out)) as container:
        assert next(container.decode(video=0), None) is not None, "an output without a picture"


def _y4m(folder: Path) -> list[bytes]:
    return [
        f"YUV4MPEG2 W16 H16 F{rate} I{order} A1:1 C{kind}\n".encode()
        + b"".join(b"FRAME\n" + bytes(size) for _ in range(3))
        for rate, order, kind, size in (
            ("25:1", "p", "420mpeg2", 384),
            ("30000:1001", "t", "444", 768),
            ("25:1", "p", "mono", 256),
        )
    ]


def _raw(data: bytes, folder: Path) -> None:
    size, format, rate = [*data.decode("utf-8", "replace").split(" "), "", "", ""][:3]
    options = raw_options(size or None, format or None, rate or None)
    width, height = map(int, options["video_size"].split("x"))
    if width * height <= 1 << 16:
        (folder / "input").write_bytes(bytes(10_000))
        source = open_source(str(folder / "input"), raw_size=size, raw_format=format, raw_rate=rate or None)
        for number, _ in enumerate(source):
            if number == MOST_FRAMES:
                source.stop()


# --- weights, states, caches ------------------------------------------------------------------------------------------


def _weights(folder: Path) -> list[bytes]:
    torch.manual_seed(0)
    save_model(DenoiseNetwork(TINY), ModelCard("tiny", "fast"), folder / "tiny-1.safetensors")
    return [(folder / "tiny-1.safetensors").read_bytes()]


def _load(data: bytes, folder: Path) -> None:
    path = folder / "a.safetensors"
    path.write_bytes(data)
    model = load_model(path)
    assert all(torch.isfinite(values).all() for values in model.network.state_dict().values())
    assert safe(model.name).isprintable()


def _parts(folder: Path) -> Parts:
    parts = Parts(str(folder / "a.mkv"))
    parts.load({"x": 1, "y": {"z": [1]}})
    parts.note("headers", "00")
    for first in (0, 3):
        file = parts.begin()
        for pts in range(first, first + 3):
            file.add(EncodedPacket(pts, pts, 1, pts == first, b"data"))
        parts.finish(file, list(range(first, first + 3)), Fraction(1, 25))
    return parts


def _state(name: str) -> Target:
    def seeds(folder: Path) -> list[bytes]:
        return [(Path(_parts(folder).path) / name).read_bytes()]

    def run(data: bytes, folder: Path) -> None:
        (Path(_parts(folder).path) / name).write_bytes(data)
        again = Parts(str(folder / "a.mkv"))
        again.load({"x": 1, "y": {"z": [1]}})
        assert all(isinstance(pts, int) for pts in again.frames)
        assert len(list(again.packets())) == sum(segment.n_packets for segment in again.segments)

    return Target(f"resume-{name}", seeds, run, is_text=name.endswith("json"))


_NETWORK = DenoiseNetwork(TINY)
_KIND = Kind(torch.Size((1, 3, 32, 48)), blind=True, both_ways=False)


def _measured(folder: Path) -> list[bytes]:
    known = Measurement("swift", {"eager": 100.0, "swift": 10.0}, {"swift": 0.5}, {"swift": 0.001})
    key = Measurements(_NETWORK, torch.device("cpu"), torch.float32)._key(_KIND)
    return [json.dumps({key: asdict(known)}, indent=1).encode()]


def _find(data: bytes, folder: Path) -> None:
    cache.store(FILE, data)
    found = Measurements(_NETWORK, torch.device("cpu"), torch.float32).find(_KIND)
    if found is not None:
        assert all(number >= 0 for number in (*found.pair(found.best), *found.start_seconds.values()))


def _kept(data: bytes, folder: Path) -> None:
    root = cache.cache_folder()
    assert root is not None
    root.mkdir(parents=True, exist_ok=True)
    (root / "name").write_bytes(data)
    assert cache.load("name") in (None, b"content")


def _kept_seed(folder: Path) -> list[bytes]:
    root = cache.cache_folder()
    assert root is not None
    cache.store("name", b"content")
    return [(root / "name").read_bytes()]


# --- texts ------------------------------------------------------------------------------------------------------------

_TOML = (
    'tier = "fast"\nblind = 0.5\nnoise = { gaussian = 1 }\nseed = 3\n[augment]\nrotate = 0.5\n[model]\nhidden = 8\n'
    '[[stages]]\nname = "a"\nbatch = 1\nframes = 2\npatch = 32\nsteps = 10\nmuon_lr = 0.01\nwarmup = 0.03\n'
)
_YAML = (
    "tier: fast\nblind: 0.5\nnoise: {gaussian: 1}\naugment: {rotate: 0.5}\nstages:\n"
    "  - {name: a, batch: 1, frames: 2, patch: 32, steps: 10, muon_lr: 1e-2}\n"
)


def _configure(suffix: str) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        path = folder / f"a{suffix}"
        path.write_bytes(data)
        config = load_config(str(path))
        json.dumps(config.to_dict())
        assert 0 <= config.blind <= 1
        assert all(0 <= stage.muon_lr <= 10 and stage.batch > 0 for stage in config.stages)

    return run


def _template(data: bytes, folder: Path) -> None:
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        Path("in").mkdir(exist_ok=True)
        for name in ("screen:.mkv", "-.mp4", "a.mp4"):
            Path("in", name).touch()
        for job in plan_batch(["in"], data.decode("utf-8", "replace"), model="fast").jobs:
            assert len(job.output) < 20_000
            assert "{" not in job.output or "{" in data.decode("utf-8", "replace")


def _zones(data: bytes, folder: Path) -> None:
    Strength(1.0, zones=data.decode("utf-8", "replace"))


def _mask(folder: Path) -> list[bytes]:
    picture = av.VideoFrame.from_ndarray(np.full((32, 48), 200, np.uint8), format="gray")
    found = []
    for codec, format, pix_fmt in (("png", "image2pipe", "gray"), ("mjpeg", "image2pipe", "yuvj420p")):
        path = folder / codec
        with av.open(str(path), "w", format=format) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, pix_fmt
            container.mux(stream.encode(picture.reformat(format=pix_fmt)))
            container.mux(stream.encode(None))
        found.append(path.read_bytes())
    return found


def _read_mask(data: bytes, folder: Path) -> None:
    (folder / "mask.png").write_bytes(data)
    strength = Strength(1.0, mask=str(folder / "mask.png"))
    try:
        gray = PIXEL_FORMATS["gray"]
        for pts in range(2):
            frame = Frame((torch.zeros(32, 48, dtype=torch.uint8),), gray, pts=pts, time_base=Fraction(1, 25))
            found = strength.at(frame).map
            assert found is not None
            assert 0 <= float(found.min()) <= float(found.max()) <= 1
    finally:
        strength.close()


def _address(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "replace")
    once = shown(text)
    assert once.isprintable() or any(c in once for c in "\u200b\u3000\u2003\xa0")
    assert shown(once) == once
    if re.search(r"(?<![^\s|])(rtsp|https?)://u:passw0rd@", text):
        assert "passw0rd" not in safe(text)


def _seeds(*texts: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [text.encode() for text in texts]


def targets() -> Iterator[Target]:
    """All of them, in a fixed order."""
    for name in _KINDS:
        yield Target(name, _media(name), _denoise)
    yield Target("y4m", _y4m, _denoise)
    yield Target("y4m-header", _y4m, _denoise, is_text=True)
    yield Target("raw-options", _seeds("16x16 yuv420p 25", "8x8 rgb24 30000/1001", "16x8 gray10le"), _raw, is_text=True)
    yield Target("weights", _weights, _load)
    for name in ("manifest.json", "00000.json", "00001.packets"):
        yield _state(name)
    yield Target("measurements", _measured, _find, is_text=True)
    yield Target("cache", _kept_seed, _kept)
    shipped = [path.read_text() for path in sorted(CONFIGS.glob("*.toml"))]
    yield Target("config-toml", _seeds(_TOML, *shipped), _configure(".toml"), is_text=True)
    yield Target("config-yaml", _seeds(_YAML), _configure(".yaml"), is_text=True)
    fields = "{index:03}-{stem}{suffix}"
    yield Target("template", _seeds(fields, "out/{sub}/{stem}-{model}{suffix}", "{parent}/x"), _template, is_text=True)
    yield Target("zones", _seeds("0-10:0.5,60-:0", "0-1:2"), _zones, is_text=True)
    yield Target("mask", _mask, _read_mask)
    yield Target(
        "address", _seeds("rtsp://u:passw0rd@h:1/a?k=v", "rtmp://h/live/key", "srt://h:1?a=b"), _address, is_text=True
    )
