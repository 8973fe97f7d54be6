"""The roofline page: the work of a step, the minimum time for it on various machines, and where the time really goes.

Williams et al., "Roofline: an insightful visual performance model for multicore architectures", CACM 52 (4), 2009.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vidnoise.backends.device import resolve_precision, wait_for
from vidnoise.bench.cases import Case, noisy_frames
from vidnoise.bench.ceilings import Probe
from vidnoise.bench.gpus import GPUS
from vidnoise.bench.graph import Graph, count_fused, count_step, time_by_part
from vidnoise.bench.results import table
from vidnoise.bench.rounds import describe_machine
from vidnoise.model import TIERS
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import find_model, list_models, read_card

FRAMES = 6
"""Frames on which times by part are measured, of which the first two are not counted."""

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks of a machine: FLOP/s of the convolutions and of everything else, and bytes per second."""

    convolution: float
    other: float
    memory: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """Minimum seconds per frame, under three assumptions on what goes through main memory."""

    fused: float
    """Only the picture, the state and the weights; arithmetic and memory overlap entirely."""
    layered: float
    """Also the inputs and outputs of convolutions and warps; everything else is fused into them."""
    unfused: float
    """The inputs and outputs of every operation."""


def bounds(graph: Graph, pixels: int, peaks: Peaks) -> Bounds:
    """Return the minimum time for a frame with a number of pixels."""

    def seconds(op: Any) -> float:
        return max(op.flops / (peaks.convolution if op.is_convolution else peaks.other), op.bytes / peaks.memory)

    arithmetic = graph.convolution_flops / peaks.convolution
    arithmetic += (graph.flops - graph.convolution_flops) / peaks.other
    least = graph.fused_bytes / peaks.memory
    weights = graph.weight_bytes / peaks.memory
    return Bounds(
        weights + pixels * max(arithmetic, least),
        weights + pixels * (least + sum(seconds(op) for op in graph.operations if op.is_large)),
        weights + pixels * sum(seconds(op) for op in graph.operations),
    )


def make_roofline(case: Case, say: Callable[[str], None]) -> dict[str, Any]:
    """Count all tiers, and measure the shipped ones with the device, precision and size of ``case``.

    Returns:
        The content for :func:`markdown`.
    """
    device = torch.device(case.device)
    dtype = resolve_precision(case.precision, device)
    pixels = case.padded_pixels
    graphs = {tier: count_step(config, dtype) for tier, config in TIERS.items()}
    kernels = {tier: count_fused(config, dtype, case.device) for tier, config in TIERS.items()}
    say(f"counted: {', '.join(graphs)}")
    tiers = {name: tier for name in list_models() if (tier := read_card(find_model(name))[0].tier) == name}
    measured = _measure(list(tiers), case, device, dtype, say)
    return {
        "kind": "vidnoise roofline",
        "machine": describe_machine(case.device) | {"threads": torch.get_num_threads()},
        "height": case.height,
        "width": case.width,
        "pixels": pixels,
        "precision": str(dtype).removeprefix("torch."),
        "tiers": {tier: _counted(graph, kernels[tier]) for tier, graph in graphs.items()},
        "gpus": [asdict(gpu) | {"ms": _on_gpu(gpu, graphs, pixels)} for gpu in GPUS],
        "ceilings": measured["ceilings"],
        "measured": {
            name: row | {"least_ms": _ms(bounds(graphs[tiers[name]], pixels, measured["peaks"]))}
            for name, row in measured["models"].items()
        },
    }


def _counted(graph: Graph, kernels: Graph | None) -> dict[str, Any]:
    """Return the figures of a step in its plain form and, if there are any, with compiled kernels."""
    parts: dict[str, dict[str, Any]] = {
        part: {"operations": len(ops), "flops": sum(o.flops for o in ops), "bytes": sum(o.bytes for o in ops)}
        for part, ops in graph.by_part().items()
    }
    if kernels is not None:
        for part, ops in kernels.by_part().items():
            found = parts.setdefault(part, {"operations": 0, "flops": 0.0, "bytes": 0.0})
            found |= {"kernel_operations": len(ops), "kernel_bytes": sum(o.bytes for o in ops)}
    return {
        "operations": len(graph.operations), "flops": graph.flops, "convolution_flops": graph.convolution_flops,
        "fused_bytes": graph.fused_bytes, "layered_bytes": graph.layered_bytes, "unfused_bytes": graph.unfused_bytes,
        "kernel_bytes": kernels.unfused_bytes if kernels else None,
        "weight_bytes": graph.weight_bytes, "parts": parts,
    }  # fmt: skip


def _on_gpu(gpu: Any, graphs: dict[str, Graph], pixels: int) -> dict[str, dict[str, float]]:
    peaks = Peaks(gpu.half_tflops * 1e12, gpu.single_tflops * 1e12, gpu.gbps * 1e9)
    return {tier: _ms(bounds(graph, pixels, peaks)) for tier, graph in graphs.items()}


def _ms(found: Bounds) -> dict[str, float]:
    return {name: round(1e3 * seconds, 4) for name, seconds in asdict(found).items()}


def _measure(
    models: Sequence[str], case: Case, device: torch.device, dtype: torch.dtype, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure ceilings, the time of a frame, and its shares by part, operation by operation (backend ``eager``)."""
    probe, single = Probe(device, dtype), Probe(device, torch.float32)
    frames = noisy_frames(case.height, case.width, FRAMES, device)
    denoisers = {name: Denoiser(name, device=device, precision=case.precision, backend="eager") for name in models}
    ms: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        probe.round()
        single.round()
        for name, denoiser in denoisers.items():
            ms[name] += _times(denoiser, frames, device)
            say(f"{name}: {ms[name][-1]:.1f} ms a frame")
    rows = {}
    for name, denoiser in denoisers.items():
        parts = time_by_part(denoiser.push, frames, device)
        whole = sum(parts.values())
        shares = {part: round(t / whole, 4) for part, t in parts.items()}
        rows[name] = {"ms": round(statistics.median(ms[name]), 3), "shares": shares}
        say(f"{name}: profiled")
    ceilings = probe.ceilings.to_dict() | {"gflops_fp32": single.ceilings.to_dict()["gflops"]}
    peaks = Peaks(ceilings["gflops"] * 1e9, ceilings["gflops_fp32"] * 1e9, ceilings["gbps"] * 1e9)
    return {"ceilings": ceilings, "peaks": peaks, "models": rows}


def _times(denoiser: Denoiser, frames: list[Any], device: torch.device) -> list[float]:
    times = []
    for frame in frames[:3]:
        start = time.perf_counter()
        denoiser.push(frame)
        wait_for(device)
        times.append(1e3 * (time.perf_counter() - start))
    return times[1:]


def markdown(page: dict[str, Any]) -> str:
    """Format the page, with its assumptions."""
    machine, tiers = page["machine"], page["tiers"]
    size, precision = f"{page['width']}x{page['height']}", page["precision"]
    lines = [
        "# Roofline", "",
        "The work of a step of each tier, counted from the running network; the minimum time for it; and where the",
        "time goes. Written by `vidnoise bench --roofline`; the numbers are in the JSON file beside this page.", "",
        "## Work of a step", "",
        f"A blind step with a past, per pixel of the frame; convolutions in {precision}, all else in float32.", "",
    ]  # fmt: skip
    head = ["tier", "FLOP", "of these in convolutions", "bytes, fused", "bytes, by layer", "bytes, unfused",
            "bytes, compiled kernels", "operations", "weights, MB"]  # fmt: skip
    lines += table(head, [
        [t, f"{c['flops']:,.0f}", f"{c['convolution_flops']:,.0f}", f"{c['fused_bytes']:,.0f}",
         f"{c['layered_bytes']:,.0f}", f"{c['unfused_bytes']:,.0f}",
         "–" if c["kernel_bytes"] is None else f"{c['kernel_bytes']:,.0f}", str(c["operations"]),
         f"{c['weight_bytes'] / 1e6:.2f}"]
        for t, c in tiers.items()
    ])  # fmt: skip
    by_part = "By part, per pixel: FLOP; bytes read and written, unfused and by compiled kernels (operations):"
    lines += ["", *_ASSUMPTIONS.splitlines(), "", by_part, ""]
    parts = list(dict.fromkeys(part for c in tiers.values() for part in c["parts"]))
    lines += table(["part", *tiers], [[part, *(_work(c["parts"].get(part)) for c in tiers.values())] for part in parts])
    lines += ["", "## Minimum time on common GPUs", "",
              f"Milliseconds a frame at {size}: fused / by layer / unfused, by published peaks (float16 convolutions,",
              "float32 for the rest).", ""]  # fmt: skip
    lines += table(["GPU", "TFLOP/s, half", "TFLOP/s, single", "GB/s", *tiers], [
        [g["name"], f"{g['half_tflops']:g}", f"{g['single_tflops']:g}", f"{g['gbps']:,g}",
         *(" / ".join(f"{g['ms'][t][k]:.2f}" for k in ("fused", "layered", "unfused")) for t in tiers)]
        for g in page["gpus"]
    ])  # fmt: skip
    lines += ["", "Sources, as quoted in public copies of these documents:", ""]
    lines += [*(f"- {g['name']}: {g['source']}." for g in page["gpus"]), ""]
    lines += _measured(page, machine, size)
    return "\n".join(lines) + "\n"


_CONVOLUTIONS = {"noise level", "fusion", "core"}
"""Parts whose arithmetic is in convolutions."""


def _work(part: dict[str, Any] | None) -> str:
    """Format the work of a part of a step."""
    if part is None:
        return "–"
    bytes, operations = f"{part['bytes']:,.0f}", f"{part['operations']}"
    if "kernel_bytes" in part:
        bytes, operations = f"{bytes} → {part['kernel_bytes']:,.0f}", f"{operations} → {part['kernel_operations']}"
    return f"{part['flops']:,.0f}; {bytes} ({operations})"


_ASSUMPTIONS = """\
- *Fused*: only the picture (float32 RGB), the state (read and written) and the weights go through memory. No program
  can need less; none comes close, as tiles of a picture would have to pass through the whole network within the caches.
- *By layer*: in addition, convolutions and warps read their inputs and write their outputs; all else is fused into
  them, as by a good compiler.
- *Unfused*: every operation reads its inputs and writes its output, as in eager PyTorch. Caches reduce this: on a CPU
  the intermediate pictures of a small frame stay in the last-level cache. *Compiled kernels*: the same on a CPU, where
  the chains of operations between convolutions are one kernel each.
- A multiply-add is 2 FLOP; an addition, a logarithm or an exponential 1; a bilinear sample 8, a bicubic one 32.
  Operations that only move data have none. The plain form of the network is counted. Kernel launches (microseconds
  each on a GPU), colour conversion and cut detection are not counted.
- Convolutions are counted as direct ones. Minimal filtering, by which a CPU does those of 3×3 in float32, takes a
  quarter of their products: it may take less than the minimum, and reach more than the ceiling."""


def _measured(page: dict[str, Any], machine: dict[str, Any], size: str) -> list[str]:
    ceilings, models = page["ceilings"], page["measured"]
    where = (
        machine.get("device") or f"{machine['processor']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    )
    load = f" The load was {machine['load']:g} on {machine['cores']} cores." if "load" in machine else ""
    lines = [
        "## Measured here", "",
        f"{where}, torch {machine['torch']}, {machine['date']}.{load} Ceilings measured alongside: "
        f"{ceilings['gflops']:,.0f} GFLOP/s in {page['precision']}, {ceilings['gflops_fp32']:,.0f} in float32, "
        f"{ceilings['gbps']:,.1f} GB/s.", "",
    ]  # fmt: skip
    head = [f"{size}, eager", "ms a frame", "minimum, fused", "by layer", "unfused", "unfused minimum / measured"]
    lines += table(head, [
        [name, f"{row['ms']:,.1f}", *(f"{row['least_ms'][k]:,.1f}" for k in ("fused", "layered", "unfused")),
         f"{100 * row['least_ms']['unfused'] / row['ms']:.0f} %"]
        for name, row in models.items()
    ])  # fmt: skip
    lines += [
        "",
        "Milliseconds by part, by torch.profiler, which makes small operations slower, scaled to the time above; in",
        "brackets, the per cent of the ceilings of arithmetic and of memory that the part reaches, by the work counted",
        "above (that of the compiled kernels, where it is known).",
        "",
    ]
    parts = list(dict.fromkeys(part for row in models.values() for part in row["shares"]))
    lines += table(["part", *models], [
        [part, *(_reached(part, row, page["tiers"].get(name), page) for name, row in models.items())] for part in parts
    ])  # fmt: skip
    return lines


def _reached(part: str, row: dict[str, Any], work: dict[str, Any] | None, page: dict[str, Any]) -> str:
    """Format the time of a part, with what it reaches of the ceilings."""
    ms = row["ms"] * row["shares"].get(part, 0)
    counted = (work or {"parts": {}})["parts"].get(part)
    if not counted or ms < 0.05:
        return f"{ms:,.1f}"
    ceilings, per_second = page["ceilings"], page["pixels"] / (1e-3 * ms)
    peak = ceilings["gflops"] if part in _CONVOLUTIONS else ceilings["gflops_fp32"]
    moved = counted.get("kernel_bytes", counted["bytes"])
    arithmetic = 100e-9 * per_second * counted["flops"] / peak
    memory = 100e-9 * per_second * moved / ceilings["gbps"]
    return f"{ms:,.1f} ({arithmetic:.0f}, {memory:.0f})"
