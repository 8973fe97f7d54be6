"""The parts of the GPU programme; ``gpu.py`` runs each of them in a process of its own."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vidnoise import kernels
from vidnoise.backends import open_backend
from vidnoise.backends.device import PRECISIONS
from vidnoise.bench.cases import noisy_frames
from vidnoise.bench.ceilings import Probe
from vidnoise.bench.graph import count_step
from vidnoise.errors import VidnoiseError
from vidnoise.model import TIERS, DenoiseNetwork
from vidnoise.model.network import MULTIPLE
from vidnoise.pipeline.device_transfer import make_device_transfer
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import load_model

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"540p": (540, 960), "720p": (720, 1280), "1080p": (1080, 1920), "2160p": (2160, 3840)}
TINY = {"tiny": (32, 48)}

Row = dict[str, Any]


class Context:
    """What the parts are told, and where their rows go."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.device = torch.device(given.device)
        self.is_tiny: bool = given.tiny
        self.output: Path = given.output
        self._rows: Path = given.rows
        self.sizes = TINY if self.is_tiny else SIZES
        self.largest = list(self.sizes.values())[-1]
        self.graphs = "cuda-graph" if self.device.type == "cuda" else "eager"

    def row(self, **values: Any) -> None:
        """A line of results, safe as soon as it is written."""
        with self._rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        print(values, flush=True)  # noqa: T201

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def times(self, work: Callable[[], object], n: int, seconds: float) -> list[float]:
        """Milliseconds of each call; of the device itself, by events, where it is a GPU."""
        n = 1 if self.is_tiny else n
        marks = []
        end = time.perf_counter() + seconds
        for _ in range(n + 1):
            marks.append(self._mark())
            work()
            if len(marks) > 3 and time.perf_counter() > end:
                break
        marks.append(self._mark())
        self.wait()
        if self.device.type == "cuda":
            return [a.elapsed_time(b) for a, b in itertools.pairwise(marks[1:])]
        return [1e3 * (b - a) for a, b in itertools.pairwise(marks[1:])]

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    @contextmanager
    def guarded(self, **what: Any) -> Iterator[None]:
        """A case that cannot be run is a row with its reason, and the next one follows."""
        try:
            yield
        except (VidnoiseError, torch.OutOfMemoryError, RuntimeError, ImportError) as ex:
            self.row(**what, failed=f"{type(ex).__name__}: {ex}".splitlines()[0][:200])
        finally:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


def has(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def network_of(tier: str, device: torch.device) -> DenoiseNetwork:
    """The shipped weights, else random ones, which take as long."""
    try:
        return load_model(tier, device).network
    except VidnoiseError:
        return DenoiseNetwork(TIERS[tier]).eval().place(device)


def machine(context: Context) -> None:
    facts: Row = {"device": platform.processor() or platform.machine(), "torch": torch.__version__}
    if context.device.type == "cuda":
        properties = torch.cuda.get_device_properties(context.device)
        facts["device"] = properties.name
        facts["memory_gib"] = round(properties.total_memory / 2**30, 1)
        facts["multiprocessors"] = properties.multi_processor_count
        facts["cuda"], facts["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
        shown = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
        print(shown)  # noqa: T201
    facts["python"], facts["cores"] = platform.python_version(), os.cpu_count()
    for name in ("triton", "av", "cv2", "kornia"):
        facts[name] = "yes" if has(name) else "no"
    context.row(**facts)


CUDA_TESTS = (
    "test_kernels.py", "test_cuda_graph.py", "test_transfer.py", "test_cuda.py", "test_tiles.py", "test_streams.py",
    "test_color.py", "test_tensorrt.py",
)  # fmt: skip


def tests(context: Context) -> None:
    """All of the kernels' tests, which then run on the device, and those that need one."""
    environment = dict(os.environ)
    if context.device.type == "cuda":
        environment["FAIL_WITHOUT_CUDA"] = "1"
        environment.pop("TRITON_INTERPRET", None)
    failed = False
    for name in CUDA_TESTS:
        if not (ROOT / "tests" / name).exists():
            continue
        marks = "not slow" if name == "test_kernels.py" else "needs_cuda"
        only = ["-k", "bands_and_back"] if context.is_tiny else []
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x" if context.is_tiny else "-q", "-m", marks, *only,
             "-p", "no:cacheprovider", str(ROOT / "tests" / name)],
            capture_output=True, text=True, env=environment, cwd=ROOT, check=False,
        )  # fmt: skip
        print(done.stdout[-6000:], done.stderr[-2000:])  # noqa: T201
        summary = [line for line in done.stdout.splitlines() if "passed" in line or "failed" in line or "error" in line]
        wrong = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        said = (summary or ["nothing to run"])[-1].strip("= ")
        context.row(test=name, result=said, seconds=round(time.monotonic() - start, 1))
        for line in wrong[:10]:
            context.row(test=name, wrong=line[:200])
        failed |= done.returncode not in (0, 5)
    if failed:
        raise SystemExit(1)


def kernel_cases(context: Context, height: int, width: int) -> Iterator[tuple[str, int, Callable, Callable]]:
    """Name, bytes that have to be moved, the kernel, its reference."""
    from vidnoise.color import apply_correction, to_rgb
    from vidnoise.kernels import bands, planes_in, planes_out
    from vidnoise.kernels.conversion import difference, extended
    from vidnoise.kernels.cuda_operations import CudaOperations
    from vidnoise.model.operations import Operations

    device = context.device
    h, w = -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE
    frame = noisy_frames(height, width, 1, device)[0]
    samples = sum(p.numel() * p.element_size() for p in frame.planes)
    x = extended(to_rgb(frame, centred=True), MULTIPLE)
    clean = x + 0.01
    picture = 4 * 3 * h * w
    reference, ours = Operations(), CudaOperations()
    yield ("planes to RGB", samples + picture, lambda: planes_in.to_rgb(frame, MULTIPLE, rgb=clean),
           lambda: extended(to_rgb(frame, centred=True), MULTIPLE))  # fmt: skip
    yield "RGB to bands", 2 * picture, lambda: bands.rgb_to_bands(x), lambda: reference.rgb_to_bands(x)
    fused = bands.rgb_to_bands(x)
    yield "bands to RGB", 2 * picture, lambda: ours.bands_to_rgb(fused), lambda: reference.bands_to_rgb(fused)
    ratio = torch.rand(1, 4, h // 2, w // 2, device=device)
    flow = 2 * torch.randn(1, 2, h // 2, w // 2, device=device)
    half = 4 * h * w // 4
    yield ("warp state to bands", 4 * picture + 10 * half, lambda: ours.warp_state((x, clean), ratio, flow),
           lambda: reference.warp_state((x, clean), ratio, flow))  # fmt: skip
    left, residual = torch.rand(1, 6, h // 2, w // 2, device=device), torch.randn_like(fused).half()
    residual = residual.contiguous(memory_format=torch.channels_last)
    smoothed = fused.clone()
    for name, source, n_bytes in (
        ("remove noise", fused, 3 * picture),
        ("remove noise, smoothed", smoothed, 4 * picture),
    ):
        yield (f"{name}: bands to pictures", n_bytes + picture // 2 + 6 * half,
               lambda source=source: ours.remove_noise(source, left, residual, fused),
               lambda source=source: reference.remove_noise(source, left, residual, fused))  # fmt: skip
    yield ("correction onto planes", 2 * picture + 2 * samples,
           lambda: planes_out.apply_correction(frame, clean, x, 0.9),
           lambda: apply_correction(frame, difference(frame, clean, x, 0.9), centred=True))  # fmt: skip


def kernels_part(context: Context) -> None:
    if not has("triton"):
        context.row(kernel="all", failed="triton is not installed")
        return
    for size, (height, width) in list(context.sizes.items())[-2:]:
        for name, n_bytes, kernel, reference in kernel_cases(context, height, width):
            with context.guarded(size=size, kernel=name):
                start = time.perf_counter()
                kernel()
                context.wait()
                first = time.perf_counter() - start
                reference()
                # In turns, so that a change of clocks hits both.
                ours, theirs = [], []
                for _ in range(1 if context.is_tiny else 3):
                    ours += context.times(kernel, 20, 1)
                    theirs += context.times(reference, 10, 1)
                ms = statistics.median(ours)
                context.row(
                    size=size, kernel=name, ms=ms, gb_per_s=n_bytes / ms / 1e6, reference_ms=statistics.median(theirs),
                    times_as_fast=statistics.median(theirs) / ms, first_call_seconds=first,
                )  # fmt: skip


def model(context: Context) -> None:
    """The backend's step, and whole frames from planes to planes on the device."""
    probes = {p: Probe(context.device, PRECISIONS[p]) for p in (["fp32"] if context.is_tiny else ["fp16", "fp32"])}
    for probe in probes.values():
        probe.round()
    tiers = ["fast"] if context.is_tiny else ["standard", "fast", "quality"]
    cases = [(t, "fp16", context.graphs, s) for s in reversed(context.sizes) for t in tiers]
    cases += [("standard", p, context.graphs, s) for s in list(context.sizes)[-2:] for p in ("bf16", "fp32")]
    cases += [("standard", "fp16", "eager", s) for s in list(context.sizes)[-2:]]
    cases += [("fast", "fp16", "eager", s) for s in list(context.sizes)[-1:]]
    if context.is_tiny:
        cases = [("fast", "fp32", "eager", "tiny")]
    for tier, precision, backend, size in cases:
        with context.guarded(tier=tier, precision=precision, backend=backend, size=size):
            time_case(context, tier, precision, backend, size)
    for name, probe in probes.items():
        probe.round()
        context.row(ceiling=name, **probe.ceilings.to_dict())


def time_case(context: Context, tier: str, precision: str, backend_name: str, size: str) -> None:
    height, width = context.sizes[size]
    device, dtype = context.device, PRECISIONS[precision]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    network = network_of(tier, device)
    start = time.perf_counter()
    denoiser = Denoiser(network, device=device, precision=precision, backend=backend_name)
    frames = noisy_frames(height, width, 4, device)
    for frame in frames:
        denoiser.push(frame)
    context.wait()
    setup = time.perf_counter() - start
    count = iter(range(10**9))
    whole = context.times(lambda: denoiser.push(frames[next(count) % 4]), 100, 2)
    backend = open_backend(backend_name, network, device=device, dtype=dtype)
    h, w = -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE
    memory = {"state": backend.initial_state(1, h, w)}
    noisy = torch.rand(1, 3, h, w, device=device)
    continues = torch.ones(1, dtype=torch.bool, device=device)

    def step() -> None:
        made = getattr(memory["state"], "noisy", None)
        _, _, memory["state"] = backend.step(noisy if made is None else made, None, 1.0, continues, memory["state"])

    for _ in range(2):
        step()
    alone = context.times(step, 100, 2)
    scout = backend.initial_scout(1, h, w)

    def both_ways() -> None:
        level, state = backend.measure(noisy, None, continues, memory["state"])
        future, _ = backend.look(noisy, level, 1.0, continues, scout)
        memory["state"] = backend.smooth(noisy, level, 1.0, continues, state, future).state

    ahead = None
    if backend_name in (context.graphs, "eager"):  # others would compile three graphs more
        for _ in range(2):
            both_ways()
        ahead = statistics.median(context.times(both_ways, 50, 1))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    ms = statistics.median(alone)
    tflops = count_step(TIERS[tier]).flops * h * w / ms / 1e9
    context.row(
        tier=tier, precision=precision, backend=backend_name, size=size, step_ms=ms, step_p95_ms=p95(alone),
        step_fps=1e3 / ms, both_ways_ms=ahead, frame_ms=statistics.median(whole), frame_p95_ms=p95(whole),
        frame_fps=1e3 / statistics.median(whole), peak_mib=round((peak - before) / 2**20), tflop_per_s=tflops,
        kernels="on" if kernels.enabled(device) else "off", setup_seconds=setup,
    )  # fmt: skip


def pipeline(context: Context) -> None:
    """Frames from main memory and back to it, through the rings, as a run does between its two queues."""
    n = 3 if context.is_tiny else 150
    for tier in ["fast"] if context.is_tiny else ["standard", "fast"]:
        for size in list(context.sizes)[-2:]:
            with context.guarded(tier=tier, size=size):
                frames = noisy_frames(*context.sizes[size], 4)
                denoiser = Denoiser(network_of(tier, context.device), device=context.device, backend=context.graphs)
                for _ in range(2):  # the first time warms up
                    transfer = make_device_transfer(denoiser.device)
                    stream = (replace(frames[i % 4], index=i) for i in range(n))
                    context.wait()
                    start = time.perf_counter()
                    count = sum(1 for _ in transfer.download(denoiser(transfer.upload(stream)), held=4))
                    context.wait()
                    seconds = time.perf_counter() - start
                moved = sum(p.numel() * p.element_size() for p in frames[0].planes)
                context.row(
                    tier=tier, size=size, frames=count, fps=count / seconds, ms=1e3 * seconds / count,
                    gb_per_s_each_way=moved * count / seconds / 1e9,
                )  # fmt: skip


def files(context: Context) -> None:
    """A file through ``vidnoise run``, decoded and encoded on the host and on the device."""
    if not has("av"):
        context.row(run="all", left_out="av is not installed: nothing is decoded or encoded here")
        return
    from vidnoise.bench.end_to_end import make_clip

    height, width = context.sizes[list(context.sizes)[-2 if len(context.sizes) > 1 else 0]]
    frames = 4 if context.is_tiny else 120
    clip = context.output / "clip.mp4"
    made = context.output / "clean.mp4"
    try:
        make_clip(clip, height, width, frames)
        runs = [("none", "h264"), ("none", "h264_nvenc"), ("cuda", "h264_nvenc")]
        for hwaccel, codec in runs[:1] if context.is_tiny else runs:
            done = subprocess.run(
                [sys.executable, "-m", "vidnoise", str(clip), "-o", str(made), "-y", "--device", str(context.device),
                 "--hwaccel", hwaccel, "--codec", codec, "--model", "fast", "--json", str(context.output / "run.json")],
                capture_output=True, text=True, cwd=ROOT, check=False,
            )  # fmt: skip
            print(done.stdout, done.stderr)  # noqa: T201
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                context.row(hwaccel=hwaccel, codec=codec, failed=said[:200])
                continue
            stats = json.loads((context.output / "run.json").read_text(encoding="utf-8"))
            context.row(
                hwaccel=hwaccel, codec=codec, size=f"{width}x{height}", frames=stats["frames_out"], fps=stats["fps"],
                stage_ms=json.dumps(stats["stage_ms"]),
            )  # fmt: skip
    finally:
        for path in (clip, made, context.output / "run.json"):
            path.unlink(missing_ok=True)


def profile(context: Context) -> None:
    """What the device does in a step: one by one, and replayed; the whole tables in profile.txt."""
    from torch.profiler import ProfilerActivity

    on_gpu = context.device.type == "cuda"
    activities = [ProfilerActivity.CUDA, ProfilerActivity.CPU] if on_gpu else [ProfilerActivity.CPU]
    frames = noisy_frames(*context.largest, 2, context.device)
    text = []
    for backend in dict.fromkeys(["eager", context.graphs]):
        with context.guarded(backend=backend):
            tier = "fast" if context.is_tiny else "standard"
            denoiser = Denoiser(network_of(tier, context.device), device=context.device, backend=backend)
            for frame in frames * 2:
                denoiser.push(frame)
            context.wait()
            n = 2 if context.is_tiny else 6
            with torch.profiler.profile(activities=activities) as found:
                for i in range(n):
                    denoiser.push(frames[i % 2])
                context.wait()
            order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
            averages = found.key_averages()
            text.append(f"{tier}, {backend}, {n} frames of {context.largest[1]}x{context.largest[0]}\n")
            text.append(averages.table(sort_by=order, row_limit=40, max_name_column_width=90))
            timed = sorted(averages, key=lambda e: getattr(e, order), reverse=True)
            if on_gpu:  # kernels only: an operation's own time on the device is that of its kernels
                timed = [e for e in timed if str(e.device_type).endswith("CUDA")]
            total = sum(getattr(e, order) for e in timed) or 1
            for event in timed[:12]:
                own = getattr(event, order)
                context.row(
                    backend=backend, kernel=event.key[:80], ms_per_frame=own / 1e3 / n, share=own / total,
                    calls_per_frame=event.count / n,
                )  # fmt: skip
    (context.output / "profile.txt").write_text("\n".join(text), encoding="utf-8")


def compile_part(context: Context) -> None:
    """Backends that compile, last because that takes its time."""
    size = list(context.sizes)[-1]
    precision = "fp32" if context.is_tiny else "fp16"
    for tier in ["fast"] if context.is_tiny else ["standard", "fast"]:
        with context.guarded(tier=tier, precision=precision, backend="compile", size=size):
            time_case(context, tier, precision, "eager" if context.is_tiny else "compile", size)
    if has("tensorrt") and not context.is_tiny:
        with context.guarded(tier="fast", precision=precision, backend="tensorrt", size=size):
            time_case(context, "fast", precision, "tensorrt", size)


RUN: dict[str, Callable[[Context], None]] = {
    "machine": machine, "tests": tests, "kernels": kernels_part, "model": model, "pipeline": pipeline, "files": files,
    "profile": profile, "compile": compile_part,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(RUN))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no CUDA device was found; try --dry-run")
    if given.device == "cpu":
        torch.set_num_threads(1)
    RUN[given.part](Context(given))


if __name__ == "__main__":
    main()
