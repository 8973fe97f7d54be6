"""OpenVINO on the CPU: fuses chains of small operations, and runs convolutions in bf16 or int8 if the CPU can."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidnoise.backends.device import precision_name
from vidnoise.backends.exported import Exported
from vidnoise.errors import BackendError
from vidnoise.export.graph import Size
from vidnoise.export.openvino import import_openvino, openvino_core, read_graph
from vidnoise.export.store import stored_onnx
from vidnoise.model import DenoiseNetwork

_KEPT = 12
"""Compiled graphs kept at once. A size with lookahead needs three; changes of size are rare, but batches of streams
grow and shrink."""


class OpenVino(Exported):
    """The OpenVINO backend.

    Graphs are compiled for each size on first use, and the latest are kept: fixed sizes let OpenVINO plan its memory.
    Tensors are exchanged without copies.
    """

    name = "openvino"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        self._openvino = import_openvino()
        if device.type != "cpu":
            raise BackendError(f'backend openvino runs on the CPU, not on {device}: use device="cpu"')
        self._core = openvino_core()
        name = precision_name(dtype)
        if name != "fp32" and name.upper() not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError(f'OpenVINO has no {name} on this CPU: use precision="fp32"')
        super().__init__(network, device)
        self._dtype = dtype
        self._requests: dict[tuple[str, Size], Any] = {}

    def _request(self, kind: str, size: Size) -> Any:
        key = kind, size
        if key not in self._requests:
            with stored_onnx(self._network, kind, self._dtype) as path:
                graph = read_graph(path, self._network, size)
            compiled = self._core.compile_model(
                graph, "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    # The graph itself defines what is in half precision. The hint would round coordinates, too.
                    "INFERENCE_PRECISION_HINT": "f32",
                    # Decoder and encoder threads share the same cores.
                    "ENABLE_CPU_PINNING": False,
                },
            )  # fmt: skip
            if len(self._requests) >= _KEPT:
                del self._requests[next(iter(self._requests))]
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]

    def _run(self, kind: str, size: Size, inputs: dict[str, Tensor]) -> list[Tensor]:
        request, outputs = self._request(kind, size), self._outputs(kind, size)
        for name, tensor in inputs.items():
            request.set_tensor(name, self._shared(tensor))
        for i, tensor in enumerate(outputs):
            request.set_output_tensor(i, self._shared(tensor))
        request.infer()
        return outputs

    def _shared(self, tensor: Tensor) -> Any:
        return self._openvino.Tensor(tensor.numpy(), shared_memory=True)
