"""Mixed precision for the convolutions in training. Weights, losses and warps stay in float32."""

from __future__ import annotations

import contextlib

import torch

from vidnoise.errors import UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast, and for float16 loss scaling (Micikevicius et al., arXiv:1710.03740).

    Args:
        name: ``fp32``, ``bf16``, ``fp16`` or ``auto``: bf16 where the device supports it; else fp16 on CUDA,
            fp32 elsewhere.
        device: The training device.

    Raises:
        UsageError: The name is unknown.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "auto":
            if device.type == "cuda":
                name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
            else:
                name = "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"
        if name not in PRECISIONS:
            raise UsageError(f"unknown precision {name!r}; use auto, {', '.join(PRECISIONS)}")
        self.name, self.device, self.dtype = name, device, PRECISIONS[name]
        # Gradients below 6e-8 would vanish in float16; bfloat16 has float32's range.
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return a context in which convolutions run at this precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.name != "fp32")
