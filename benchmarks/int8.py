"""What int8 costs: writes the PSNR of a model in float32 and in int8 to the card of its int8 weights, and `int8.md`.

    python benchmarks/int8.py fast RUN/fast-int8.safetensors --data DIR --cache DIR

The centres of the validation clips: under white Gaussian noise told, blind and with lookahead, and in the scenarios of
video noise (:mod:`vidnoise.evaluation.real`), blind. The file is written as ``models/NAME-int8-VERSION.safetensors``,
with the version of the model in float32; ``int8.md`` has the figures of all cards.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from vidnoise.evaluation.clips import find_data
from vidnoise.evaluation.protocol import centre_crops, mean_psnr, network_method
from vidnoise.evaluation.real import quick_real_validation
from vidnoise.model import DenoiseNetwork
from vidnoise.weights import INT8, Model, find_model, list_models, load_model, save_model

FOLDER = Path(__file__).parent
SIGMAS = (10, 30, 50)
FRAMES, SIZE = 10, 320
WAYS = {"": {}, " blind": {"blind": True}, " lookahead 8": {"lookahead": 8}}


def figures(network: DenoiseNetwork, val: Path, cache: Path) -> dict[str, float]:
    """PSNR in dB by kind of noise."""
    crops = centre_crops(val, FRAMES, SIZE)
    found = {
        f"sigma {sigma}{way}": mean_psnr(network_method(network, **settings), crops, sigma)
        for way, settings in WAYS.items()
        for sigma in SIGMAS
    }
    return found | quick_real_validation(network, val, cache)


def table(model: Model, path: Path, plain: Path) -> str:
    """Both figures of a model's card, and the sizes of the files."""
    metrics = model.card.metrics
    ratio = 4 * sum(p.numel() for p in model.network.parameters()) / path.stat().st_size
    lines = [
        f"`{path.name}`: {path.stat().st_size / 1e3:,.0f} kB, {ratio:.1f} times smaller than its weights in float32, "
        f"{plain.stat().st_size / path.stat().st_size:.1f} times smaller than `{plain.name}` (float16).", "",
        "| PSNR (dB) | float32 | int8 | difference |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, value in metrics["psnr"].items():
        before = metrics["psnr_fp32"][name]
        lines.append(f"| {name} | {before:.3f} | {value:.3f} | {value - before:+.3f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    given = parser.parse_args()
    val = find_data(given.data) / "val"
    plain, small = load_model(given.model), load_model(given.weights)
    psnr, psnr_fp32 = (
        {k: round(v, 3) for k, v in figures(m.network, val, given.cache).items()} for m in (small, plain)
    )
    loss = max(psnr_fp32[name] - psnr[name] for name in psnr)
    card = replace(
        small.card, name=f"{given.model}{INT8}", version=plain.card.version,
        metrics={"psnr": psnr, "psnr_fp32": psnr_fp32, "int8_loss_db": round(loss, 3)},
    )  # fmt: skip
    version = find_model(given.model).stem.rpartition("-")[2]
    path = FOLDER.parent / "models" / f"{card.name}-{version}.safetensors"
    save_model(small.network, card, path)
    shipped = {name: find_model(f"{name}{INT8}") for name in list_models() if load_model(name).int8}
    tables = [table(load_model(path), path, find_model(name)) for name, path in shipped.items()]
    (FOLDER / "int8.md").write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
