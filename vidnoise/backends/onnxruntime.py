"""ONNX Runtime, in float32: runs on CPUs that PyTorch is slow on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import BackendError
from ..export.graph import OUTPUTS
from ..export.onnxruntime import import_onnxruntime
from ..export.store import stored_onnx
from ..model import Denoised, DenoiseNetwork, State
from .exported import denoised, named_inputs


class OnnxRuntime:
    """See :class:`~vidnoise.backends.protocol.Backend`. One session serves all sizes."""

    name = "onnxruntime"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        onnxruntime = import_onnxruntime()
        if device.type != "cpu" or dtype is not torch.float32:
            raise BackendError("backend onnxruntime runs on the CPU in fp32: use --device cpu --precision fp32")
        self._onnxruntime = onnxruntime
        self._network = network
        self._sessions: dict[bool, Any] = {}

    def initial_state(self, n: int, height: int, width: int) -> State:
        return self._network.initial_state(n, height, width)

    def _session(self, blind: bool) -> Any:
        if blind not in self._sessions:
            options = self._onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            with stored_onnx(self._network, blind=blind) as path:
                self._sessions[blind] = self._onnxruntime.InferenceSession(
                    path, options, providers=["CPUExecutionProvider"]
                )
        return self._sessions[blind]

    @torch.inference_mode()
    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor, state: State
    ) -> Denoised:
        fed = {name: t.numpy() for name, t in named_inputs(noisy, sigma, boost, keep, state).items()}
        return denoised([torch.from_numpy(array) for array in self._session(sigma is None).run(OUTPUTS, fed)])
