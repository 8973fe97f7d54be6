"""Placement of a session's network: the device, the arithmetic, the loaded model and the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from vidnoise.backends import FLOAT32_ONLY, open_backend
from vidnoise.backends.device import resolve_device, resolve_precision
from vidnoise.backends.tiled import Tiled
from vidnoise.errors import UsageError
from vidnoise.options import DeviceOptions
from vidnoise.weights import Model, ModelLike, as_model

if TYPE_CHECKING:
    from vidnoise.backends.protocol import Backend


class Placement(NamedTuple):
    """The outcome of a session's :class:`~vidnoise.options.DeviceOptions`."""

    device: torch.device
    dtype: torch.dtype
    """Type of the network's convolutions."""
    model: Model
    backend: Backend


def place(model: ModelLike, options: DeviceOptions, lookahead: int) -> Placement:
    """Load the model onto its device, and open the backend that runs it, or take the given one.

    Args:
        model: The model, or its name.
        options: The options of the session.
        lookahead: Number of later frames that the session waits for, which take memory as well.

    Raises:
        UnknownModelError, WeightsError: See :func:`vidnoise.load_model`.
        DeviceError: The device does not exist.
        BackendError: The backend is not installed, or does not support the device.
        UsageError: ``max_memory`` and the backend do not go together.
    """
    backend, max_memory = options.backend, options.max_memory
    device = resolve_device(options.device)
    name = backend if isinstance(backend, str) else backend.name
    is_float32 = options.precision == "auto" and name in FLOAT32_ONLY
    dtype = torch.float32 if is_float32 else resolve_precision(options.precision, device)
    loaded = as_model(model, device)
    if not isinstance(backend, str):
        if max_memory is not None:
            raise UsageError("max_memory is that of the session whose backend is shared: leave it out", "max_memory")
        opened = cast("Backend", backend)
    elif max_memory is None:
        opened = open_backend(backend, loaded.network, device=device, dtype=dtype)
    elif backend not in ("auto", "eager"):
        raise UsageError(
            f"max_memory goes with the backend eager, which denoises in tiles, not with {backend}",
            "max_memory", "backend",
        )  # fmt: skip
    else:
        opened = Tiled(loaded.network, device=device, dtype=dtype, max_memory=max_memory, lookahead=lookahead)
    return Placement(device, dtype, loaded, opened)
