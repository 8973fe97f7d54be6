"""Whether an exported graph gives the pictures that PyTorch gives, over a few frames with a cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..model import DenoiseNetwork
from .graph import OUTPUTS, StepGraph, input_names, next_state
from .onnxruntime import import_onnxruntime

Run = Callable[[dict[str, Tensor]], Sequence[Tensor]]
"""One step: tensors by :func:`input_names` to those by :data:`OUTPUTS`."""

FRAMES = 5
CUT = 3
SIGMA = 0.06

LIMIT = {torch.float32: 1e-3, torch.float16: 3e-3, torch.bfloat16: 3e-3}
"""Of the root mean square difference, in [0, 1] units: a quarter of an 8-bit step, and of halves, three."""


class Difference(NamedTuple):
    """From PyTorch in float32, in [0, 1] units."""

    largest: float
    rms: float
    """Of the frame where it is largest."""


def onnx_runner(path: str | os.PathLike[str]) -> Run:
    """Runs an ONNX file by ONNX Runtime on the CPU.

    Raises:
        BackendError: ONNX Runtime is not installed.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        arrays: Any = session.run(OUTPUTS, {name: tensor.contiguous().numpy() for name, tensor in inputs.items()})
        return [torch.from_numpy(array) for array in arrays]

    return run


def openvino_runner(path: str | os.PathLike[str]) -> Run:
    """Runs an OpenVINO IR on the CPU, in float32 but for what the graph has in halves.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    from .openvino import openvino_core

    compiled = openvino_core().compile_model(os.fspath(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        found = compiled({name: tensor.numpy() for name, tensor in inputs.items()})
        return [torch.from_numpy(found[i].copy()) for i in range(len(OUTPUTS))]

    return run


def difference(network: DenoiseNetwork, run: Run, *, blind: bool, size: tuple[int, int, int]) -> Difference:
    """Run both over the same frames, each with the state that it made itself.

    Args:
        network: in float32, on the CPU.
        run: of the exported graph.
        blind: as it was exported.
        size: streams, height and width.
    """
    graph = StepGraph(network, blind=blind).eval()
    n, height, width = size
    ours = theirs = network.initial_state(n, height, width)
    largest = rms = 0.0
    for noisy, keep in _clip(n, height, width):
        told = () if blind else (torch.full((n,), SIGMA),)
        before = (noisy, *told, torch.ones(n), keep)
        with torch.inference_mode():
            expected = graph(*before, *ours)
        found = run(dict(zip(input_names(blind=blind), (*before, *theirs), strict=True)))
        ours, theirs = next_state(expected), next_state(found)
        apart = (found[0] - expected[0]).abs()
        largest, rms = max(largest, float(apart.max())), max(rms, float(apart.square().mean().sqrt()))
    return Difference(largest, rms)


def _clip(n: int, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames of scenes that move under noise, and whether they follow from the one before."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.empty(0)
    for i in range(FRAMES):
        if i in (0, CUT):
            coarse = torch.rand(n, 3, 2 + height // 8, 2 + width // 8, generator=generator)
            scene = torch.nn.functional.interpolate(coarse, size=(height, width + FRAMES), mode="bicubic")
        noise = SIGMA * torch.randn(n, 3, height, width, generator=generator)
        yield scene[..., i : i + width] + noise, torch.full((n,), i != CUT)
