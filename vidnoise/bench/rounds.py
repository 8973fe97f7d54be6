"""The benchmark: all cases of one size are measured in rounds, with a few frames of each case in every round.

A machine is never completely idle. If cases were measured one after the other, varying load would distort the
comparison; in rounds it affects all of them alike, and the ceilings too.
"""

from __future__ import annotations

import datetime
import itertools
import math
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vidnoise import __version__
from vidnoise.backends.device import PRECISIONS
from vidnoise.bench.cases import Case, config_of
from vidnoise.bench.ceilings import Probe
from vidnoise.bench.filters import FilterCase, filter_clip
from vidnoise.bench.graph import count_fused, count_step
from vidnoise.bench.worker import Worker, WorkerError
from vidnoise.evaluation.cost import kilo_macs
from vidnoise.evaluation.peers import Peer
from vidnoise.opencv import cv2

ROUNDS = 5

TOGETHER = 8
"""Maximum number of cases in memory at once; more are split into lots, each with its own rounds and ceilings."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings common to all cases of a run."""

    frames: int = 20
    """Frames of each case, over all rounds."""
    seconds: float = 10.0
    """Maximum time of each case, over all rounds; at least one frame per round is measured."""
    threads: int = 1
    patience_seconds: float = 120.0
    """Timeout for the set-up of a case, for a burst and for a whole run."""
    note: str = ""
    """Remark on the state of the machine, for readers."""


def measure(
    cases: Sequence[Case],
    settings: Settings,
    say: Say,
    *,
    peers: Sequence[Peer] = (),
    end_to_end: bool = False,
) -> dict[str, Any]:
    """Measure everything; failures are part of the results, with their reasons.

    Args:
        cases: From :func:`~vidnoise.bench.cases.make_cases`.
        settings: Frames, seconds, threads.
        say: Called with lines of progress.
        peers: Filters to measure at each size.
        end_to_end: Also measure a whole run of one stream for each case.

    Returns:
        Results for :mod:`~vidnoise.bench.results`.
    """
    results: dict[str, Any] = {
        "kind": "vidnoise bench",
        "machine": describe_machine(cases[0].device),
        "settings": asdict(settings),
        "cases": [],
        "filters": [],
        "end_to_end": [],
    }
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(settings.threads)
    cv2.setNumThreads(settings.threads)
    try:
        for size, group in itertools.groupby(cases, key=lambda c: (c.height, c.width)):
            lots = _lots(list(group))
            filters = [FilterCase(peer, *size, settings.seconds) for peer in peers]
            for i, lot in enumerate(lots):
                results["cases"] += _measure_lot(lot, filters if i == 0 else [], settings, say)
            results["filters"] += [f.result() for f in filters]
        if end_to_end:
            single = dict.fromkeys(replace(case, streams=None) for case in cases)
            results["end_to_end"] = _measure_runs(list(single), settings, say)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    return results


def _lots(cases: list[Case]) -> list[list[Case]]:
    return [cases[i : i + TOGETHER] for i in range(0, len(cases), TOGETHER)]


def _measure_lot(lot: list[Case], filters: list[FilterCase], settings: Settings, say: Say) -> list[dict[str, Any]]:
    """Measure a lot; return the rows of the results in the order of ``lot``."""
    running: list[_Running] = []
    clip = filter_clip(filters[0].height, filters[0].width) if filters else None
    frames, seconds = math.ceil(settings.frames / ROUNDS), settings.seconds / ROUNDS
    try:
        for case in lot:
            running.append(_Running(case, settings, say))
        probes = {key: Probe(*key) for key in {r.arithmetic for r in running if r.arithmetic is not None}}
        for round_ in range(ROUNDS):
            say(f"  round {round_ + 1} of {ROUNDS}")
            for probe in probes.values():
                probe.round()
            # Alternating directions, so that no case always follows the same one.
            for r in running if round_ % 2 == 0 else reversed(running):
                r.burst(frames, seconds)
            for filter_ in filters:
                assert clip is not None
                filter_.burst(clip)
        return [r.result(probes) for r in running]
    finally:
        for r in running:
            r.close()


class _Running:
    """A case running in its own process."""

    def __init__(self, case: Case, settings: Settings, say: Say) -> None:
        self.case = case
        self.reason: str | None = None
        self.ms: list[float] = []
        self.facts: dict[str, Any] = {}
        self.arithmetic: tuple[torch.device, torch.dtype] | None = None
        self._worker: Worker | None = None
        self._say = say
        try:
            self._worker = Worker(settings.threads, settings.patience_seconds)
            self.facts = self._worker.call("setup", case)
            # The precision that was used, as a backend may affect the meaning of "auto".
            dtype = PRECISIONS[self.facts["precision_used"]]
            # PyTorch has no int8 to probe: shares are those of float32, as all but the convolutions is.
            self.arithmetic = (torch.device(case.device), torch.float32 if dtype is torch.int8 else dtype)
            say(f"{case.label}: ready after {self.facts['setup_seconds']:.1f} s")
        except WorkerError as ex:
            self._fail(str(ex))

    def _fail(self, reason: str) -> None:
        self.reason = reason
        self._say(f"{self.case.label}: failed: {reason}")

    def burst(self, frames: int, seconds: float) -> None:
        if self.reason is not None or self._worker is None:
            return
        try:
            self.ms += self._worker.call("burst", frames, seconds)
            self.facts = self._worker.call("facts")
        except WorkerError as ex:
            self._fail(str(ex))

    def result(self, probes: dict[tuple[torch.device, torch.dtype], Probe]) -> dict[str, Any]:
        row = self.case.to_dict()
        if self.reason is not None or self.arithmetic is None:
            return row | {"status": "failed", "reason": self.reason}
        ceilings = probes[self.arithmetic].ceilings.to_dict()
        p50 = statistics.median(self.ms)
        ordered = sorted(self.ms)
        row |= {
            "status": "ok", **self.facts, "ms_p50": round(p50, 3),
            "ms_p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3),
            "fps": round(1e3 / statistics.mean(self.ms), 3),
            "mpixel_per_second": round(1e3 * self.case.megapixels / p50, 3), "frames": len(self.ms),
        }  # fmt: skip
        shares = {} if self.case.lookahead else _shares(self.case, p50, self.arithmetic[1], ceilings)
        return row | {"ceilings": ceilings} | shares

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()


def _shares(case: Case, ms: float, dtype: torch.dtype, ceilings: dict[str, float]) -> dict[str, float]:
    """Return the shares of the ceilings that a time per frame amounts to."""
    config = config_of(case.model)
    pixels, seconds = case.padded_pixels, ms / 1e3
    graph = count_step(config, dtype)
    operations = count_fused(config, dtype, case.device) or graph
    gflops = 2e3 * kilo_macs(config) * pixels / seconds / 1e9
    return {
        "gflops": round(gflops, 2),
        "arithmetic_share": round(gflops / ceilings["gflops"], 4),
        "memory_share_fused": round(graph.fused_bytes * pixels / seconds / 1e9 / ceilings["gbps"], 4),
        "memory_share_layered": round(graph.layered_bytes * pixels / seconds / 1e9 / ceilings["gbps"], 4),
        "memory_share_unfused": round(operations.unfused_bytes * pixels / seconds / 1e9 / ceilings["gbps"], 4),
    }


def _measure_runs(cases: list[Case], settings: Settings, say: Say) -> list[dict[str, Any]]:
    """Measure whole runs, one after the other, each in its own process."""
    from vidnoise.bench.end_to_end import make_clip

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            clip = Path(folder) / f"{case.width}x{case.height}.mkv"
            if not clip.exists():
                make_clip(clip, case.height, case.width, settings.frames)
            worker = Worker(settings.threads, settings.patience_seconds)
            try:
                row = {"status": "ok", **worker.call("run", case, str(clip), settings.seconds)}
                say(f"{case.label}: a whole run, {row['fps']:.2f} frames a second")
            except WorkerError as ex:
                row = {"status": "failed", "reason": str(ex)}
                say(f"{case.label}: the whole run failed: {ex}")
            finally:
                worker.close()
            rows.append(case.to_dict() | row)
    return rows


def describe_machine(device: str) -> dict[str, Any]:
    """Describe the machine and the software on which the figures depend."""
    machine: dict[str, Any] = {
        "vidnoise": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
    }
    if hasattr(os, "getloadavg"):
        machine["load"] = round(os.getloadavg()[0], 2)
    if device.startswith("cuda"):
        machine["device"] = torch.cuda.get_device_name(device)
        machine["cuda"] = torch.version.cuda
    return machine


def _processor() -> str:
    """Return the processor's name, or its architecture if the system does not provide one."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
