"""The training loop: stages, schedules, checkpoints, validation, logs."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluation.protocol import quick_validation
from ..model import TIERS, DenoiseNetwork
from ..model.flow import resize_flow, sampling_grid, warp
from ..weights import ModelCard, load_model, save_model
from .batch import Batch, BatchMaker
from .config import Stage, TrainConfig
from .data import ClipPack, ClipSampler
from .losses import charbonnier, restoration
from .optimizers import make_optimizers

SPIKE = 6.0
"""Steps whose gradient is so many times its usual norm are skipped."""

logger = logging.getLogger(__name__)


def schedule(progress: float, warmup: float) -> float:
    """Learning-rate factor at ``progress`` in [0, 1]: linear warm-up, then cosine to zero."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def clip_loss(
    network: DenoiseNetwork, batch: Batch, blind: Tensor, config: TrainConfig
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch, back-propagated through all its frames.

    Args:
        network: in training mode.
        batch: see :class:`Batch`.
        blind: ``(N,)`` bool, the clips that get the estimated noise level.
        config: weights of the loss's parts.

    Returns:
        The scalar loss and its parts as numbers.
    """
    frames, n, _, height, width = batch.clean.shape
    weight = (batch.mean_sigma * 255 / 25).clamp(min=0.15) ** config.sigma_power
    if frames == 1:  # the spatial core alone, several times as fast as a first frame of a clip
        clean = network.still(batch.noisy[0], batch.sigma[0])
        loss = (weight * restoration(clean, batch.clean[0], config.loss)).mean()
        return loss, {"clean": loss.item(), "fused": 0.0, "flow": 0.0, "noise": 0.0}
    state = network.initial_state(n, height, width, device=batch.clean.device)
    parts = dict.fromkeys(("clean", "fused", "flow", "noise"), torch.zeros((), device=batch.clean.device))
    for t in range(frames):
        estimate = network.estimate_sigma(batch.noisy[t])
        parts["noise"] = parts["noise"] + (estimate.log() - batch.sigma[t].log()).abs().mean()
        sigma = torch.where(blind.view(-1, 1, 1, 1), estimate.detach(), batch.sigma[t])
        clean, state, trace = network.step(batch.noisy[t], sigma, state)
        parts["clean"] = parts["clean"] + (weight * restoration(clean, batch.clean[t], config.loss)).mean()
        if t:
            parts["fused"] = parts["fused"] + (weight * charbonnier(trace.fused - batch.clean[t])).mean()
            now, before = (F.avg_pool2d(batch.clean[i], 2) for i in (t, t - 1))
            coarse = (F.avg_pool2d(p, 2) for p in (now, before))
            for flow, (a, b) in ((trace.flow, (now, before)), (trace.coarse_flow, tuple(coarse))):
                photometric = charbonnier(warp(b, sampling_grid(flow)) - a)
                parts["flow"] = (
                    parts["flow"] + photometric.mean() + 1e-4 * resize_flow(flow, 0.5).diff(dim=-1).abs().mean()
                )
    loss = parts["clean"] / frames + config.noise_weight * parts["noise"] / frames
    loss = loss + (config.fused_weight * parts["fused"] + config.flow_weight * parts["flow"]) / (frames - 1)
    return loss, {k: v.item() / frames for k, v in parts.items()}


class Trainer:
    """One run in a folder: ``checkpoint.pt``, ``log.csv``, ``<name>.safetensors``, ``progress.png``."""

    def __init__(
        self,
        config: TrainConfig,
        data: Path,
        run: Path,
        *,
        device: str = "cpu",
        cache: Path = Path("cache"),
        minutes: float | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data, self.run = config, data, run
        self.device = torch.device(device)
        self.minutes = minutes
        run.mkdir(parents=True, exist_ok=True)
        pack = ClipPack(data / "train", cache)
        sampler = ClipSampler(pack, synthetic=config.synthetic, rng=np.random.default_rng(config.seed))
        self.batches = BatchMaker(sampler, config.noise, quantised=config.quantised, gray=config.gray, seed=config.seed)
        if config.initial:
            self.network = load_model(config.initial)[0]
        else:
            self.network = DenoiseNetwork(TIERS[config.tier])
        self.network.place(self.device).requires_grad_(True).train()
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.stage_index = 0
        self.step = 0
        self.seconds = 0.0  # of the current stage
        self.total_seconds = 0.0
        self.total_steps = 0
        self._start_stage()
        if self.checkpoint.is_file():
            self._restore()

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoint.pt"

    @property
    def stage(self) -> Stage:
        return self.config.stages[self.stage_index]

    @property
    def progress(self) -> float:
        """Share of the current stage that is done."""
        if self.stage.minutes is not None:
            return self.seconds / (60 * self.stage.minutes)
        return self.step / (self.stage.steps or 1)

    def _start_stage(self) -> None:
        self.optimizers = make_optimizers(self.network, self.stage.muon_lr, self.stage.adam_lr)
        self.step, self.seconds, self.usual_norm = 0, 0.0, 0.0

    def _save(self) -> None:
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "config": self.config.to_dict(), "network": self.network.state_dict(), "average": self.average,
                "optimizers": [o.state_dict() for o in self.optimizers], "batches": self.batches.state(),
                "position": [
                    self.stage_index, self.step, self.seconds, self.total_seconds, self.total_steps, self.usual_norm
                ],
                "torch_rng": torch.get_rng_state(),
            },
            part,
        )  # fmt: skip
        os.replace(part, self.checkpoint)
        self.export(self.run / f"{self.config.name}.safetensors")

    def _restore(self) -> None:
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.stage_index, *position = saved["position"]
        self._start_stage()
        self.step, self.seconds, self.total_seconds, self.total_steps, self.usual_norm = position
        self.network.load_state_dict(saved["network"])
        self.average = {k: v.to(self.device) for k, v in saved["average"].items()}
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.batches.restore(saved["batches"])
        torch.set_rng_state(saved["torch_rng"])
        logger.info("resumed at stage %s, step %d", self.stage.name, self.step)

    def export(self, path: Path, metrics: dict | None = None) -> None:
        """Write the averaged weights with their card."""
        network = DenoiseNetwork(self.network.config)
        network.load_state_dict(self.average)
        card = ModelCard(
            name=self.config.name, tier=self.config.tier, noise=", ".join(self.config.noise),
            training={**self.config.to_dict(), "steps": self.total_steps, "hours": round(self.total_seconds / 3600, 2)},
            metrics=metrics or {},
        )  # fmt: skip
        save_model(network, card, path)

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16)

    def train_step(self) -> dict[str, float]:
        """One optimiser step; returns the parts of the loss."""
        stage = self.stage
        batch = self.batches.make(stage.batch, stage.frames, stage.patch)
        blind = torch.rand(stage.batch, generator=self.batches.generator) < self.config.blind
        batch = Batch(*(t.to(self.device) for t in batch))
        factor = schedule(self.progress, stage.warmup)
        for optimizer, rate in zip(self.optimizers, (stage.muon_lr, stage.adam_lr), strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss, parts = clip_loss(self.network, batch, blind.to(self.device), self.config)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0).item()
        # Muon gives every step the same length, so one spike would count as much as a good gradient: it is left out.
        if math.isfinite(norm) and (self.step < 20 or norm < SPIKE * self.usual_norm):
            for optimizer in self.optimizers:
                optimizer.step()
            self.usual_norm += 0.05 * (norm - self.usual_norm) if self.step else norm
        self.step += 1
        self.total_steps += 1
        decay = min(self.config.ema, (1 + self.total_steps) / (10 + self.total_steps))
        for key, value in self.network.state_dict().items():
            self.average[key].lerp_(value.detach(), 1 - decay)
        return {"loss": loss.item(), "norm": norm, "lr": factor, **parts}

    def validate(self) -> dict[str, float]:
        """PSNR of the averaged weights on a part of the validation clips, by sigma."""
        network = DenoiseNetwork(self.network.config)
        network.load_state_dict(self.average)
        network.place(self.device).eval()
        with self._autocast():
            return quick_validation(network, self.data / "val", device=self.device)

    def _log(self, row: dict[str, float | str]) -> None:
        path = self.run / "log.csv"
        exists = path.is_file()
        with path.open("a", newline="") as out:
            writer = csv.DictWriter(out, list(row))
            if not exists:
                writer.writeheader()
            writer.writerow(row)

    def fit(self, *, every: int = 250, on_log: Callable[[dict[str, float | str], float], None] | None = None) -> None:
        """Train to the end of the last stage, or for ``minutes``; checkpoints every ``every`` steps.

        ``on_log`` gets each row of the log and the share of the stage that is done.
        """
        begun = time.monotonic()
        sums: dict[str, float] = {}
        count = 0
        while True:
            started = time.monotonic()
            for key, value in self.train_step().items():
                sums[key] = sums.get(key, 0.0) + value
            count += 1
            self.seconds += time.monotonic() - started
            self.total_seconds += time.monotonic() - started
            stage_done = self.progress >= 1
            out_of_time = self.minutes is not None and time.monotonic() - begun > 60 * self.minutes
            if count == every or stage_done or out_of_time:
                self._save()
                row: dict[str, float | str] = {"stage": self.stage.name, "step": self.total_steps}
                row |= {"hours": round(self.total_seconds / 3600, 4)}
                row |= {k: round(v / count, 6) for k, v in sums.items()}
                row |= {f"psnr{k}": round(v, 3) for k, v in self.validate().items()}
                self._log(row)
                if on_log:
                    on_log(row, self.progress)
                sums, count = {}, 0
            if stage_done:
                if self.stage_index + 1 == len(self.config.stages):
                    return
                self.stage_index += 1
                self._start_stage()
            if out_of_time:
                return


def describe(trainer: Trainer) -> str:
    """One line on what is about to be trained."""
    parameters = sum(p.numel() for p in trainer.network.parameters())
    stages = ", ".join(json.dumps(s.name) for s in trainer.config.stages)
    return f"{trainer.config.name}: {parameters / 1e6:.2f} M parameters, stages {stages}, on {trainer.device}"
