"""OpenVINO on the CPU: fuses chains of small operations; convolutions in bf16 where the CPU has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import BackendError
from ..export.openvino import import_openvino, openvino_core, read_graph
from ..export.store import stored_onnx
from ..model import Denoised, DenoiseNetwork, State
from .exported import denoised, empty_outputs, named_inputs

_KEPT = 4
"""Sizes whose compiled graphs are kept: changes of size are rare, batches of streams grow and shrink."""


class OpenVino:
    """See :class:`~vidnoise.backends.protocol.Backend`.

    A graph is compiled for each size when it first comes, and kept while sizes do not change: known sizes are what
    lets memory be planned. Tensors are handed over and taken without copies.
    """

    name = "openvino"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        self._openvino = import_openvino()
        if device.type != "cpu":
            raise BackendError(f"backend openvino runs on the CPU, not on {device}: use --device cpu")
        self._core = openvino_core()
        if dtype is not torch.float32 and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError("OpenVINO has no bf16 on this CPU: use --precision fp32")
        self._network = network
        self._dtype = dtype
        self._requests: dict[tuple[int, ...], Any] = {}

    def initial_state(self, n: int, height: int, width: int) -> State:
        return self._network.initial_state(n, height, width)

    def _request(self, blind: bool, shape: torch.Size) -> Any:
        key = (blind, *shape)
        if key not in self._requests:
            with stored_onnx(self._network, blind=blind, dtype=self._dtype) as path:
                n, _, height, width = shape
                graph = read_graph(path, self._network, blind=blind, size=(n, height, width))
            compiled = self._core.compile_model(
                graph, "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    # The graph says itself what is in halves. The hint would round coordinates, too.
                    "INFERENCE_PRECISION_HINT": "f32",
                    # Decoder and encoder have threads of their own on the same cores.
                    "ENABLE_CPU_PINNING": False,
                },
            )  # fmt: skip
            if len(self._requests) >= _KEPT:
                del self._requests[next(iter(self._requests))]
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]

    @torch.inference_mode()
    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor, state: State
    ) -> Denoised:
        request = self._request(sigma is None, noisy.shape)
        inputs, outputs = named_inputs(noisy, sigma, boost, keep, state), empty_outputs(noisy, state)
        for name, tensor in inputs.items():
            request.set_tensor(name, self._shared(tensor))
        for i, tensor in enumerate(outputs):
            request.set_output_tensor(i, self._shared(tensor))
        request.infer()
        return denoised(outputs)

    def _shared(self, tensor: Tensor) -> Any:
        return self._openvino.Tensor(tensor.numpy(), shared_memory=True)
