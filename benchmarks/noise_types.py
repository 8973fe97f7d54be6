"""How well the models denoise each type of noise that they may meet, blind: `noise-types.json` and `.md`.

    python benchmarks/noise_types.py --data DIR [--only MODEL,...]

The centres of the validation clips, as for `ablations.py`; noise of each type of a strength drawn from the range that
training draws from, the same for all models, rounded to 8 bits and clipped, as cameras and decoders give it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from vidnoise.evaluation.clips import find_data
from vidnoise.evaluation.metrics import psnr
from vidnoise.evaluation.protocol import centre_crops, network_method
from vidnoise.training.batch import noise_type
from vidnoise.training.precision import Precision
from vidnoise.weights import load_model

RESULTS = Path(__file__).with_name("noise-types.json")
MODELS = ("fast", "standard", "quality", "fast-awgn", "standard-awgn")
TYPES = {
    "gaussian": "white, Gaussian",
    "poisson_gaussian": "photon and read noise under white balance",
    "correlated": "correlated by demosaicking",
    "chroma_subsampled": "chroma at half resolution",
    "luma": "equal in all channels",
    "salt_and_pepper": "dead samples",
    "banding": "row noise",
    "compressed": "JPEG",
    "h264": "H.264, crf 12 to 30",
}
"""Noise types of the training mix, and what they are."""


def noisy_versions(clips: list[tuple[str, Tensor]], name: str) -> list[Tensor]:
    """Every clip under a noise of its own."""
    apply = noise_type(name)
    found = [apply(clip, torch.Generator().manual_seed(i)) for i, (_, clip) in enumerate(clips)]
    return [(noisy.clamp(0, 1) * 255).round() / 255 for noisy in found]


def table(results: dict[str, dict[str, float]]) -> str:
    columns = [name for name in ("noisy", *MODELS) if name in results]
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
    noisy = {name: noisy_versions(clips, name) for name in TYPES}
    results: dict[str, dict[str, float]] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}

    def mean(pictures: list[Tensor]) -> float:
        scores = [psnr(p.clamp(0, 1), clean).mean().item() for p, (_, clean) in zip(pictures, clips, strict=True)]
        return round(sum(scores) / len(scores), 3)

    results["noisy"] = {name: mean(pictures) for name, pictures in noisy.items()}
    for model in options.only.split(","):
        method = network_method(load_model(model)[0], blind=True)
        with Precision("auto", torch.device("cpu")).autocast():
            results[model] = {name: mean([method(p, 0.0) for p in pictures]) for name, pictures in noisy.items()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(table(results))


if __name__ == "__main__":
    main()
