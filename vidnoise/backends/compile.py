"""``torch.compile``: fuses chains of small operations into C++ loops (on a GPU, Triton kernels) in a minute or two.

``auto`` never chooses it: whether it pays off depends on the machine, and the first frame of each size has to wait for
the compiler.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vidnoise.backends.exported import Exported
from vidnoise.errors import BackendError
from vidnoise.export.graph import NetworkGraph, Size
from vidnoise.model import DenoiseNetwork


class Compile(Exported):
    """The ``torch.compile`` backend. Each size and kind of graph is compiled separately."""

    name = "compile"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        if dtype is torch.int8:
            raise BackendError('backend compile does not run in int8: use backend="openvino" or "onnxruntime"')
        _check_compiler(device)
        super().__init__(network.in_precision(dtype), device)
        self._compiled: dict[tuple[str, Size], Callable[..., tuple[Tensor, ...]]] = {}

    def _run(self, kind: str, size: Size, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        key = kind, size
        if key not in self._compiled:
            # Dynamo limits how often it compiles one function; a copy counts as another.
            forward = functools.partial(NetworkGraph.forward, NetworkGraph(self._network, kind))
            self._compiled[key] = torch.compile(forward, backend=_backend(self._device), dynamic=False, fullgraph=True)
        try:
            return self._compiled[key](*inputs.values())
        except torch.OutOfMemoryError:
            raise
        except Exception as ex:  # errors of dynamo, inductor and the compiler have nothing in common
            reason = " ".join(str(ex).split())[:200] or type(ex).__name__
            raise BackendError(f'torch.compile failed here, use backend="eager": {reason}') from ex


def _backend(device: torch.device) -> Any:
    """Return Inductor; on the CPU without its bicubic GridSample, which takes ten times as long as PyTorch's."""
    if device.type != "cpu":
        return "inductor"
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    sample = torch.ops.aten.grid_sampler_2d
    kept = {op: rule for op, rule in select_decomp_table().items() if op not in (sample, sample.default)}
    return functools.partial(compile_fx, decompositions=kept)


def _check_compiler(device: torch.device) -> None:
    """Check that the generated code can be compiled.

    Raises:
        BackendError: The compiler is missing.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise BackendError('backend compile needs triton on a GPU: pip install triton, or use backend="auto"')
        return
    if device.type != "cpu":
        raise BackendError(f'backend compile runs on the CPU and on CUDA, not on {device}: use backend="eager"')
    names = [os.environ["CXX"]] if "CXX" in os.environ else {"win32": ["cl"], "darwin": ["clang++"]}.get(
        sys.platform, ["g++", "clang++"]
    )  # fmt: skip
    if not any(shutil.which(name) for name in names):
        raise BackendError(
            f"backend compile needs a C++ compiler ({' or '.join(names)} was not found): install one, name it in the "
            'environment variable CXX, or use backend="eager"'
        )
