"""How well the models denoise each type of noise that they may meet, blind: `noise-types.json` and `.md`.

    python benchmarks/noise_types.py --data DIR [--only MODEL,...]

The centres of the validation clips, as for `ablations.py`; noise of each type of a strength drawn from the range that
training draws from, the same for all models, rounded to 8 bits and clipped, as cameras and decoders give it. Encoded
clips are compared with what they would be without noise and codec, in 4:2:0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidnoise.evaluation.clips import find_data
from vidnoise.evaluation.metrics import psnr
from vidnoise.evaluation.protocol import centre_crops, network_method
from vidnoise.training.codec_pool import encoded
from vidnoise.training.config import ENCODED
from vidnoise.training.data import as_clip
from vidnoise.training.noise import NOISES
from vidnoise.training.precision import Precision
from vidnoise.weights import load_model

RESULTS = Path(__file__).with_name("noise-types.json")
MODELS = ("fast", "standard", "quality")
TYPES = {
    "gaussian": "white, Gaussian",
    "planes": "of Y, U and V at 4:2:0, tape among them",
    "sensor": "of a sensor behind a Bayer mosaic",
    "luma": "equal in all channels",
    "correlated": "film grain",
    "salt_and_pepper": "dead samples",
    "banding": "row noise",
    ENCODED: "many of these, then an encoder",
}
"""Noise types of the training mix, and what they are."""


def pairs(clips: list[tuple[str, Tensor]], name: str) -> list[tuple[Tensor, Tensor]]:
    """Every clip clean and under a noise of its own."""
    generators = [torch.Generator().manual_seed(i) for i in range(len(clips))]
    if name == ENCODED:
        made = [encoded(c, np.random.default_rng(i), generators[i]) for i, (_, c) in enumerate(clips)]
        return [(as_clip(pair.clean), as_clip(pair.noisy)) for pair in made]
    found = [NOISES[name](c[None], generator)[0] for (_, c), generator in zip(clips, generators, strict=True)]
    rounded = [(noisy.clamp(0, 1) * 255).round() / 255 for noisy in found]
    return [(clean, noisy) for (_, clean), noisy in zip(clips, rounded, strict=True)]


def table(results: dict[str, dict[str, float]]) -> str:
    columns = [name for name in ("noisy", *MODELS) if TYPES.keys() <= results.get(name, {}).keys()]
    lines = ["| noise | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, what in TYPES.items():
        lines.append(f"| {what} | " + " | ".join(f"{results[c][name]:.2f}" for c in columns) + " |")
    return (
        "PSNR in dB, blind, mean over the centres of six validation clips, 10 frames each.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with val/ in it (or set VIDNOISE_DATA)")
    parser.add_argument("--only", default=",".join(MODELS), metavar="MODEL,...", help="others keep their figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = centre_crops(find_data(options.data) / "val")
    given = {name: pairs(clips, name) for name in TYPES}
    results: dict[str, dict[str, float]] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}

    def mean(found: list[tuple[Tensor, Tensor]]) -> float:
        scores = [psnr(picture.clamp(0, 1), clean).mean().item() for clean, picture in found]
        return round(sum(scores) / len(scores), 3)

    results["noisy"] = {name: mean(found) for name, found in given.items()}
    for model in options.only.split(","):
        method = network_method(load_model(model).network, blind=True)
        with Precision("auto", torch.device("cpu")).autocast():
            results[model] = {n: mean([(clean, method(x, 0.0)) for clean, x in found]) for n, found in given.items()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(table(results))


if __name__ == "__main__":
    main()
