"""Devices and precisions by their names."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vidnoise.errors import DeviceError, UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


def resolve_device(name: str | torch.device | Sequence[str]) -> torch.device:
    """Return the device of a name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        DeviceError: The device does not exist here; there is no fallback.
        UsageError: There are several.
    """
    if isinstance(name, torch.device):
        name = str(name)
    if not isinstance(name, str):
        raise UsageError(f"device must be one here, got {list(name)!r}; denoise_file takes several", "device")
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            have = f"this machine has {count}" if count else "no CUDA device was found"
            raise DeviceError(f'device {name!r} is not available: {have}; use device="cpu" or "auto"')
        return torch.device(f"cuda:{number or 0}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError('device \'mps\' is not available on this machine; use device="cpu" or "auto"')
    return torch.device(kind)


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the data type of the network's convolutions for a name: ``auto`` or one of :data:`PRECISIONS`.

    Raises:
        UsageError: There is no such precision, or the device does not support it.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.float16
        # Without native instructions, bfloat16 on a CPU is emulated and slower than float32.
        return torch.bfloat16 if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else torch.float32
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}; use auto, {', '.join(PRECISIONS)}", "precision")
    if device.type != "cuda" and name == "fp16":
        raise UsageError(f"precision fp16 is for CUDA devices; on {device.type} use bf16 or fp32", "precision")
    if device.type != "cpu" and name == "int8":
        raise UsageError(f"precision int8 is for the CPU; on {device.type} use fp16 or bf16", "precision")
    return PRECISIONS[name]


def precision_name(dtype: torch.dtype) -> str:
    """Return the name of a precision, such as ``bf16`` for ``torch.bfloat16``."""
    return next(name for name, d in PRECISIONS.items() if d is dtype)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all work so far; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
