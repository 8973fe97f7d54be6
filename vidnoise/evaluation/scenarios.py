"""Scenarios of realistic video noise, made from clean clips: the material of the protocol ``real``.

A scenario converts clean RGB frames to clean and noisy planes of 8-bit 4:2:0 (BT.601, limited range), and passes the
noisy ones through a codec. All seeds are fixed and encoders have one thread, so a machine makes the same material each
time. No code is shared with the noise that models are trained on.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vidnoise.evaluation.clips import read_clip
from vidnoise.evaluation.ffmpeg import binary_with, call
from vidnoise.frame import Frame
from vidnoise.opencv import cv2

Planes = tuple[np.ndarray, ...]
"""Y, U and V as uint8, ``(T, H, W)`` each, chroma at half the height and width."""

RATE = 25
"""Frames a second, for codecs with a bit rate."""

MATERIAL_VERSION = 1
"""Version of the material. Raise it with every change to a scenario, so that cached material is made anew."""

LOSSLESS = ("-c:v", "ffv1")


def x264(*options: object) -> tuple[str, ...]:
    """Return arguments for libx264, with one thread, as its output would otherwise depend on the machine."""
    return ("-c:v", "libx264", *(str(o) for o in options), "-threads", "1")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of noisy video."""

    name: str
    about: str
    """Description for tables."""
    film: Callable[[np.ndarray, np.random.Generator], tuple[Planes, Planes]]
    """Converts clean RGB uint8 ``(T, H, W, 3)``, H divisible by 4 and W by 2, to clean and noisy planes."""
    filter: str = "null"
    """Filter of ffmpeg before the codec; ``{seed}`` is replaced by the clip's."""
    codec: tuple[str, ...] = LOSSLESS
    """Codec arguments; ``{rate}`` is replaced by 1,500 kbit/s for 720x480 and more, less for smaller pictures."""
    interlaced: bool = False
    strength: float = 1.0
    """Strength at which our models run."""
    source: str = ""
    """Scenario whose material is used instead of its own; classic filters are then not measured again."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A noisy clip for a denoiser, and its truth."""

    name: str
    noisy: list[Frame]
    clean: list[Frame]


def _raw(width: int, height: int, pix_fmt: str) -> list[str]:
    size = ["-f", "rawvideo", "-pix_fmt", pix_fmt, "-s", f"{width}x{height}", "-r", str(RATE)]
    return [binary_with("noise"), "-v", "error", "-nostdin", "-y", *size, "-i", "pipe:"]


def to_planes(rgb: np.ndarray) -> Planes:
    """Convert RGB frames to 4:2:0 by ffmpeg's accurate conversion.

    Raises:
        UsageError: There is no ffmpeg binary.
    """
    n, height, width, _ = rgb.shape
    scale = "scale=out_color_matrix=bt601:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp,format=yuv420p"
    command = [*_raw(width, height, "rgb24"), "-vf", scale, "-f", "rawvideo", "pipe:"]
    out = call(command, rgb.tobytes(), what="conversion to 4:2:0", megapixels=rgb.size / 3e6)
    luma, chroma = height * width, height * width // 4
    samples = np.frombuffer(out, np.uint8).reshape(n, luma + 2 * chroma)
    y, u, v = np.split(samples, [luma, luma + chroma], axis=1)
    half = (n, height // 2, width // 2)
    return y.reshape(n, height, width), u.reshape(half), v.reshape(half)


def _encoded(scenario: Scenario, planes: Planes, seed: int, path: Path) -> None:
    """Write noisy planes as a Matroska file, through the scenario's filter and codec."""
    n, height, width = planes[0].shape
    rate = round(1500 * min(1.0, height * width / (720 * 480)))
    codec = [argument.format(rate=rate) for argument in scenario.codec]
    tags = ["-colorspace", "smpte170m", "-color_range", "tv", "-f", "matroska", str(path)]
    data = np.concatenate([plane.reshape(n, -1) for plane in planes], axis=1).tobytes()
    command = [*_raw(width, height, "yuv420p"), "-vf", scenario.filter.format(seed=seed), *codec, *tags]
    call(command, data, what=f"encoding of {scenario.name}", megapixels=n * height * width / 1e6)


def read_frames(path: Path, *, interlaced: bool = False) -> list[Frame]:
    """Decode all frames of a file by the project's own source.

    Raises:
        SourceError, DecodeError, FormatError: It cannot be read.
    """
    from vidnoise.sources import open_source

    source = open_source(path, interlaced="tff" if interlaced else "no")
    try:
        return [replace(f, planes=tuple(p.clone() for p in f.planes), packets=(), side_data=None) for f in source]
    finally:
        source.close()


def shoot(scenario: Scenario, name: str, path: Path, n_frames: int) -> Shot:
    """Make a clip of a scenario from the first frames of a clean one.

    Args:
        scenario: The scenario.
        name: Name of the clip, which seeds the noise.
        path: The clean clip.
        n_frames: Maximum number of frames; interlaced clips have half as many.

    Raises:
        SourceError: It cannot be read.
        UsageError: There is no ffmpeg binary, or it lacks an encoder.
    """
    rgb = read_clip(path, n_frames)
    rgb = np.ascontiguousarray(rgb[:, : rgb.shape[1] // 4 * 4, : rgb.shape[2] // 2 * 2])
    seed = zlib.crc32(f"{name}:{scenario.source or scenario.name}".encode())
    clean, noisy = scenario.film(rgb, np.random.default_rng(seed))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noisy.mkv"
        _encoded(scenario, noisy, seed % 2**31, file)
        frames = read_frames(file, interlaced=scenario.interlaced)
    truth = [
        replace(frame, planes=tuple(torch.from_numpy(plane[i].copy()) for plane in clean))
        for i, frame in enumerate(frames)
    ]
    return Shot(name, frames, truth)


def _rounded(values: np.ndarray, low: int = 0, high: int = 255) -> np.ndarray:
    return values.round().clip(low, high).astype(np.uint8)


def _untouched(rgb: np.ndarray, rng: np.random.Generator) -> tuple[Planes, Planes]:
    """Convert without noise, which ffmpeg's filter adds."""
    clean = to_planes(rgb)
    return clean, clean


EXPOSURE = 0.15
"""Light on the dark scenario's sensor, as a share of the clean clip's."""

WHITE_BALANCE = np.array([2.0, 1.0, 1.6])
"""Gains of red, green and blue in warm to neutral light."""

FULL_WELL, READ_NOISE = 600.0, 3.0
"""Electrons at white, and their standard deviation in the dark."""


def _dark(rgb: np.ndarray, rng: np.random.Generator) -> tuple[Planes, Planes]:
    """Simulate a night scene: less light, with photon noise on a Bayer sensor, demosaicked and white-balanced.

    The truth is the output of the same sensor without noise, so that demosaicking loss does not count against a
    denoiser.
    """
    light = EXPOSURE * (rgb / 255.0) ** 2.2

    def sensor(noise: bool) -> Planes:
        frames = []
        for frame in light:
            raw = frame / WHITE_BALANCE
            mosaic = raw[..., 1].copy()
            mosaic[0::2, 0::2], mosaic[1::2, 1::2] = raw[0::2, 0::2, 0], raw[1::2, 1::2, 2]
            if noise:
                electrons = rng.poisson(mosaic * FULL_WELL) + rng.normal(0, READ_NOISE, mosaic.shape)
                mosaic = electrons / FULL_WELL
            # With a pedestal, as in sensors, so that noise below black is not clipped before demosaicking.
            codes = ((mosaic + 0.1) * 50000).round().clip(0, 65535).astype(np.uint16)
            colours = cv2.demosaicing(codes, cv2.COLOR_BayerBG2RGB_EA) / 50000 - 0.1
            frames.append(_rounded(255 * (colours * WHITE_BALANCE).clip(0, 1) ** (1 / 2.2)))
        return to_planes(np.stack(frames))

    return sensor(False), sensor(True)


TAPE_LUMA, TAPE_CHROMA, TAPE_SMEAR = 8.0, 12.0, 3.0
"""Standard deviations of the tape's noise in 8-bit codes, and of the Gaussian that smears chroma along lines, in chroma
samples: VHS resolves about 40 cycles of colour per line."""


def _on_tape(clean: Planes, rng: np.random.Generator) -> Planes:
    def colour(shape: tuple[int, ...]) -> np.ndarray:
        white = rng.standard_normal(shape, np.float32).reshape(-1, shape[-1])
        smeared = cv2.GaussianBlur(white, (0, 1 | int(8 * TAPE_SMEAR)), TAPE_SMEAR, sigmaY=1e-3)
        return (TAPE_CHROMA / smeared.std() * smeared).reshape(shape)

    y, u, v = clean
    noisy = (y + TAPE_LUMA * rng.standard_normal(y.shape, np.float32), u + colour(u.shape), v + colour(v.shape))
    return tuple(_rounded(plane, 1, 254) for plane in noisy)


def _tape(rgb: np.ndarray, rng: np.random.Generator) -> tuple[Planes, Planes]:
    clean = to_planes(rgb)
    return clean, _on_tape(clean, rng)


def _interlaced_tape(rgb: np.ndarray, rng: np.random.Generator) -> tuple[Planes, Planes]:
    """Make each interlaced frame from two: the top field from one, the bottom field from the next."""
    pairs = rgb[: len(rgb) // 2 * 2]
    fields = [to_planes(np.ascontiguousarray(pairs[parity::2, parity::2])) for parity in (0, 1)]

    def woven(top: Planes, bottom: Planes) -> Planes:
        both = (np.stack(lines, axis=2) for lines in zip(top, bottom, strict=True))
        return tuple(lines.reshape(lines.shape[0], -1, lines.shape[-1]) for lines in both)

    noisy = [_on_tape(field, rng) for field in fields]
    return woven(*fields), woven(*noisy)


GRAIN, GRAIN_BLUR, GRAIN_COLOUR = 9.0, 0.8, 0.4
"""Standard deviation of film grain at its strongest, in 8-bit codes; that of the Gaussian that makes its clumps, in
pixels; and the strength of each channel's own grain relative to the common grain."""


def _grain(rgb: np.ndarray, rng: np.random.Generator) -> tuple[Planes, Planes]:
    """Add film grain: mostly gray clumps, strongest in the midtones."""
    frames = []
    for frame in rgb:
        values = frame.astype(np.float32)
        height, width, _ = values.shape
        white = rng.standard_normal((4, height, width), np.float32)
        grain = np.stack([cv2.GaussianBlur(w, (0, 0), GRAIN_BLUR) for w in white], axis=-1)
        mixed = grain[..., :1] + GRAIN_COLOUR * grain[..., 1:]
        mixed *= GRAIN / mixed.std()
        tone = 4 * (values / 255) * (1 - values / 255)
        frames.append(_rounded(values + mixed * (0.3 + 0.7 * tone)))
    return to_planes(rgb), to_planes(np.stack(frames))


SCENARIOS: dict[str, Scenario] = {
    s.name: s
    for s in (
        Scenario("planes20", "noise of all planes (20), x264 crf 28", _untouched,
                 "noise=alls=20:allf=t:all_seed={seed}", x264("-crf", 28)),
        Scenario("planes10", "noise of all planes (10), x264 crf 18", _untouched,
                 "noise=alls=10:allf=t:all_seed={seed}", x264("-crf", 18)),
        Scenario("chroma20", "noise of U and V (20)", _untouched,
                 "noise=c1s=20:c1f=t:c2s=20:c2f=t:all_seed={seed}"),
        Scenario("dark", "a sensor at night, x264 crf 23", _dark, codec=x264("-crf", 23)),
        Scenario("camera", "noise of Y (14), x264 at 1.5 Mbit/s", _untouched, "noise=c0s=14:c0f=t:all_seed={seed}",
                 x264("-preset", "veryfast", "-tune", "zerolatency", "-b:v", "{rate}k", "-maxrate", "{rate}k",
                      "-bufsize", "{rate}k")),
        Scenario("tape", "noise of a tape: luma 8, chroma 12 smeared along lines", _tape),
        Scenario("tape-interlaced", "the same noise, on interlaced video", _interlaced_tape, interlaced=True),
        Scenario("grain", "film grain, x264 crf 18 for grain", _grain, codec=x264("-crf", 18, "-tune", "grain")),
        Scenario("grain-half", "the same clips, our models at half their strength", _grain,
                 codec=x264("-crf", 18, "-tune", "grain"), strength=0.5, source="grain"),
    )
}  # fmt: skip
"""Scenarios by name, in the order of ``vidnoise evaluate --protocol real``."""
