"""Training of all tiers on one GPU, within minutes, from the weights that there are; what ``train_gpu.sh`` runs.

Each tier has a share of the time: single frames at a constant rate, then clips (both ways and forwards mixed, with
single frames among them), whose rate falls to zero at the end; ``--constant`` leaves that out, for weights from which
training goes on. Weights and the log are in the output folder from the first checkpoint on, so that a run that is cut
off loses minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vidnoise.errors import VidnoiseError
from vidnoise.training.codec_pool import ENCODED_FILE, open_pool
from vidnoise.training.config import Stage, TrainConfig, load_config
from vidnoise.training.data import ClipPack, Folders
from vidnoise.training.loop import Trainer, describe

log = logging.getLogger("train_gpu")

SHARES = {"fast": 0.2, "standard": 0.35, "quality": 0.45}
"""Of the time, by tier."""
SIZES = {"fast": (256, 48), "standard": (256, 32), "quality": (128, 16)}
"""Single frames and clips a step; halved as often as the memory demands."""
FRAMES, STILL_PATCH, CLIP_PATCH = 8, 96, 112
MARGIN = 0.93
"""Of a tier's time, for steps; the rest goes to checkpoints and validation."""


def stages(tier: str, minutes: float, options: argparse.Namespace, halvings: int) -> tuple[Stage, ...]:
    """Single frames, then clips, of so many minutes of steps in all."""
    stills, clips = (max(1, size >> halvings) for size in ((4, 2) if options.dry_run else SIZES[tier]))
    frames, still_patch, clip_patch = (3, 32, 32) if options.dry_run else (FRAMES, STILL_PATCH, CLIP_PATCH)
    ending: dict[str, Any] = {"schedule": "constant"} if options.constant else {"decay": options.decay}

    def length(share: float) -> dict[str, Any]:
        return {"steps": 4} if options.dry_run else {"minutes": minutes * share}

    first = Stage(
        "single frames", stills, 1, still_patch,
        schedule="constant", warmup_steps=100, muon_lr=0.009, **length(options.stills),
    )  # fmt: skip
    second = Stage(
        "clips", clips, frames, clip_patch, warmup_steps=100, muon_lr=0.008, adam_lr=8e-4,
        still_share=0.25, still_batch=stills, still_patch=still_patch, **length(1 - options.stills), **ending,
    )  # fmt: skip
    shares = (first, options.stills), (second, 1 - options.stills)
    return tuple(stage for stage, share in shares if share > 0)


def configuration(tier: str, minutes: float, options: argparse.Namespace, halvings: int) -> TrainConfig:
    """The tier's own recipe, with the stages of this programme."""
    return replace(
        load_config(tier), stages=stages(tier, minutes, options, halvings), model={},
        initial=options.initial.get(tier, tier),
    )  # fmt: skip


class Programme:
    """The tiers one after the other."""

    def __init__(self, options: argparse.Namespace, data: Path, work: Path) -> None:
        self.options, self.data, self.work = options, data, work
        self.begun = time.monotonic()
        self.output: Path = options.output
        self.output.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        """Minutes."""
        return self.options.minutes - (time.monotonic() - self.begun) / 60

    def run(self) -> None:
        tiers = self.options.tiers
        folders, cache = Folders.below(self.data), self.work / "cache"
        for tier in tiers:  # decoded now, so that the time that is left is for training
            open_pool(ClipPack(folders.train, cache), folders, cache, configuration(tier, 1, self.options, 0))
        log.info("data is ready after %.0f s", time.monotonic() - self.begun)
        for i, tier in enumerate(tiers):
            share = SHARES[tier] / sum(SHARES[t] for t in tiers[i:])
            self.train(tier, self.left * share)

    def train(self, tier: str, minutes: float) -> None:
        """One tier; with smaller batches where the memory is too small for large ones."""
        for halvings in range(6):
            until = time.monotonic() + 60 * minutes
            settings = configuration(tier, MARGIN * minutes, self.options, halvings)
            try:
                trainer = Trainer(
                    settings, Folders.below(self.data), self.work / tier, device=self.options.device,
                    cache=self.work / "cache", where="device",
                )  # fmt: skip
                trainer.minutes = None if self.options.dry_run else max(0.01, (until - time.monotonic()) / 60)
                self.fit(trainer)
            except torch.OutOfMemoryError:
                log.warning("%s: out of memory; batches half as large", tier)
                torch.cuda.empty_cache()
                minutes = (until - time.monotonic()) / 60
            else:
                return

    def fit(self, trainer: Trainer) -> None:
        log.info("%s%s", describe(trainer), f", for {trainer.minutes:.1f} minutes" if trainer.minutes else "")
        if self.options.compile:
            torch._dynamo.config.suppress_errors = True  # what it cannot compile runs as it is
            trainer.network.core.compile()
        trainer.fit(
            every=sys.maxsize,
            every_seconds=60 * self.options.checkpoint_minutes,
            on_log=lambda row, progress: self.log(trainer, row, progress),
        )
        self.keep(trainer)

    def log(self, trainer: Trainer, row: dict[str, float | str], progress: float) -> None:
        stage = trainer.stage
        pixels = stage.clip.pixels + stage.still_share * (stage.still.pixels - stage.clip.pixels)
        pace = pixels * trainer.step / max(1e-9, trainer.seconds) / 1e6
        scores = "  ".join(f"{k[4:]}: {v:.2f}" for k, v in row.items() if k.startswith("psnr"))
        log.info(
            f"{trainer.config.tier} {row['stage']} {progress:4.0%}  step {row['step']}  loss {row['loss']:.4f}  "
            f"{pace:.2f} Mpixel/s  {scores}"
        )
        self.keep(trainer)

    def keep(self, trainer: Trainer) -> None:
        """Copy weights to the output folder, and all logs as one."""
        for path in trainer.run.glob("*.safetensors"):
            part = self.output / f"{path.name}.part"
            shutil.copyfile(path, part)
            part.replace(self.output / path.name)
        rows = []
        for path in sorted(self.work.glob("*/log.csv")):
            with path.open(newline="") as file:
                rows += [{"tier": path.parent.name, **row} for row in csv.DictReader(file)]
        with (self.output / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)


def make_clips(folder: Path) -> None:
    """Footage of a sort, for a dry run without data: two clips to train with, a photo, a clip to validate with, and
    what stands for encoded clips."""
    rng = np.random.default_rng(0)

    def write(path: Path, frames: list[np.ndarray]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 25, frames[0].shape[1::-1])
        for frame in frames:
            writer.write(np.ascontiguousarray(frame))
        writer.release()

    for name in ("train/a.avi", "train/b.avi", "val/c.avi"):
        scene = cv2.resize(rng.integers(0, 256, (20, 40, 3), np.uint8), (400, 200), interpolation=cv2.INTER_CUBIC)
        write(folder / name, [scene[:, 2 * t : 2 * t + 200] for t in range(4)])
    cv2.imwrite(str(folder / "train" / "photo.png"), scene)
    shape = [2, 2, 3, 32, 32, 3]
    pairs = np.broadcast_to(scene[:32, :32], shape) // 2 + rng.integers(0, 40, shape, np.uint8)
    write(folder / ENCODED_FILE, list(pairs.reshape(-1, *shape[3:])))
    (folder / ENCODED_FILE).with_suffix(".json").write_text(json.dumps({"shape": shape, "clips": [{}, {}]}))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="as `vidnoise train` wants it; `vidnoise train NAME --pack` cuts it down"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/train-gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.7, help="for all of it")
    parser.add_argument("--checkpoint-minutes", type=float, default=2.0)
    parser.add_argument("--tiers", default="fast,standard,quality", help="in this order")
    parser.add_argument("--stills", type=float, default=0.4, help="share of the steps' time for single frames")
    parser.add_argument("--decay", type=float, default=0.4, help="share of the clips' time over which the rate falls")
    parser.add_argument("--constant", action="store_true", help="no decay: the raw weights are to be gone on from")
    parser.add_argument("--initial", action="append", default=[], metavar="TIER=FILE", help="in place of our weights")
    parser.add_argument("--compile", action="store_true", help="compile the spatial core, which takes a minute a tier")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny batches, half a minute in all, on clips made for it"
    )
    options = parser.parse_args(arguments)
    options.tiers = options.tiers.split(",")
    options.initial = dict(pair.split("=", 1) for pair in options.initial)
    if unknown := {*options.tiers, *options.initial} - SHARES.keys():
        parser.error(f"unknown tier {min(unknown)!r}; there are {', '.join(SHARES)}")
    if not options.data and not options.dry_run:
        parser.error("--data is needed, but for a --dry-run")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if options.device.startswith("cuda"):
        if not torch.cuda.is_available():
            log.error("no CUDA device; --dry-run --device cpu tries the programme without one")
            return 7
        # cuDNN does not choose by trial: how many clips get which noise changes from batch to batch, and so do shapes.
        torch.set_float32_matmul_precision("high")
    with tempfile.TemporaryDirectory(prefix="vidnoise-train-") as work:
        data = options.data
        if not data:
            make_clips(data := Path(work) / "data")
        try:
            Programme(options, data, Path(work)).run()
        except VidnoiseError as ex:
            log.error("error: %s", ex)
            return ex.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
