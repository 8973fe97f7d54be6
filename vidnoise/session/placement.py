"""Placement of a session's network: the device, the arithmetic, the loaded model and the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from vidnoise.backends import FLOAT32_ONLY, open_backend
from vidnoise.backends.device import resolve_device, resolve_precision
from vidnoise.backends.tiled import Tiled
from vidnoise.errors import UsageError
from vidnoise.options import DeviceOptions
from vidnoise.weights import Model, ModelLike, as_int8, as_model

if TYPE_CHECKING:
    from vidnoise.backends.protocol import Backend
    from vidnoise.model import DenoiseNetwork

INT8_TOLERANCE_DB = 0.05
"""Maximum loss of int8 weights, by their card, at which the backend ``auto`` may choose them."""


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
        UsageError: ``max_memory`` and the backend do not go together, or the model has no int8 weights.
    """
    backend, max_memory = options.backend, options.max_memory
    device = resolve_device(options.device)
    name = backend if isinstance(backend, str) else backend.name
    is_float32 = options.precision == "auto" and name in FLOAT32_ONLY
    dtype = torch.float32 if is_float32 else resolve_precision(options.precision, device)
    loaded = as_model(model, device)
    if dtype is torch.int8:
        loaded = as_int8(loaded, device)
    if not isinstance(backend, str):
        if max_memory is not None:
            raise UsageError("max_memory is that of the session whose backend is shared: leave it out", "max_memory")
        opened = cast("Backend", backend)
    elif max_memory is None:
        may_be_int8 = backend == "auto" and options.precision == "auto" and device.type == "cpu"
        int8 = _int8_for_auto(loaded) if may_be_int8 else None
        opened = open_backend(backend, loaded.network, device=device, dtype=dtype, int8=int8)
    elif dtype is torch.int8:
        raise UsageError(
            'max_memory goes with the backend eager, which only imitates int8: use precision="fp32"',
            "max_memory", "precision",
        )  # fmt: skip
    elif backend not in ("auto", "eager"):
        raise UsageError(
            f"max_memory goes with the backend eager, which denoises in tiles, not with {backend}",
            "max_memory", "backend",
        )  # fmt: skip
    else:
        opened = Tiled(loaded.network, device=device, dtype=dtype, max_memory=max_memory, lookahead=lookahead)
    return Placement(device, dtype, loaded, opened)


def _int8_for_auto(loaded: Model) -> DenoiseNetwork | None:
    """Return the network with a model's int8 weights, if there are any that lose little enough."""
    if loaded.int8 is None and not loaded.network.config.quantised:
        return None
    found = as_int8(loaded)
    loss = found.card.metrics.get("int8_loss_db")
    return found.network if isinstance(loss, (int, float)) and loss <= INT8_TOLERANCE_DB else None
