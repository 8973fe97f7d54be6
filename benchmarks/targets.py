"""The targets of this project, and what was measured: `targets.md` from the results of `vidnoise evaluate`.

    python benchmarks/targets.py [--data DIR]

Reads `real-test.json`, `photos-polyu.json`, `quality-test.json` and `quality-test-blind.json` beside it
(benchmarks/README.md has the commands). With `--data` (or VIDNOISE_DATA) streams are measured as well, on the clips of
`DIR/test/video`: frames after scene cuts, and 2,000 frames in a row. Without, the figures of the last time stay
(`streams.json`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vidnoise
from vidnoise.evaluation.clips import find_data
from vidnoise.evaluation.metrics import psnr
from vidnoise.evaluation.protocol import clean_clips, noisy_clip

HERE = Path(__file__).parent
SIGMAS = ("10", "30", "50")
TIERS = ("fast", "standard", "quality")
STREAMS = HERE / "streams.json"

Streams = dict[str, dict[str, float]]
"""PSNR in dB at sigma 30, by model and part of a stream."""


def denoised(noisy: Iterable[Tensor], model: str, sigma: float) -> list[Tensor]:
    """What the Python API makes of frames ``(3, H, W)``."""
    return list(vidnoise.denoise(noisy, model=model, sigma=sigma))


def drift(folder: Path, model: str, sigma: float = 30, n: int = 2020, size: int = 96) -> dict[str, float]:
    """PSNR of frames 20 to 120 and of the last 100 of a long stream: the centre of a clip, played to and fro.

    Both parts begin at the same frame of the clip: 2,020 - 100 - 20 is a multiple of the 38 frames of a round.
    """
    name, clip = next(clean_clips(folder, 20))
    top, left = (clip.shape[2] - size) // 2, (clip.shape[3] - size) // 2
    there = clip[..., top : top + size, left : left + size]
    clean = torch.cat([there, there[1:-1].flip(0)])
    clean = clean.repeat(-(-n // len(clean)), 1, 1, 1)[:n]
    noisy = (noisy_clip(f"{name}{start}", clean[start : start + 100], sigma) for start in range(0, n, 100))
    out = denoised((frame for part in noisy for frame in part), model, sigma)
    quality = psnr(torch.stack(out).clamp(0, 1), clean)
    return {"frames 20 to 120": quality[20:120].mean().item(), "last 100": quality[-100:].mean().item()}


def frames_after_cuts(folder: Path, model: str, sigma: float = 30) -> dict[str, float]:
    """PSNR of frames after a cut, and of the same frames as the first of a stream; means over neighbouring clips."""
    clips = list(clean_clips(folder, 8))
    height, width = (min(c.shape[i] for _, c in clips) for i in (2, 3))
    scenes = [(name, c[..., :height, :width]) for name, c in clips]

    after, first = [], []
    for (before, a), (name, b) in itertools.pairwise([*scenes, scenes[0]]):
        noisy = noisy_clip(name, b[:1], sigma)
        joined = denoised(torch.cat([noisy_clip(before, a, sigma), noisy]), model, sigma)
        for out, scores in ((joined[-1], after), (denoised(noisy, model, sigma)[0], first)):
            scores.append(psnr(out.clamp(0, 1)[None], b[:1]).item())
    return {"after a cut": sum(after) / len(after), "first": sum(first) / len(first)}


class Results:
    """What was measured, and what was given, on the test clips and photographs."""

    def __init__(self) -> None:
        told, blind = (_read(f"quality-test{s}") for s in ("", "-blind"))
        self.methods: dict[str, Any] = told["methods"] | blind.get("methods", {})
        self.given: dict[str, Any] = told["given"]
        self.real, self.photos = _read("real-test"), _read("photos-polyu")

    def of(self, label: str, sigma: str, metric: str = "psnr") -> float:
        """NaN where it was not measured."""
        found = self.methods.get(label, {}).get("sigmas", {}).get(sigma)
        return found["mean"][metric] if found else math.nan

    def reference(self, label: str, sigma: str) -> float:
        return self.given[label]["psnr"][sigma]

    def peers(self) -> list[str]:
        """Classic filters."""
        return [label for label, method in self.methods.items() if "weights" not in method]

    @staticmethod
    def means(part: dict[str, Any], case: str, label: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Of a scenario: a model's figures, and those of the classic filters."""
        found = {
            name: (method, method["scenarios"][case]["mean"])
            for name, method in part.get("methods", {}).items()
            if case in method.get("scenarios", {})
        }
        ours = found[label][1] if label in found else {}
        return ours, [mean for name, (method, mean) in found.items() if "weights" not in method and name != "noisy"]


def _read(name: str) -> dict[str, Any]:
    path = HERE / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


AHEAD = "(lookahead 8)"
DEFAULT = f"standard {AHEAD}"
"""How files are denoised where nothing else is asked for."""

Row = tuple[str, str, float, float]
"""Target, where, limit, measured; met if the measured is not below (an error, negative here: not above) the limit."""


def real_rows(results: Results) -> Iterator[Row]:
    for case in results.real.get("protocol", {}).get("scenarios", []):
        ours, peers = results.means(results.real, case, DEFAULT)
        if not ours or not peers:
            continue
        best = max(peer["psnr"] for peer in peers)
        yield f"`{DEFAULT}` above the best classic filter by 0.5", case, best + 0.5, ours["psnr"]
        for plane in "yuv":
            error = min(peer[f"rms_{plane}"] for peer in peers)
            yield f"error on {plane.upper()} below every filter's", case, -error, -ours[f"rms_{plane}"]
    ours, _ = results.means(results.photos, "photos", "standard")
    if ours:
        yield "`standard` on photographs", "photos", 38.2, ours["psnr"]


def rows(results: Results, streams: Streams) -> Iterator[Row]:
    ffdnet, dvdnet = "FFDNet", "DVDnet (5 frames, DIS flow)"
    yield from real_rows(results)
    for tier, margins, ahead in (
        ("fast", {"30": 1.0, "50": 1.3}, dict.fromkeys(SIGMAS, 0.0)),
        ("standard", {"30": 1.6}, dict.fromkeys(SIGMAS, 0.8)),
        ("quality", {}, {"30": 1.5}),
    ):
        for s, margin in margins.items():
            limit = results.reference(ffdnet, s) + margin
            yield f"`{tier}`, causal, above FFDNet by {margin}", s, limit, results.of(tier, s)
        for s, margin in ahead.items():
            limit = results.reference(dvdnet, s) + margin
            yield f"`{tier}`, both ways, above DVDnet by {margin}", s, limit, results.of(f"{tier} {AHEAD}", s)
    for lower, higher in itertools.pairwise(TIERS):
        limit = results.of(f"{lower} {AHEAD}", "30") + 0.3
        yield f"`{higher}` above `{lower}` by 0.3, both ways", "30", limit, results.of(f"{higher} {AHEAD}", "30")
    for tier in TIERS:
        for s in SIGMAS:
            least = min(results.of(p, s, "temporal_error") for p in results.peers())
            yield f"temporal error of `{tier}` below every filter's", s, -least, -results.of(tier, s, "temporal_error")
        for s in SIGMAS:
            found = results.of(f"{tier} (blind)", s)
            yield f"`{tier}`: sigma unknown within 0.2 dB", s, results.of(tier, s) - 0.2, found
    for tier, margin in (("standard", -0.1), ("quality", 0.2)):
        for s in SIGMAS:
            limit = results.reference(ffdnet, s) + margin
            found = results.of(tier, s, "psnr_first")
            yield f"first frame of `{tier}`, causal, against FFDNet {margin:+}", s, limit, found
    for tier in TIERS:
        for s in SIGMAS:
            both = f"{tier} {AHEAD}"
            limit = results.of(both, s) - 0.1
            yield f"first frame of `{tier}`, both ways, as good as all", s, limit, results.of(both, s, "psnr_first")
    for model, found in streams.items():
        yield f"`{model}` after a cut as on a first frame", "30", found["first"] - 0.05, found["after a cut"]
        early, late = found["frames 20 to 120"], found["last 100"]
        yield f"`{model}`, last 100 of 2,000 frames as 20 to 120", "30", early - 0.05, late


def table(results: Results, streams: Streams) -> str:
    lines = [
        "On the test clips (first 20 frames): noise as video has it (protocol `real`), then Gaussian noise of a",
        "sigma that is told; PSNR in dB, errors in 8-bit units. FFDNet's and DVDnet's figures are given, the rest",
        "was measured. First frames stand beside FFDNet's mean over all frames. After cuts and in long streams",
        "0.05 dB less is allowed.",
        "",
        "| target | where, or sigma | asked | measured | |",
        "|---|---|---|---|---|",
    ]
    for what, sigma, limit, found in rows(results, streams):
        if math.isnan(found) or math.isnan(limit):
            verdict = "not measured"
        else:
            verdict = "met" if found >= limit else f"missed by {limit - found:.2f}"
        lines.append(f"| {what} | {sigma} | {abs(limit):.2f} | {abs(found):.2f} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with test/video in it")
    data = parser.parse_args().data or os.environ.get("VIDNOISE_DATA")
    results = Results()
    if data:
        folder = find_data(data) / "test" / "video"
        streams = {m: frames_after_cuts(folder, m) | drift(folder, m) for m in TIERS}
        STREAMS.write_text(json.dumps(streams, indent=1) + "\n")
    streams = json.loads(STREAMS.read_text()) if STREAMS.is_file() else {}
    (HERE / "targets.md").write_text(table(results, streams))


if __name__ == "__main__":
    main()
