"""ONNX Runtime for the spatial core on the CPU, for CPUs on which PyTorch's convolutions are slow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidnoise.backends.eager import Eager
from vidnoise.errors import BackendError
from vidnoise.export.graph import KINDS
from vidnoise.export.onnxruntime import import_onnxruntime, open_session
from vidnoise.export.store import stored_onnx
from vidnoise.model import DenoiseNetwork
from vidnoise.model.dncnn import CoreOutput


class OnnxRuntime(Eager):
    """The ONNX Runtime backend: all but the spatial core as in :class:`Eager`. One session serves all sizes."""

    name = "onnxruntime"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        import_onnxruntime()
        if device.type != "cpu" or dtype not in (torch.float32, torch.int8):
            raise BackendError(
                'backend onnxruntime runs on the CPU in fp32 or int8: use device="cpu", precision="fp32"'
            )
        super().__init__(network, device=device, dtype=dtype)
        self._plain, self._dtype = network, dtype
        self._session: Any = None
        self.network.core_elsewhere = self._core

    def _core(self, inputs: Tensor, hidden: Tensor) -> CoreOutput:
        """Run the core; arguments as for :meth:`DnCNN.forward`."""
        if self._session is None:
            with stored_onnx(self._plain, "core", self._dtype) as path:
                self._session = open_session(path, torch.get_num_threads())
        names = KINDS["core"]
        fed = {n: t.contiguous().numpy() for n, t in zip(names.inputs, (inputs, hidden), strict=True)}
        return CoreOutput(*map(torch.from_numpy, self._session.run(names.outputs, fed)))
