"""Comparison of exported graphs with PyTorch, over a few frames with a cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vidnoise.export.graph import FUTURE, KINDS, SCOUT, Named, NetworkGraph, Size, named_state, next_state, step_kind
from vidnoise.export.onnxruntime import open_session
from vidnoise.model import DenoiseNetwork, uniform_sigma

Run = Callable[[str, dict[str, Tensor]], Sequence[Tensor]]
"""Runs a graph of the given kind on inputs by name; returns outputs in order, see :data:`KINDS`."""

Paths = Mapping[str, str | os.PathLike[str]]
"""Files by kind of graph."""

FRAMES = 5
CUT = 3
SIGMA = 0.06

LIMIT = {torch.float32: 1e-3, torch.float16: 3e-3, torch.bfloat16: 3e-3, torch.int8: 3e-3}
"""Maximum root mean square difference by precision, in [0, 1] units: a quarter of an 8-bit step in float32, three
quarters in half precision, and in int8, where a value on the border between two steps may be rounded either way."""


class Difference(NamedTuple):
    """Difference from PyTorch, in [0, 1] units."""

    largest: float
    rms: float
    """Root mean square over the frame where that is largest."""


def onnx_runner(paths: Paths) -> Run:
    """Return a function that runs ONNX files by ONNX Runtime on the CPU.

    Raises:
        BackendError: ONNX Runtime is not installed.
    """
    sessions = {kind: open_session(path) for kind, path in paths.items()}

    def run(kind: str, inputs: dict[str, Tensor]) -> list[Tensor]:
        fed = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
        arrays: Any = sessions[kind].run(KINDS[kind].outputs, fed)
        return [torch.from_numpy(array) for array in arrays]

    return run


def openvino_runner(paths: Paths) -> Run:
    """Return a function that runs OpenVINO IRs on the CPU, in float32 except where the graphs use half precision.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    from vidnoise.export.openvino import openvino_core

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = {kind: openvino_core().compile_model(Path(path), "CPU", hint) for kind, path in paths.items()}

    def run(kind: str, inputs: dict[str, Tensor]) -> list[Tensor]:
        found = compiled[kind]({name: tensor.contiguous().numpy() for name, tensor in inputs.items()})
        return [torch.from_numpy(found[i].copy()) for i in range(len(KINDS[kind].outputs))]

    return run


def difference(
    network: DenoiseNetwork, run: Run, *, blind: bool, size: Size, both_ways: bool = False
) -> Difference:  # fmt: skip
    """Run network and graphs over the same frames, each on its own state, and return the largest difference.

    Args:
        network: In float32 or int8, on the CPU.
        run: Runs the exported graphs.
        blind: Whether the noise level is estimated.
        size: Streams, height and width.
        both_ways: Process all frames as one lookahead window, instead of step by step.
    """

    def plain(kind: str, inputs: dict[str, Tensor]) -> Sequence[Tensor]:
        with torch.inference_mode():
            return NetworkGraph(network, kind).eval()(*inputs.values())

    clip = list(_clip(size))
    through = _window if both_ways else _steps
    largest = rms = 0.0
    for expected, found in zip(*(through(network, r, clip, blind=blind) for r in (plain, run)), strict=True):
        apart = (found - expected).abs()
        largest, rms = max(largest, float(apart.max())), max(rms, float(apart.square().mean().sqrt()))
    return Difference(largest, rms)


Clip = Sequence[tuple[Tensor, Tensor]]
"""Noisy frames, each with a mask of the streams that continue there."""


def _named(run: Run, kind: str, given: Named) -> dict[str, Tensor]:
    inputs, outputs, _ = KINDS[kind]
    return dict(zip(outputs, run(kind, {name: given[name] for name in inputs}), strict=True))


def _steps(network: DenoiseNetwork, run: Run, clip: Clip, *, blind: bool) -> Iterator[Tensor]:
    """Yield the clean frames of a causal run."""
    n, _, height, width = clip[0][0].shape
    state = network.initial_state(n, height, width)
    given = {"boost": torch.ones(n, 2), "sigma": torch.full((n, 6), SIGMA)}
    for noisy, keep in clip:
        found = _named(run, step_kind(blind=blind), {**given, "noisy": noisy, "keep": keep, **named_state(state)})
        state = next_state(state, found)
        yield found["clean"]


def _window(network: DenoiseNetwork, run: Run, clip: Clip, *, blind: bool) -> Iterator[Tensor]:
    """Yield the clean frames of one lookahead window over the whole clip."""
    n, _, height, width = clip[0][0].shape
    state = network.initial_state(n, height, width)
    frames: list[dict[str, Tensor]] = []
    for noisy, keep in clip:
        frame = {"noisy": noisy, "keep": keep, "boost": torch.ones(n, 2)}
        if blind:
            found = _named(run, "measure", {**frame, **named_state(state)})
            state = next_state(state, found)
            frames.append({**frame, "levels": found["levels"]})
        else:
            frames.append({**frame, "levels": uniform_sigma(SIGMA, noisy)})
    scout = dict(zip(SCOUT, network.initial_scout(n, height, width), strict=True))
    follows = torch.zeros(n, dtype=torch.bool)
    for frame in reversed(frames):
        found = _named(run, "look", {**frame, "keep": follows, **scout})
        frame |= {name: found[name] for name in FUTURE}
        scout, follows = {name: found[f"next_{name}"] for name in SCOUT}, frame["keep"]
    for frame in frames:
        found = _named(run, "smooth", {**frame, **named_state(state)})
        state = next_state(state, found)
        yield found["clean"]


def _clip(size: Size) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield noisy frames of moving scenes, each with a mask of whether it continues from the one before."""
    n, height, width = size
    generator = torch.Generator().manual_seed(0)
    scene = torch.empty(0)
    for i in range(FRAMES):
        if i in (0, CUT):
            coarse = torch.rand(n, 3, 2 + height // 8, 2 + width // 8, generator=generator)
            scene = torch.nn.functional.interpolate(coarse, size=(height, width + FRAMES), mode="bicubic")
        noise = SIGMA * torch.randn(n, 3, height, width, generator=generator)
        yield scene[..., i : i + width] + noise, torch.full((n,), i != CUT)
