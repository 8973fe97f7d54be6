"""OpenVINO for the spatial core on the CPU: faster convolutions than PyTorch's, and those in bf16 or int8 if it can."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidnoise.backends.device import precision_name
from vidnoise.backends.eager import Eager
from vidnoise.errors import BackendError
from vidnoise.export.graph import Size, shape_of
from vidnoise.export.openvino import import_openvino, openvino_core, read_graph
from vidnoise.export.store import stored_onnx
from vidnoise.model import DenoiseNetwork
from vidnoise.model.dncnn import CoreOutput


def offers(capability: str) -> bool:
    """Return whether OpenVINO makes use of a capability of this CPU, such as ``BF16`` or ``INT8``."""
    return capability in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


_KEPT = 8
"""Compiled cores kept at once. Changes of size are rare, but batches of streams grow and shrink."""


class OpenVino(Eager):
    """The OpenVINO backend: all but the spatial core as in :class:`Eager`.

    What surrounds the core is bound by memory, and kernels made for it beat OpenVINO's general ones: a whole frame as
    one graph takes 1.4 to 1.8 times as long.
    """

    name = "openvino"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        import_openvino()
        if device.type != "cpu":
            raise BackendError(f'backend openvino runs on the CPU, not on {device}: use device="cpu"')
        name = precision_name(dtype)
        if name != "fp32" and not offers(name.upper()):
            raise BackendError(f'OpenVINO has no {name} on this CPU: use precision="fp32"')
        # What is not in int8 runs in half precision if the CPU has it, which is as good, and twice as fast.
        rest = torch.bfloat16 if dtype is torch.int8 and offers("BF16") else dtype
        super().__init__(network, device=device, dtype=rest)
        self.core = Core(network, dtype, rest)
        self.network.core_elsewhere = self.core


class Core:
    """A network's spatial core in OpenVINO.

    Graphs are compiled for each size on first use, and the latest are kept: fixed sizes let OpenVINO plan its memory.
    Tensors are exchanged without copies.

    Args:
        network: The network.
        dtype: Precision of its convolutions.
        rest: Precision of those that are not in int8, and of the input; that of the others by default.
    """

    def __init__(self, network: DenoiseNetwork, dtype: torch.dtype, rest: torch.dtype | None = None) -> None:
        self._network, self._dtype, self._rest = network, dtype, rest or dtype
        self._openvino = import_openvino()
        self._requests: dict[Size, Any] = {}

    def __call__(self, inputs: Tensor, hidden: Tensor) -> CoreOutput:
        """Run the core; arguments as for :meth:`DnCNN.forward`."""
        n, _, h, w = inputs.shape
        size = n, 2 * h, 2 * w
        request = self._request(size)
        results = [
            torch.empty(shape_of(name, self._network, size)).contiguous(memory_format=torch.channels_last)
            for name in ("residual", "hidden")
        ]
        given = [x.permute(0, 2, 3, 1).contiguous() for x in (inputs, hidden.float())]  # kept while the request runs
        for i, x in enumerate(given):
            request.set_input_tensor(i, self._shared(x))
        for i, x in enumerate(results):
            request.set_output_tensor(i, self._shared(x.permute(0, 2, 3, 1)))
        request.infer()
        return CoreOutput(*results)

    def _request(self, size: Size) -> Any:
        if size not in self._requests:
            with stored_onnx(self._network, "core", self._dtype) as path:
                graph = read_graph(path, self._network, size)
            compiled = openvino_core().compile_model(
                self._channels_last(graph), "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    # A graph in floating point defines its precision itself.
                    "INFERENCE_PRECISION_HINT": "bf16" if self._rest is not self._dtype else "f32",
                    # Decoder and encoder threads share the same cores.
                    "ENABLE_CPU_PINNING": False,
                },
            )  # fmt: skip
            if len(self._requests) >= _KEPT:
                del self._requests[next(iter(self._requests))]
            self._requests[size] = compiled.create_infer_request()
        return self._requests[size]

    def _channels_last(self, graph: Any) -> Any:
        """Let a graph take and return tensors in the channels-last layout of what surrounds it."""
        openvino = self._openvino
        around = openvino.preprocess.PrePostProcessor(graph)
        for port in (*map(around.input, range(2)), *map(around.output, range(2))):
            port.tensor().set_layout(openvino.Layout("NHWC"))
            port.model().set_layout(openvino.Layout("NCHW"))
        if self._rest is torch.bfloat16:  # then what surrounds it writes its input so
            around.input(0).tensor().set_element_type(openvino.Type.bf16)
        return around.build()

    def _shared(self, tensor: Tensor) -> Any:
        """Return a contiguous tensor for OpenVINO, which neither copies nor keeps it."""
        if tensor.dtype is not torch.bfloat16:
            return self._openvino.Tensor(tensor.numpy(), shared_memory=True)
        bits = tensor.view(torch.int16).numpy()  # NumPy has no bfloat16
        return self._openvino.Tensor(bits, self._openvino.Shape(list(tensor.shape)), self._openvino.Type.bf16)
