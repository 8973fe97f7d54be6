"""How a network runs. A new way is a file here and a line in :data:`BACKENDS`; docs/BACKENDS.md has them all."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    import torch

    from ..model import DenoiseNetwork
    from .protocol import Backend

BACKENDS: dict[str, str] = {
    "eager": "vidnoise.backends.eager:Eager",
    "cuda-graph": "vidnoise.backends.cuda_graph:CudaGraph",
}
"""Name to ``module:class``, imported on use."""


def check_backend(name: str) -> None:
    """
    Raises:
        UsageError: there is no such backend.
    """
    if name != "auto" and name not in BACKENDS:
        near = difflib.get_close_matches(name, ["auto", *BACKENDS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown backend {name!r}{hint} (there are: auto, {', '.join(BACKENDS)})")


def open_backend(name: str, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend of that name, for a network on ``device`` whose convolutions run in ``dtype``.

    Raises:
        UsageError: there is no such backend.
        BackendError: what it needs is not installed, or it cannot run on this device in this precision.
    """
    check_backend(name)
    if name == "auto":
        name = "cuda-graph" if device.type == "cuda" else "eager"
    module, _, class_name = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), class_name)(network, device=device, dtype=dtype)
