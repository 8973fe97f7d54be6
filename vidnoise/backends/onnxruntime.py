"""ONNX Runtime in float32 or int8, for CPUs on which PyTorch is slow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidnoise.backends.exported import Exported
from vidnoise.errors import BackendError
from vidnoise.export.graph import KINDS, Size
from vidnoise.export.onnxruntime import import_onnxruntime, open_session
from vidnoise.export.store import stored_onnx
from vidnoise.model import DenoiseNetwork


class OnnxRuntime(Exported):
    """The ONNX Runtime backend. One session per kind of graph serves all sizes."""

    name = "onnxruntime"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        import_onnxruntime()
        if device.type != "cpu" or dtype not in (torch.float32, torch.int8):
            raise BackendError(
                'backend onnxruntime runs on the CPU in fp32 or int8: use device="cpu", precision="fp32"'
            )
        super().__init__(network, device)
        self._dtype = dtype
        self._sessions: dict[str, Any] = {}

    def _session(self, kind: str) -> Any:
        if kind not in self._sessions:
            with stored_onnx(self._network, kind, self._dtype) as path:
                self._sessions[kind] = open_session(path, torch.get_num_threads())
        return self._sessions[kind]

    def _run(self, kind: str, size: Size, inputs: dict[str, Tensor]) -> list[Tensor]:
        fed = {name: tensor.numpy() for name, tensor in inputs.items()}
        return [torch.from_numpy(array) for array in self._session(kind).run(KINDS[kind].outputs, fed)]
