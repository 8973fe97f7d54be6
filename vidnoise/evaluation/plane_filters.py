"""Classic filters on the planes of a decoded video, luma and chroma each at its own best strength.

This is the strongest form of these filters: as a user of ffmpeg would run them who could choose by the truth. All of
them treat each plane by itself. Interlaced frames are split into fields before and woven again after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vidnoise.errors import UsageError
from vidnoise.evaluation.ffmpeg import binary_with, call, missing_filter
from vidnoise.frame import Frame
from vidnoise.session.fields import fields, weave

Setting = tuple[float, ...]
"""Strengths for the planes of one kind, the main one first; 0 leaves them unchanged."""

Run = Callable[[Sequence[Frame]], list[Frame]]
"""A function from a clip's noisy frames to clean ones."""

Judge = Callable[[Run], tuple[float, float]]
"""Returns the quality of luma and of chroma for a run, in dB."""


def by_field(run: Run) -> Run:
    """Apply ``run`` to each field of interlaced frames separately, and to other frames directly."""

    def fields_apart(frames: Sequence[Frame]) -> list[Frame]:
        if not frames[0].interlaced:
            return run(frames)
        tops, bottoms = zip(*map(fields, frames), strict=True)
        return [weave(f, t, b) for f, t, b in zip(frames, run(tops), run(bottoms), strict=True)]

    return fields_apart


@dataclass(frozen=True, slots=True)
class PlaneFilter:
    """A filter of FFmpeg with strengths to be searched."""

    name: str
    filter: str
    graph: Callable[[Setting, Setting], str]
    """Returns FFmpeg's filter graph for settings of luma and chroma."""
    ladders: tuple[tuple[Setting, ...], ...]
    """Settings from weak to strong; the best one is searched on each ladder, then among the ladders."""
    first: tuple[float, float]
    """Initial strengths of luma and chroma, as multiples of the noise (its root mean square, 8-bit codes)."""
    least_frames: int = 1
    """Shortest clip that the filter supports."""
    search_frames: int = 2
    """Frames of each clip on which the strengths are searched."""

    def unusable(self, n_frames: int) -> str | None:
        """Return why it cannot run here on clips of ``n_frames``, in a few words; None if it can."""
        if n_frames < self.least_frames:
            return f"it needs clips of at least {self.least_frames} frames"
        return missing_filter(self.filter)

    def run(self, luma: Setting, chroma: Setting) -> Run:
        """Return the filter at fixed strengths."""
        return by_field(lambda frames: self._filtered(frames, self.graph(luma, chroma)))

    def _filtered(self, frames: Sequence[Frame], graph: str) -> list[Frame]:
        like = frames[0]
        shapes = [plane.shape for plane in like.planes]
        pix_fmt = like.format.name.replace("yuvj", "yuv")
        if pix_fmt != "yuv420p":
            raise UsageError(f"{self.name} is measured on 8-bit 4:2:0 pictures only, not on {pix_fmt}")
        size = f"{like.width}x{like.height}"
        raw = ["-f", "rawvideo", "-pix_fmt", pix_fmt, "-s", size, "-r", "25"]
        threads = ["-filter_complex_threads", str(torch.get_num_threads())]
        command = [binary_with(self.filter), "-v", "error", "-nostdin", *threads, *raw,
                   "-i", "pipe:", "-filter_complex", graph, *raw, "pipe:"]  # fmt: skip
        data = b"".join(plane.numpy().tobytes() for frame in frames for plane in frame.planes)
        out = call(command, data, what=self.name, megapixels=len(frames) * like.width * like.height / 1e6)
        if len(out) != len(data):
            raise UsageError(f"ffmpeg's {self.name} gave {len(out)} bytes for {len(data)}")
        samples = torch.from_numpy(np.frombuffer(out, np.uint8).copy())
        planes = samples.split([h * w for _ in frames for h, w in shapes])
        shaped = [plane.view(shapes[i % len(shapes)]) for i, plane in enumerate(planes)]
        return [
            replace(frame, planes=tuple(shaped[i * len(shapes) : (i + 1) * len(shapes)]))
            for i, frame in enumerate(frames)
        ]

    def best(self, judge: Judge, noise: tuple[float, float]) -> tuple[Setting, Setting, bool]:
        """Find the best settings for luma and chroma.

        Args:
            judge: Rates a run.
            noise: Root mean squares of the noise of luma and chroma in 8-bit codes, from which the search starts.

        Returns:
            Both settings, and whether one of them is the strongest available.
        """
        found: list[tuple[float, Setting, bool]] = [(-np.inf, (), False)] * 2
        for ladder in self.ladders:
            for kind, (index, score) in enumerate(self._climb(ladder, judge, noise)):
                at_edge = index == len(ladder) - 1
                found[kind] = max(found[kind], (score, ladder[index], at_edge))
        (_, luma, luma_edge), (_, chroma, chroma_edge) = found
        return luma, chroma, luma_edge or chroma_edge

    def _climb(self, ladder: tuple[Setting, ...], judge: Judge, noise: tuple[float, float]) -> list[tuple[int, float]]:
        """Search a ladder from the likely setting to the best one, for luma and chroma in the same runs."""
        tried: tuple[dict[int, float], dict[int, float]] = ({}, {})
        wished = [first * rms for first, rms in zip(self.first, noise, strict=True)]
        starts = [min(range(len(ladder)), key=lambda i: abs(ladder[i][0] - w)) for w in wished]
        while True:
            wanted = [_next(scores, start, len(ladder)) for scores, start in zip(tried, starts, strict=True)]
            tops = [max(scores, key=lambda i: scores[i], default=0) for scores in tried]
            if wanted == [None, None]:
                return [(top, scores[top]) for top, scores in zip(tops, tried, strict=True)]
            luma, chroma = (top if index is None else index for index, top in zip(wanted, tops, strict=True))
            for scores, index, score in zip(
                tried, (luma, chroma), judge(self.run(ladder[luma], ladder[chroma])), strict=True
            ):
                scores[index] = score


def _next(tried: dict[int, float], start: int, n: int) -> int | None:
    """Return the rung to try next, a neighbour of the best so far; None when both are worse."""
    if not tried:
        return start
    best = max(tried, key=lambda i: tried[i])
    return next((i for i in (best + 1, best - 1) if 0 <= i < n and i not in tried), None)


def _rungs(low: float, high: float, ratio: float, *multiples: float) -> tuple[Setting, ...]:
    """Return a ladder: 0, then strengths ``ratio`` apart, each followed by its multiples."""
    n = round(np.log(high / low) / np.log(ratio)) + 1
    strengths = [0.0, *(low * ratio**i for i in range(n))]
    return tuple(tuple(round(s * m, 2) for m in (1.0, *multiples)) for s in strengths)


def _nlmeans(luma: Setting, chroma: Setting) -> str:
    if luma == chroma and luma[0]:
        return f"nlmeans=s={luma[0]:g}"
    each = [
        f"[{plane}]{f'nlmeans=s={s:g}' if s else 'null'}[{plane}2]"
        for plane, (s,) in zip("yuv", (luma, chroma, chroma), strict=True)
    ]
    return ";".join(["extractplanes=y+u+v[y][u][v]", *each, "[y2][u2][v2]mergeplanes=0x001020:yuv420p"])


def _bm3d(luma: Setting, chroma: Setting) -> str:
    parts = [f"bm3d=planes={planes}:sigma={s:g}" for planes, (s,) in ((1, luma), (6, chroma)) if s]
    return ",".join(parts) or "null"


def _hqdn3d(luma: Setting, chroma: Setting) -> str:
    names = ("luma_spatial", "luma_tmp", "chroma_spatial", "chroma_tmp")
    # The filter takes 0 for "not given".
    return "hqdn3d=" + ":".join(f"{n}={s or 1e-3:g}" for n, s in zip(names, (*luma, *chroma), strict=True))


PLANE_FILTERS: dict[str, PlaneFilter] = {
    f.name: f
    for f in (
        # Ratios of temporal to spatial strength. The default, 1.5, was not the best one on any clip tried.
        PlaneFilter("hqdn3d", "hqdn3d", _hqdn3d, tuple(_rungs(0.5, 200, 1.5, t) for t in (0.5, 1.0)), (1.7, 4.5),
                    least_frames=2, search_frames=8),
        PlaneFilter("nlmeans", "nlmeans", _nlmeans, (_rungs(1, 30, 1.328),), (0.75, 0.9)),
        PlaneFilter("bm3d-ffmpeg", "bm3d", _bm3d, (_rungs(0.5, 250, 1.4),), (3.2, 6.0)),
    )
}  # fmt: skip
"""Filters by name, from fast to slow."""
