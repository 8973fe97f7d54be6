"""Where the rest of the error comes from: `what-is-lost.json` and `.md`.

    python benchmarks/what_is_lost.py --data DIR

The centres of the validation clips, Gaussian noise, sigma told. The fusion's gains and flows, found on the noisy clip,
are applied to the clean clip as well. What that gives differs from the clean frame by misalignment alone (flow,
repeated interpolation, and whatever has really changed from frame to frame); the rest of the fused frame's error is
noise. The spatial core then gets the frame with that noise only. With `pip install bm3d`, BM3D stands beside the first
frames, for which the spatial core works alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from vidnoise.evaluation.clips import find_data
from vidnoise.evaluation.metrics import psnr
from vidnoise.evaluation.peers import PEERS
from vidnoise.evaluation.protocol import centre_crops, noisy_clip
from vidnoise.model import DenoiseNetwork, uniform_sigma
from vidnoise.model.luma_chroma import bands_to_rgb, per_channel, rgb_to_bands
from vidnoise.model.wavelet import per_band
from vidnoise.weights import load_model

RESULTS = Path(__file__).with_name("what-is-lost.json")
MODELS = ("fast", "standard", "quality")
SIGMAS = (10, 30, 50)
FRAMES = 20
SETTLED = 10
"""Frames from this one on are judged: the fusion has seen enough by then."""


@torch.no_grad()
def parts(network: DenoiseNetwork, clean: Tensor, noisy: Tensor, sigma: float) -> dict[str, float]:
    """PSNR in dB, and root mean squares in 8-bit units, of one clip ``(T, 3, H, W)``."""
    state = network.initial_state(1, *clean.shape[-2:])
    level = uniform_sigma(sigma, noisy[:1])
    aligned = clean[:1]
    first, found = 0.0, []
    for t, (true, frame) in enumerate(zip(clean.split(1), noisy.split(1), strict=True)):
        before = state._replace(fused=aligned)
        out, state, trace = network(frame, level, state)
        if t == 0:
            first = psnr(out.clamp(0, 1), true).item()
            continue
        (past,), _ = network.operations.warp_state((before.fused,), before.ratio, trace.motion.flow)
        aligned = bands_to_rgb(past + per_band(per_channel(trace.ratio)) * (rgb_to_bands(true) - past))
        if t < SETTLED:
            continue
        noise = bands_to_rgb(trace.fused) - aligned
        left = per_channel(trace.ratio.sqrt()) * level
        ideal = network.still(true + noise, left)
        squares = ((aligned - true).square().mean().item(), noise.square().mean().item())
        found.append((psnr(out.clamp(0, 1), true).item(), psnr(ideal.clamp(0, 1), true).item(), *squares))
    late, ideal, misaligned, noise = (sum(column) / len(column) for column in zip(*found, strict=True))
    return {
        "first": first, "late": late, "aligned": ideal, "misalignment": misaligned**0.5 * 255, "noise": noise**0.5 * 255
    }  # fmt: skip


def _mean(each: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(sum(e[key] for e in each) / len(each), 3) for key in each[0]}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| sigma | model | first frame | BM3D, first frame | later frames | the same, were nothing misaligned "
        "| noise in the fused frame | misalignment in it |",
        "|---" * 8 + "|",
    ]
    for sigma, rows in results.items():
        bm3d = f"{rows['bm3d']['first']:.2f}" if "bm3d" in rows else "–"
        for model in MODELS:
            r = rows[model]
            lines.append(
                f"| {sigma} | {model} | {r['first']:.2f} | {bm3d} | {r['late']:.2f} | {r['aligned']:.2f} "
                f"| {r['noise']:.1f} | {r['misalignment']:.1f} |"
            )
    return (
        "PSNR in dB and root mean squares in 8-bit units, mean over the centres of six validation clips; later frames "
        f"are {SETTLED + 1} to {FRAMES}.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with val/ in it (or set VIDNOISE_DATA)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = centre_crops(find_data(options.data) / "val", n_frames=FRAMES)
    networks = {model: load_model(model).network for model in MODELS}
    results: dict[str, dict[str, dict[str, float]]] = {}
    for sigma in SIGMAS:
        pairs = [(clean, noisy_clip(name, clean, sigma)) for name, clean in clips]
        rows = {model: _mean([parts(n, clean, z, sigma / 255) for clean, z in pairs]) for model, n in networks.items()}
        if not PEERS["bm3d-pypi"].missing():
            bm3d = PEERS["bm3d-pypi"].method(sigma)
            rows["bm3d"] = _mean([{"first": psnr(bm3d(z[:1], 0).clamp(0, 1), c[:1]).item()} for c, z in pairs])
        results[str(sigma)] = rows
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table(results))


if __name__ == "__main__":
    main()
