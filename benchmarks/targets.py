"""The targets of this project, and what was measured: `targets.md` from the results of `vidnoise evaluate`.

    python benchmarks/targets.py [--data DIR]

Reads `quality-test.json` and `quality-test-blind.json` beside it (benchmarks/README.md has the commands). With `--data`
(or VIDNOISE_DATA) streams are measured as well, on the clips of `DIR/test/video`: frames after scene cuts, and 2,000
frames in a row. Without, the figures of the last time stay (`streams.json`).
"""

from __future__ import annotations

import argparse
import itertools
import json
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
    """What was measured, and what was given, on the test clips."""

    def __init__(self) -> None:
        told, blind = (json.loads((HERE / f"quality-test{s}.json").read_text()) for s in ("", "-blind"))
        self.methods: dict[str, Any] = told["methods"] | blind["methods"]
        self.given: dict[str, Any] = told["given"]

    def of(self, label: str, sigma: str, metric: str = "psnr") -> float:
        return self.methods[label]["sigmas"][sigma]["mean"][metric]

    def reference(self, label: str, sigma: str) -> float:
        return self.given[label]["psnr"][sigma]

    def peers(self) -> list[str]:
        """Classic filters."""
        return [label for label, method in self.methods.items() if "weights" not in method]

    def model(self, tier: str) -> str:
        """Who plays for a tier: its weights for the Gaussian protocol, or the only ones it has."""
        return f"{tier}-awgn" if f"{tier}-awgn" in self.methods else tier


def rows(results: Results, streams: Streams) -> Iterator[tuple[str, str, float, float]]:
    """Target, where, limit, measured; met if the measured is not below (an error: not above) the limit."""
    dvdnet = "DVDnet (5 frames, DIS flow)"
    fast, standard, quality = models = [results.model(tier) for tier in TIERS]
    for s in SIGMAS:
        best = max(results.peers(), key=lambda p: results.of(p, s))
        yield f"`{fast}` above every classic filter (best here: {best})", s, results.of(best, s), results.of(fast, s)
    for s, margin in (("30", 0.5), ("50", 1.0)):
        yield f"`{fast}` above FFDNet by {margin}", s, results.reference("FFDNet", s) + margin, results.of(fast, s)
    for s in SIGMAS:
        yield f"`{standard}` above DVDnet by 0.3", s, results.reference(dvdnet, s) + 0.3, results.of(standard, s)
    yield f"`{quality}` above DVDnet by 1.2", "30", results.reference(dvdnet, "30") + 1.2, results.of(quality, "30")
    for model in models:
        for s in SIGMAS:
            least = min(results.of(p, s, "temporal_error") for p in results.peers())
            found = results.of(model, s, "temporal_error")
            yield f"temporal error of `{model}` below every filter's", s, -least, -found
        for s in SIGMAS:
            known, blind = results.of(model, s), results.of(f"{model} (blind)", s)
            yield f"`{model}`: sigma unknown within 0.2 dB", s, known - 0.2, blind
        for s in SIGMAS:
            limit = results.reference("FFDNet", s) - 0.3
            yield f"first frame of `{model}` not below FFDNet by 0.3", s, limit, results.of(model, s, "psnr_first")
    for model, found in streams.items():
        yield f"`{model}` after a cut as on a first frame", "30", found["first"] - 0.05, found["after a cut"]
        early, late = found["frames 20 to 120"], found["last 100"]
        yield f"`{model}`, last 100 of 2,000 frames as 20 to 120", "30", early - 0.05, late


def table(results: Results, streams: Streams) -> str:
    lines = [
        "On the test clips (first 20 frames), Gaussian noise; PSNR in dB, temporal error in 8-bit units. FFDNet's and",
        "DVDnet's figures are given, the rest was measured. First frames stand beside FFDNet's mean over all frames.",
        "After cuts and in long streams 0.05 dB less is allowed.",
        "",
        "| target | sigma | asked | measured | |",
        "|---|---|---|---|---|",
    ]
    for what, sigma, limit, found in rows(results, streams):
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
        chosen = dict.fromkeys([*map(results.model, TIERS), *TIERS])
        streams = {m: frames_after_cuts(folder, m) | drift(folder, m) for m in chosen}
        STREAMS.write_text(json.dumps(streams, indent=1) + "\n")
    streams = json.loads(STREAMS.read_text()) if STREAMS.is_file() else {}
    (HERE / "targets.md").write_text(table(results, streams))


if __name__ == "__main__":
    main()
