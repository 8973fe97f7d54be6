"""Ways to run a network. A new one is a file here and a line in :data:`BACKENDS`; see docs/BACKENDS.md."""

from __future__ import annotations

import difflib
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


def steady_backend(name: str, device: torch.device, precision: str = "auto") -> str:
    """Return a replacement for ``name`` that never pauses in mid-stream, for live inputs: one without trials."""
    return "eager" if name == "auto" and device.type == "cpu" and precision != "int8" else name


def check_backend(name: str) -> None:
    """Check that a backend exists, without importing it.

    Raises:
        UsageError: There is no such backend.
    """
    if name != "auto" and name not in BACKENDS:
        near = difflib.get_close_matches(name, ["auto", *BACKENDS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown backend {name!r}{hint} (there are: auto, {', '.join(BACKENDS)})", "backend")


def open_backend(
    name: str,
    network: DenoiseNetwork,
    *,
    device: torch.device,
    dtype: torch.dtype,
    int8: DenoiseNetwork | None = None,
) -> Backend:
    """Open a backend by name, for a network on ``device`` whose convolutions run in ``dtype``.

    Args:
        name: A key of :data:`BACKENDS`, or ``auto``.
        network: The network; in int8, one that is quantised.
        device: Its device.
        dtype: Type of the convolutions.
        int8: The network with int8 weights, which ``auto`` may choose on a CPU where it is faster.

    Raises:
        UsageError: There is no such backend.
        BackendError: A package it needs is not installed, or it cannot run on this device in this precision.
    """
    import torch

    check_backend(name)
    if name == "auto" and dtype is torch.int8:
        name = "openvino"  # eager would only imitate it
    if name == "auto" and device.type == "cpu":
        from vidnoise.backends.auto import CANDIDATES, IN_INT8, Auto
        from vidnoise.backends.measurements import Measurements

        def opener(name: str) -> Backend:
            if name == IN_INT8 and int8 is not None:
                return open_backend("openvino", int8, device=device, dtype=torch.int8)
            return open_backend(name, network, device=device, dtype=dtype)

        return Auto(
            network, device=device, dtype=dtype, open=opener,
            candidates=CANDIDATES if int8 is None else (*CANDIDATES, IN_INT8),
            measurements=Measurements(network, device, dtype, int8),
        )  # fmt: skip
    if name == "auto":
        name = "cuda-graph" if device.type == "cuda" else "eager"
    module, _, class_name = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), class_name)(network, device=device, dtype=dtype)
