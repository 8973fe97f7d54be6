"""Fused Triton kernels for the memory-bound operations around the convolutions.

Each does in one pass over memory what a chain of PyTorch operations does in many. That chain is the reference: other
devices run it, and ``tests/kernels/test_kernels.py`` compares the kernels with it, on the CPU too (in Triton's
interpreter).

| kernel | reference |
|---|---|
| :func:`.planes_in.to_rgb` | :func:`vidnoise.color.to_rgb`, padded |
| :func:`.bands.rgb_to_bands`, :func:`.bands.bands_to_rgb` | their namesakes in :mod:`vidnoise.model.luma_chroma` |
| :func:`.bands.remove_noise` | :meth:`vidnoise.model.operations.Operations.remove_noise` |
| :func:`.warp.warp_bands` | :func:`vidnoise.model.warp.warp`, bicubic, then ``rgb_to_bands`` |
| :func:`.warp.warp_ratio` | :func:`~vidnoise.model.warp.warp` and :func:`~vidnoise.model.warp.outside` |
| :func:`.warp.reset` | :func:`vidnoise.model.state.reset_unless` |
| :func:`.planes_out.apply_correction` | :func:`vidnoise.color.apply_correction` |

The kernels take integer samples only; float pictures are left to the reference.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os

import torch

from vidnoise.errors import UsageError
from vidnoise.frame import Frame

OPTIONS = {"enable_fp_fusion": False}
"""Options of every launch. Without fusion, products and sums are rounded separately, as in the reference; this costs
nothing, as all kernels are memory-bound."""


def wanted() -> bool:
    """Return whether kernels are wanted: unless ``VIDNOISE_KERNELS=off``.

    Raises:
        UsageError: ``VIDNOISE_KERNELS`` is neither ``on`` nor ``off``.
    """
    wish = os.environ.get("VIDNOISE_KERNELS", "on")
    if wish not in ("on", "off"):
        raise UsageError(f"VIDNOISE_KERNELS must be on or off, got {wish!r}")
    return wish == "on"


def enabled(device: torch.device) -> bool:
    """Return whether the Triton kernels are used: on CUDA where triton is installed, if :func:`wanted`."""
    return wanted() and device.type == "cuda" and importlib.util.find_spec("triton") is not None


def takes(frame: Frame) -> bool:
    """Return whether there are kernels for the samples of ``frame``."""
    return not frame.format.is_float


def launching_on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Make ``device`` current, as Triton launches on the current device whatever that of the tensors is."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
