"""What each choice in the network and its training is worth: short runs that differ from a base in one thing.

    python benchmarks/ablations.py --data DIR [--only NAME,...] [--steps N] [--runs DIR] [-o FILE.json]

Runs are single-threaded, one after the other, with as many steps as the base of their group and the same clips. Each
result is written as it is there; a stopped run goes on from its checkpoint. FILE.md beside it has the tables. After a
change to the network or the recipe, delete FILE.json and the runs: old and new rows do not compare.

A variant that needs another network than `ModelConfig` can describe (no flow, no fusion) replaces a forward method
here, so that the product has no switch for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidnoise.evaluation.clips import find_data
from vidnoise.evaluation.cost import kilo_macs
from vidnoise.evaluation.metrics import psnr, temporal_error
from vidnoise.evaluation.protocol import Method, centre_crops, network_method, noisy_clip
from vidnoise.model import TIERS, DenoiseNetwork, ModelConfig
from vidnoise.model.flow import Motion
from vidnoise.model.fusion import Filtered
from vidnoise.model.luma_chroma import per_channel
from vidnoise.model.wavelet import per_band
from vidnoise.training.config import Stage, TrainConfig, load_config
from vidnoise.training.data import Folders
from vidnoise.training.loop import Trainer

SIGMAS = (10, 30, 50)
"""Noise levels of the validation, 8-bit units."""
CROP, N_FRAMES = 192, 10
"""Validation looks at the centre of the first frames."""


def without_flow(network: DenoiseNetwork) -> None:
    """All flows are zero."""
    estimate = network.estimate_motion

    def still(*arguments: Any) -> Motion:
        motion = estimate(*arguments)
        return motion._replace(flow=torch.zeros_like(motion.flow))

    network.estimate_motion = still


def without_fusion(network: DenoiseNetwork) -> None:
    """The gain is 1: the fused frame is the noisy one. The past comes in by hidden features and previous output."""
    fuse = network.fusion.forward

    def forward(noisy: Tensor, *rest: Any) -> Filtered:
        with torch.no_grad():
            found = fuse(noisy, *rest)
        return found._replace(estimate=noisy, gain=torch.ones_like(found.gain))

    network.fusion.forward = forward  # type: ignore[method-assign]


def without_hidden(network: DenoiseNetwork) -> None:
    """The core ignores the hidden features."""
    network.core.recall.register_forward_hook(lambda _layer, _inputs, output: torch.zeros_like(output))


def with_one_gain(network: DenoiseNetwork) -> None:
    """Luma and chroma, low-pass and details get the mean of the four gains."""
    fuse = network.fusion.forward

    def forward(noisy: Tensor, fused: Tensor, *rest: Any) -> Filtered:
        found = fuse(noisy, fused, *rest)
        gain = found.gain.mean(1, keepdim=True).expand_as(found.gain)
        return found._replace(estimate=fused + per_band(per_channel(gain)) * (noisy - fused), gain=gain)

    network.fusion.forward = forward  # type: ignore[method-assign]


def separable(blocks: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Model settings of a separable core that costs what the tier's costs, by being as much wider as it takes."""
    tier = TIERS[TIER]
    limit = kilo_macs(tier, frame_wise=True)
    found: dict[str, Any] = {}
    for percent in range(100, 400, 5):
        widths = tuple(2 * round(w * percent / 200) for w in tier.widths)
        settings = {"separable": True, "widths": widths, "blocks": blocks or tier.blocks}
        if kilo_macs(replace(tier, **settings), frame_wise=True) > limit:
            break
        found = settings
    return {"model": found}


def sized(blocks: tuple[int, ...], widths: tuple[int, ...], separable: bool = False) -> dict[str, Any]:
    """Model settings of a core of another size."""
    return {"model": {"blocks": blocks, "widths": widths, "separable": separable}}


@dataclass(frozen=True)
class Variant:
    """The base of its group, but for what is given here."""

    name: str
    what: str
    """May quote the network's settings: ``{widths}``."""
    config: dict[str, Any] = field(default_factory=dict)
    """Settings of the :class:`TrainConfig`."""
    stage: dict[str, Any] = field(default_factory=dict)
    """Settings of the :class:`Stage`."""
    change: Callable[[DenoiseNetwork], None] | None = None
    """Done to every network that is built."""
    lookahead: int = 0
    """Not trained: the base, each frame waiting for so many after it."""


@dataclass(frozen=True)
class Group:
    """Variants that are compared with the first of them."""

    title: str
    stage: Stage
    frame_wise: bool
    """Validated frame by frame, as the spatial core alone, and its cost counted so."""
    variants: tuple[Variant, ...]
    initial: str | None = None
    """Group whose base is what training starts from."""


BASE = "base"
TIER, RECIPE = "fast", "fast"
"""What is varied: a tier, and the shipped configuration that has all settings but the stages and the loss."""

LOSS: dict[str, Any] = {"loss": "charbonnier", "sigma_power": -0.5, "fused_weight": 0.15}
"""The loss of the base; the shipped configurations are for models that have been trained for long."""

GROUPS = {
    "spatial": Group(
        "Spatial core: single frames, no past",
        Stage("spatial", batch=12, frames=1, patch=64, steps=1000),
        True,
        (
            Variant(BASE, "the `fast` core as it is: Haar, Muon, Charbonnier, loss weighted by sigma^-0.5, EMA"),
            Variant("seed", "the same with another seed: what chance is worth", {"seed": 2}),
            Variant("adamw-4e-3", "AdamW, rate 4e-3", {"optimizer": "adamw"}, {"adam_lr": 4e-3}),
            Variant("separable-wide", "depthwise-separable blocks, widths {widths}", separable()),
            Variant("separable-deep", "the same, blocks {blocks}, widths {widths}", separable((2, 4, 2))),
            Variant("branches", "re-parameterised blocks, folded for the result", {"reparameterise": True}),
            Variant("sigma-power-0", "loss not weighted by sigma", {"sigma_power": 0.0}),
            Variant("l1-ssim", "0.84 L1 + 0.16 (1 - SSIM) for Charbonnier", {"loss": "l1_ssim"}),
            Variant(
                "psnr", "the logarithm of the mean square error for Charbonnier", {"loss": "psnr", "sigma_power": 0.0}
            ),
        ),
    ),
    "ladder": Group(
        "Ladder of the spatial core: single frames, equal steps",
        Stage("ladder", batch=12, frames=1, patch=64, steps=600),
        True,
        (
            Variant(BASE, "`fast`: blocks 1/2/1, widths 16/32"),
            Variant(
                "small-3",
                "a third scale, at 1/8: blocks {blocks}, widths {widths}",
                sized((0, 1, 2, 1, 1), (16, 32, 64)),
            ),
            Variant("wide", "blocks {blocks}, widths {widths}", sized((1, 2, 1), (24, 48))),
            Variant("standard", "`standard`: blocks {blocks}, widths {widths}", sized((1, 2, 1), (32, 64))),
            Variant("fine", "most at 1/2: blocks {blocks}, widths {widths}", sized((2, 1, 2), (32, 40))),
            Variant("coarse", "most at 1/4: blocks {blocks}, widths {widths}", sized((0, 3, 1), (32, 64))),
            Variant("even-3", "a third scale: blocks {blocks}, widths {widths}", sized((1, 1, 1, 1, 1), (32, 56, 80))),
            Variant("coarse-3", "most at 1/8: blocks {blocks}, widths {widths}", sized((0, 1, 3, 1, 1), (32, 60, 80))),
            Variant("deep", "deeper, narrower: blocks {blocks}, widths {widths}", sized((2, 4, 2), (24, 48))),
            Variant(
                "separable",
                "depthwise-separable: blocks {blocks}, widths {widths}",
                sized((3, 6, 3), (48, 96), separable=True),
            ),
            Variant("quality", "`quality`: blocks {blocks}, widths {widths}", sized((1, 2, 1), (64, 128))),
        ),
    ),
    "recurrent": Group(
        "Recurrence: clips; core from the spatial base, fusion from the shipped model",
        Stage("recurrent", batch=2, frames=5, patch=96, steps=400),
        False,
        (
            Variant(BASE, "5 frames, both ways in most steps; causal"),
            Variant("seed", "the same with another seed: what chance is worth", {"seed": 2}),
            Variant("no-flow", "flow zero", change=without_flow),
            Variant("no-fusion", "gain 1: hidden features and the previous output only", change=without_fusion),
            Variant("one-gain", "one gain for luma and chroma, low-pass and details", change=with_one_gain),
            Variant("no-hidden", "no hidden features: the previous output only", change=without_hidden),
            Variant("temporal-loss", "loss on the change from frame to frame, weight 0.2", {"temporal_weight": 0.2}),
            Variant("10-frames", "clips of 10 frames, one a step for two", {}, {"frames": 10, "batch": 1}),
            Variant("fusion-wide", "fusion of width 16", {"model": {"fusion_width": 16}}),
            Variant("distilled", "learns also from `standard`", {"teacher": "standard", "teacher_weight": 0.5}),
            Variant("of-quality", "learns also from `quality`", {"teacher": "quality", "teacher_weight": 0.5}),
            Variant("lookahead-2", "each frame waits for up to two after it", lookahead=2),
            Variant("lookahead-8", "each frame waits for up to eight after it", lookahead=8),
            Variant("causal", "trained on the past alone", {"both_ways": 0.0}),
            Variant("from-scratch", "no spatial training before", {"initial": None}),
        ),
        initial="spatial",
    ),
}


class VariantTrainer(Trainer):
    """A trainer whose networks are changed as the variant says."""

    def __init__(self, variant: Variant, *args: Any, **kwargs: Any) -> None:
        self.variant = variant
        super().__init__(*args, **kwargs)

    def build(self, config: ModelConfig) -> DenoiseNetwork:
        network = super().build(config)
        if self.variant.change:
            self.variant.change(network)
        return network


def validate(method: Method, clips: list[tuple[str, Tensor]]) -> dict[str, Any]:
    """PSNR in dB by sigma, mean over frames, then over clips; and flicker at sigma 30, 8-bit units."""
    scores, flicker = {}, 0.0
    for sigma in SIGMAS:
        outputs = [(method(noisy_clip(n, c, sigma), sigma / 255).clamp(0, 1), c) for n, c in clips]
        scores[str(sigma)] = round(sum(psnr(out, c).mean().item() for out, c in outputs) / len(outputs), 3)
        if sigma == 30:
            flicker = sum(temporal_error(out, c) for out, c in outputs) / len(outputs)
    return {"psnr": scores, "flicker": round(flicker, 3)}


@dataclass(frozen=True)
class Bench:
    """Where everything lies, and how long to train."""

    data: Path
    runs: Path
    cache: Path
    results: Path
    steps: int | None

    def stage(self, group: Group, variant: Variant) -> Stage:
        changes = variant.stage | ({"steps": self.steps} if self.steps else {})
        return replace(group.stage, **changes)

    def folder(self, key: str, variant: Variant) -> Path:
        """Of a run; another number of steps is another run."""
        name = BASE if variant.lookahead else variant.name
        return self.runs / f"{key}-{name}-{self.stage(GROUPS[key], variant).steps}"

    def base(self, key: str) -> str:
        """Weights of a group's base."""
        return str(self.folder(key, GROUPS[key].variants[0]) / "model.safetensors")

    def config(self, key: str, variant: Variant) -> TrainConfig:
        """How a variant is trained."""
        group = GROUPS[key]
        initial = None
        if group.initial:
            initial = {"core": self.base(group.initial), "fusion": RECIPE}
        settings: dict[str, Any] = {"name": "model", "initial": initial, "stages": (self.stage(group, variant),)}
        settings |= LOSS
        return replace(load_config(RECIPE), **settings | variant.config)

    def differs(self, key: str, variant: Variant) -> bool:
        """Whether a variant is another thing than the base: the recipe may already be without what it leaves out."""
        base = GROUPS[key].variants[0]
        changed = variant.change or variant.lookahead
        return variant is base or bool(changed) or self.config(key, variant) != self.config(key, base)

    def train(self, key: str, variant: Variant, clips: list[tuple[str, Tensor]]) -> dict[str, Any]:
        """Train (or go on with) one variant; returns its row of the results."""
        group, config = GROUPS[key], self.config(key, variant)
        folders = Folders(self.data / "train", None)
        trainer = VariantTrainer(variant, config, folders, self.folder(key, variant), cache=self.cache)
        trainer.fit(every=100)
        network = trainer.averaged().place("cpu").eval()
        method = network_method(network, frame_wise=group.frame_wise, lookahead=variant.lookahead)
        sizes = {k: "/".join(map(str, v)) for k, v in network.config.to_dict().items() if isinstance(v, tuple)}
        return {
            "what": variant.what.format(**sizes),
            "steps": config.stages[0].steps, "minutes": round(trainer.total_seconds / 60, 2),
            "kmac": round(kilo_macs(network.config, frame_wise=group.frame_wise, both_ways=variant.lookahead > 0), 2),
            **validate(method, clips),
        }  # fmt: skip

    def load(self) -> dict[str, dict[str, Any]]:
        return json.loads(self.results.read_text()) if self.results.is_file() else {}

    def save(self, results: dict[str, dict[str, Any]]) -> None:
        self.results.write_text(json.dumps(results, indent=1) + "\n")
        self.results.with_suffix(".md").write_text(tables(results))


def tables(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        f"PSNR in dB on the validation clips (centre {CROP}×{CROP}, first {N_FRAMES} frames), base → variant, after",
        "short runs of equal steps on one core: what a choice is worth early on, not what a trained model has. The row",
        "with another seed says which differences are chance. kMAC/px: thousand multiply-adds a pixel. Flicker: mean",
        "absolute error of the change from frame to frame at sigma 30, 8-bit units.",
    ]
    for key, group in GROUPS.items():
        rows = results.get(key, {})
        if BASE not in rows:
            continue
        base = rows[BASE]
        lines += ["", f"**{group.title}**", ""]
        lines += [
            "| changed | kMAC/px | steps | minutes | "
            + " | ".join(f"sigma {s}" for s in SIGMAS)
            + " | mean | flicker |"
        ]
        lines += ["|---" * (6 + len(SIGMAS)) + "|"]
        for variant in group.variants:
            row = rows.get(variant.name)
            if row is None or row["steps"] != base["steps"]:
                continue
            pairs = [(base["psnr"][str(s)], row["psnr"][str(s)]) for s in SIGMAS]
            cells = [f"{b:.2f}" if row is base else f"{b:.2f} → {v:.2f}" for b, v in pairs]
            mean = "" if row is base else f"{sum(v - b for b, v in pairs) / len(pairs):+.2f}"
            lines.append(
                f"| {row['what']} | {row['kmac']:.1f} | {row['steps']:,} | {row['minutes']:.1f} "
                f"| {' | '.join(cells)} | {mean} | {row['flicker']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with train/ and val/ (or set VIDNOISE_DATA)")
    parser.add_argument("--only", default="", metavar="NAME,...", help="groups, or variants as group/name")
    parser.add_argument("--steps", type=int, help="for every run, to try out")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(find_data(options.data), options.runs, options.cache, options.output, options.steps)
    names = {f"{key}/{variant.name}" for key, group in GROUPS.items() for variant in group.variants}
    only = set(filter(None, options.only.split(",")))
    if unknown := only - names - set(GROUPS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
    clips = centre_crops(bench.data / "val", N_FRAMES, CROP)
    for key, group in GROUPS.items():
        for variant in group.variants:
            # A base is needed by all that is compared with it, or starts from it.
            if only and variant.name != BASE and not only & {key, f"{key}/{variant.name}"}:
                continue
            if not bench.differs(key, variant):
                sys.stdout.write(f"{key}/{variant.name}: as the base\n")
                continue
            results = bench.load()
            done = results.get(key, {}).get(variant.name)
            if done is None or done["steps"] != bench.stage(group, variant).steps:
                results.setdefault(key, {})[variant.name] = done = bench.train(key, variant, clips)
                bench.save(results)
            scores = "/".join(f"{v:.2f}" for v in done["psnr"].values())
            sys.stdout.write(f"{key}/{variant.name}: {scores} dB, {done['minutes']} min\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
