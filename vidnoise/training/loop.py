"""The training loop: stages, schedules, checkpoints, validation and logs."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidnoise.errors import DeviceError, UsageError
from vidnoise.evaluation.protocol import quick_validation
from vidnoise.kernels.convolution import TrainableOperations
from vidnoise.model import DenoiseNetwork, ModelConfig
from vidnoise.training.activity import dead_layers
from vidnoise.training.batch import Batch, BatchMaker
from vidnoise.training.calibration import calibration_batches, quantise
from vidnoise.training.codec_pool import open_pool
from vidnoise.training.config import Stage, TrainConfig
from vidnoise.training.data import ClipPack, Folders
from vidnoise.training.distillation import Teacher
from vidnoise.training.initial import starting_network
from vidnoise.training.legs import record
from vidnoise.training.log import append
from vidnoise.training.objectives import clip_loss, estimator_loss, look, still_loss
from vidnoise.training.optimizers import make_optimizers
from vidnoise.training.parallel import Ranks
from vidnoise.training.precision import Precision
from vidnoise.training.reparameterise import branch, fold
from vidnoise.weights import ModelCard, save_model

SPIKE = 6.0
"""Steps whose gradient norm exceeds the usual one by this factor are skipped."""
VALIDATION = 0.05
"""Maximum time of validation, as a share of that of the steps: checkpoints that would exceed it are not validated,
except the first one and the last of a stage."""

logger = logging.getLogger(__name__)


class Trainer:
    """A training run, kept in a folder.

    The folder has ``checkpoint.pt``, ``log.csv``, ``progress.png``, the averaged weights ``<name>.safetensors`` and the
    current ones, ``<name>-raw.safetensors``, from which another run may continue.

    Args:
        config: Model and training settings.
        data: A folder (see :meth:`Folders.below`), or the folders themselves.
        run: Folder of the run. Resumes from a checkpoint found there.
        device: ``cpu``, ``cuda`` or ``mps``; overridden by that of ``ranks``, if given.
        cache: Folder where decoded clips are kept.
        minutes: Pause the run after this time.
        where: Device on which batches are made: ``cpu``, ``device`` or ``auto``
            (:func:`~vidnoise.training.pixels.render_on`).
        ranks: This process among those that train together (:func:`~vidnoise.training.parallel.processes`).
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Path | Folders,
        run: Path,
        *,
        device: str = "cpu",
        cache: Path = Path("cache"),
        minutes: float | None = None,
        where: str = "auto",
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.run, self.minutes = config, run, minutes
        self.stage_index = 0
        self.folders = data if isinstance(data, Folders) else Folders.below(data)
        self.ranks = ranks or Ranks(device=torch.device(device))
        self.device = self.ranks.device
        self.precision = Precision(config.precision, self.device)
        run.mkdir(parents=True, exist_ok=True)
        with self.ranks.first_alone():
            pack = ClipPack(self.folders.train, cache)
            pool = open_pool(pack, self.folders, cache, config)
        seed = config.seed + 1000 * self.ranks.rank  # clips and noise differ between processes, initial weights do not
        self.batches = BatchMaker(config, pack, pool, where=where, device=self.device, seed=seed)
        torch.manual_seed(config.seed)
        self.network, self.earlier = starting_network(config, self.build)
        if config.reparameterise:
            branch(self.network)
        if config.int8:
            # The same batches in every process. A resumed run restores the ranges of the first one.
            again = self.checkpoint.is_file()
            batches = BatchMaker(config, pack, pool, where=where, device=self.device, seed=config.seed)
            quantise(self.network, () if again else calibration_batches(batches, self.stage))
        self.network.place(self.device).requires_grad_(True).train()
        self.network.operations = TrainableOperations()
        self.teacher = Teacher.of(config, self.device)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self._latest: Batch | None = None
        self._dead: set[str] = set()  # layers that have been warned of
        self.step = 0
        self.seconds = 0.0  # time spent in the current stage
        self.total_seconds = 0.0
        self.total_steps = 0
        self.overhead = 1.0  # elapsed time relative to the time spent on steps
        self._start_stage()
        if self.checkpoint.is_file():
            self._restore()

    def build(self, config: ModelConfig) -> DenoiseNetwork:
        """Build a network of the kind to train; experiments override this."""
        return DenoiseNetwork(config)

    def averaged(self) -> DenoiseNetwork:
        """Return a plain network with the averaged weights, which are validated and released."""
        return self._plain(self.average)

    def _plain(self, weights: dict[str, Tensor]) -> DenoiseNetwork:
        network = self.build(self.network.config)
        network.load_state_dict(fold(weights))
        return network

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoint.pt"

    @property
    def stage(self) -> Stage:
        return self.config.stages[self.stage_index]

    @property
    def progress(self) -> float:
        """Completed share of the current stage."""
        if self.stage.minutes is not None:
            return self.seconds / (60 * self.stage.minutes)
        return self.step / (self.stage.steps or 1)

    @property
    def remaining_seconds(self) -> float:
        """Estimate the time to the end of the last stage, assuming that a step's time is proportional to its pixels."""

        def work(stage: Stage) -> float:
            return stage.clip.pixels + stage.still_share * (stage.still.pixels - stage.clip.pixels)

        pace = self.seconds / max(1, self.step * work(self.stage))
        left = -self.seconds if self.stage.minutes is not None else -self.step * work(self.stage) * pace
        for stage in self.config.stages[self.stage_index :]:
            left += 60 * stage.minutes if stage.minutes is not None else (stage.steps or 1) * work(stage) * pace
        return max(0.0, left) * self.overhead

    def _start_stage(self) -> None:
        stage, config = self.stage, self.config
        for name, module in self.network.named_children():
            module.requires_grad_(stage.part in ("all", name))
        self.optimizers = make_optimizers(
            self.network, stage.muon_lr, stage.adam_lr, kind=config.optimizer, weight_decay=config.weight_decay
        )
        self.rates = (stage.adam_lr,) if config.optimizer == "adamw" else (stage.muon_lr, stage.adam_lr)
        self.step, self.seconds = 0, 0.0
        self.usual_norms = [0.0, 0.0]  # for steps on clips, and for those on single frames

    def _save(self) -> None:
        mine = {"batches": self.batches.state(), "torch_rng": torch.get_rng_state()}
        checksum = sum(p.double().sum().item() for p in self.network.parameters())
        everyone = self.ranks.gather((mine, checksum))
        if len({c for _, c in everyone}) > 1:
            raise DeviceError("the processes' weights have drifted apart: they must run on devices of one kind")
        if self.ranks.rank:
            return
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "config": self.config.to_dict(), "network": self.network.state_dict(), "average": self.average,
                "optimizers": [o.state_dict() for o in self.optimizers], "scaler": self.precision.scaler.state_dict(),
                "position": [self.stage_index, self.step, self.seconds, self.total_seconds, self.total_steps],
                "usual_norms": self.usual_norms, "earlier": self.earlier,
                "ranks": [state for state, _ in everyone],
            },
            part,
        )  # fmt: skip
        os.replace(part, self.checkpoint)
        self.export(self.run / f"{self.config.name}.safetensors")
        self._write(self._plain(self.network.state_dict()), self.run / f"{self.config.name}-raw.safetensors")

    def _restore(self) -> None:
        try:
            self._take(torch.load(self.checkpoint, map_location="cpu", weights_only=True))
        except UsageError:
            raise
        except Exception as ex:  # a file that _save did not write may fail in any way
            reason = " ".join(str(ex).split())[:200] or type(ex).__name__
            raise UsageError(f"{self.checkpoint}: cannot be resumed: {reason}; move it away to begin anew") from ex

    def _take(self, saved: Any) -> None:
        """Restore the state at the call of :meth:`_save`."""
        if "position" in saved and "earlier" not in saved:
            weights = self.run / f"{self.config.name}.safetensors"
            raise UsageError(f"{self.checkpoint} is from an older version: continue in another folder, from {weights}")
        self.stage_index, *position = saved["position"]
        if not all(isinstance(n, (int, float)) and 0 <= n < math.inf for n in saved["position"]):
            raise ValueError("its position is invalid")
        self._start_stage()
        self.step, self.seconds, self.total_seconds, self.total_steps = position
        self.usual_norms, self.earlier = saved["usual_norms"], saved["earlier"]
        self.network.load_state_dict(saved["network"])
        self.average = {k: v.to(self.device) for k, v in saved["average"].items()}
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if saved["scaler"]:
            self.precision.scaler.load_state_dict(saved["scaler"])
        everyone = saved["ranks"]
        if len(everyone) != self.ranks.count:
            logger.warning("resumed with %d processes, was saved by %d", self.ranks.count, len(everyone))
        if self.ranks.rank < len(everyone):
            self.batches.restore(everyone[self.ranks.rank]["batches"])
            torch.set_rng_state(everyone[self.ranks.rank]["torch_rng"])
        logger.info("resumed at stage %s, step %d", self.stage.name, self.step)

    def export(self, path: Path) -> None:
        """Write the averaged weights and their card."""
        self._write(self.averaged(), path)

    def _write(self, network: DenoiseNetwork, path: Path) -> None:
        cpu = self.device.type == "cpu"
        leg = {
            "name": self.config.name, "steps": self.total_steps, "hours": round(self.total_seconds / 3600, 3),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "units": self.ranks.count * (torch.get_num_threads() if cpu else 1),
        }  # fmt: skip
        training = {**self.config.to_dict(), **record([*self.earlier, leg])}
        card = ModelCard(self.config.name, self.config.tier, noise=", ".join(self.config.noise), training=training)
        save_model(network, card, path)

    def _backward(self, batch: Batch, blind: Tensor) -> dict[str, Tensor]:
        """Accumulate the gradients of one batch over its spans of ``bptt`` frames; return the parts of the loss."""
        if self.stage.part != "noise_level" and len(batch.clean) > 1:
            return self._backward_clips(batch, blind)
        with self.precision.autocast():
            if self.stage.part == "noise_level":
                loss, parts = estimator_loss(self.network, batch, self.config)
            else:
                loss, parts = still_loss(self.network, batch, self.config)
        self.precision.scaler.scale(loss).backward()
        return {"loss": loss.detach(), **parts}

    def _backward_clips(self, batch: Batch, blind: Tensor) -> dict[str, Tensor]:
        both_ways = self.batches.rng.random() < self.config.both_ways
        with self.precision.autocast():
            known = look(self.network, batch, blind, self.config, both_ways=both_ways)
        frames = len(batch.clean)
        state, sums = None, {}
        stretch = min(self.stage.bptt or frames, frames)
        for start in range(0, frames, stretch):
            span = range(start, min(start + stretch, frames))
            with self.precision.autocast():
                loss, parts, state = clip_loss(self.network, batch, known, self.config, span, state)
            # The graph of the lookahead over the whole clip is shared by all spans.
            self.precision.scaler.scale(loss).backward(retain_graph=span.stop < frames)
            state = state.detach()
            for key, value in {"loss": loss.detach(), **parts}.items():
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def train_step(self) -> dict[str, float]:
        """Take one optimiser step; return the parts of the loss, only ``still`` for a step on single frames."""
        stage = self.stage
        still = stage.is_still(self.step)
        shape = stage.still if still else stage.clip
        batch = self.batches.next(shape)
        blind = self.batches.blind(shape.clips)
        batch = batch.to(self.device)
        with self.precision.autocast():
            batch = self.teacher.teach(batch) if self.teacher else batch
        factor = stage.rate(self.progress, self.step)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.zero_grad(set_to_none=True)
        self._latest = batch
        losses = self._backward(batch, blind.to(self.device))
        self.ranks.average_gradients(self.network.parameters())
        for optimizer in self.optimizers:
            self.precision.scaler.unscale_(optimizer)
        losses["norm"] = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        # All numbers are read at once, so that a step synchronises with a GPU only once.
        parts = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        norm = parts["norm"]
        # Muon gives every step the same length, so a spike would count as much as a good gradient: it is skipped.
        usual = self.usual_norms[still]
        if math.isfinite(norm) and (self.step < 20 or not usual or norm < SPIKE * usual):
            for optimizer in self.optimizers:
                optimizer.step()
            self.usual_norms[still] += 0.05 * (norm - usual) if usual else norm
        self.precision.scaler.update()
        self.step += 1
        self.total_steps += 1
        decay = min(self.config.ema, (1 + self.total_steps) / (10 + self.total_steps))
        averages, weights = list(self.average.values()), list(self.network.state_dict().values())
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        if still:
            parts = {"loss": parts["loss"], "norm": norm, "still": parts["clean"]}
        return {**parts, "lr": factor}

    def validate(self) -> dict[str, float]:
        """Return the PSNR of the averaged weights by sigma on part of the validation clips; empty without any."""
        if self.folders.val is None:
            return {}
        network = self.averaged().place(self.device).eval()
        dtype = torch.int8 if self.config.int8 else self.precision.dtype
        return quick_validation(network, self.folders.val, device=self.device, dtype=dtype)

    def warn_of_dead_layers(self) -> None:
        """Warn, once each, of layers of the core that are not active anywhere in the latest batch."""
        if self._latest is None:
            return
        for name in dead_layers(self.network, self._latest.noisy[0], self._latest.sigma[0]):
            if name not in self._dead:
                logger.warning(
                    "no channel of the core's %s is ever active: what lies behind it computes constants, and will not"
                    " learn", name,
                )  # fmt: skip
            self._dead.add(name)

    def fit(
        self,
        *,
        every: int = 250,
        every_seconds: float = math.inf,
        on_log: Callable[[dict[str, float | str], float], None] | None = None,
        on_step: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        """Train to the end of the last stage, or for ``minutes``.

        Checkpoints are saved every ``every`` steps and every ``every_seconds``. ``on_log`` gets each row of the log and
        the completed share of the stage, ``on_step`` the parts of the loss after each step; both in the first process
        only.
        """
        begun = time.monotonic()
        spent, validating, saved = 0.0, 0.0, 0.0
        sums: dict[str, float] = {}
        counts: Counter[str] = Counter()
        while True:
            if self.progress >= 1:  # also if a run was stopped just before its next stage
                if self.stage_index + 1 == len(self.config.stages):
                    return
                self.stage_index += 1
                self._start_stage()
            started = time.monotonic()
            parts = self.train_step()
            for key, value in parts.items():
                sums[key] = sums.get(key, 0.0) + value
            counts.update(parts.keys())
            elapsed, session = self.ranks.agree(time.monotonic() - started, time.monotonic() - begun)
            self.seconds += elapsed
            self.total_seconds += elapsed
            spent += elapsed
            out_of_time = self.minutes is not None and session > 60 * self.minutes
            if on_step and not self.ranks.rank:
                on_step(parts)
            due = counts["loss"] == every or session - saved >= every_seconds
            if due or self.progress >= 1 or out_of_time:
                self._save()
                self.warn_of_dead_layers()
                saved = session
                sums = self.ranks.mean(sums)
                if not self.ranks.rank:
                    row: dict[str, float | str] = {"stage": self.stage.name, "step": self.total_steps}
                    row |= {"hours": round(self.total_seconds / 3600, 4)}
                    row |= {k: round(v / counts[k], 6) for k, v in sums.items()}
                    if self.progress >= 1 or validating <= VALIDATION * spent:
                        started = time.monotonic()
                        row |= {f"psnr{k}": round(v, 3) for k, v in self.validate().items()}
                        validating += time.monotonic() - started
                    append(row, self.run / "log.csv")
                    self.overhead = (time.monotonic() - begun) / spent
                    if on_log:
                        on_log(row, self.progress)
                sums, counts = {}, Counter()
            if out_of_time:
                return


def describe(trainer: Trainer) -> str:
    """Describe a training run in one line."""
    parameters = sum(p.numel() for p in trainer.network.parameters())
    stages = ", ".join(json.dumps(s.name) for s in trainer.config.stages)
    text = f"{trainer.config.name}: {parameters / 1e6:.2f} M parameters, stages {stages}, on {trainer.device.type}"
    text += f" in {trainer.precision.name}" + (", rounded to int8" if trainer.config.int8 else "")
    if trainer.ranks.count > 1:
        text += f", {trainer.ranks.count} processes"
    return text if trainer.folders.val else f"{text}; no validation clips, so there will be no PSNR"
