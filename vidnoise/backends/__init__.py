"""Ways to run a network. A new one is a file here and a line in :data:`BACKENDS`; see docs/BACKENDS.md."""

from __future__ import annotations

import difflib
import functools
import importlib
from typing import TYPE_CHECKING

from vidnoise.errors import UsageError

if TYPE_CHECKING:
    import torch

    from vidnoise.backends.protocol import Backend
    from vidnoise.model import DenoiseNetwork

BACKENDS: dict[str, str] = {
    "eager": "vidnoise.backends.eager:Eager",
    "compile": "vidnoise.backends.compile:Compile",
    "openvino": "vidnoise.backends.openvino:OpenVino",
    "onnxruntime": "vidnoise.backends.onnxruntime:OnnxRuntime",
    "cuda-graph": "vidnoise.backends.cuda_graph:CudaGraph",
    "tensorrt": "vidnoise.backends.tensorrt:TensorRT",
}
"""Backend names to ``module:class``, imported on use."""


FLOAT32_ONLY = frozenset({"onnxruntime"})
"""Backends that run in float32 only, which is thus their default precision."""


def steady_backend(name: str, device: torch.device) -> str:
    """Return a replacement for ``name`` that never pauses in mid-stream, for live inputs: one without trials."""
    return "eager" if name == "auto" and device.type == "cpu" else name


def check_backend(name: str) -> None:
    """Check that a backend exists, without importing it.

    Raises:
        UsageError: There is no such backend.
    """
    if name != "auto" and name not in BACKENDS:
        near = difflib.get_close_matches(name, ["auto", *BACKENDS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown backend {name!r}{hint} (there are: auto, {', '.join(BACKENDS)})", "backend")


def open_backend(name: str, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> Backend:
    """Open a backend by name, for a network on ``device`` whose convolutions run in ``dtype``.

    Raises:
        UsageError: There is no such backend.
        BackendError: A package it needs is not installed, or it cannot run on this device in this precision.
    """
    check_backend(name)
    if name == "auto" and device.type == "cpu":
        from vidnoise.backends.auto import Auto

        opener = functools.partial(open_backend, network=network, device=device, dtype=dtype)
        return Auto(network, device=device, dtype=dtype, open=opener)
    if name == "auto":
        name = "cuda-graph" if device.type == "cuda" else "eager"
    module, _, class_name = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), class_name)(network, device=device, dtype=dtype)
