"""TensorRT on NVIDIA GPUs: an engine per size, built by the script that ``vidnoise export`` writes, and cached."""

from __future__ import annotations

import copy
import hashlib
import importlib
import logging
import runpy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vidnoise.backends.exported import Exported
from vidnoise.cache import load, store
from vidnoise.errors import BackendError
from vidnoise.export.graph import KINDS, Size
from vidnoise.export.store import fingerprint, stored_onnx
from vidnoise.export.tensorrt import write_build_script
from vidnoise.kernels import launching_on
from vidnoise.model import DenoiseNetwork

log = logging.getLogger(__name__)

_KEPT = 12
"""Engines kept loaded at once, as each holds memory on the device. A size with lookahead needs three."""


class Gpu(Protocol):
    """Runs the work that an engine enqueues; tests have a fake one."""

    @property
    def kind(self) -> str:
        """Description of the GPU, to which engines are bound, besides TensorRT's version."""
        ...

    def run(self, enqueue: Callable[[int], bool]) -> bool:
        """Call ``enqueue`` with the handle of a stream, ordered with respect to the current stream.

        Its work runs after all earlier work of the current stream and before all later work. Returns the result of
        ``enqueue``.
        """
        ...


class CudaGpu:
    """A CUDA device with a stream of its own: on the default stream, TensorRT synchronises at each step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        major, minor = torch.cuda.get_device_capability(device)
        self.kind = f"{torch.cuda.get_device_name(device)} {major}.{minor}"

    def run(self, enqueue: Callable[[int], bool]) -> bool:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with launching_on(self._device):
            done = enqueue(self._stream.cuda_stream)
        # The step's memory belongs to the current stream, which may reuse it only after this.
        current.wait_stream(self._stream)
        return done


class TensorRT(Exported):
    """The TensorRT backend.

    An engine is built, which takes minutes, on the first use of its size and kind of graph, and kept between runs.
    Engines do not work in place: a step writes the new state to other memory than it reads the old one from.

    Args:
        network, device, dtype: As for all backends.
        gpu: Runs the engines; by default ``device``.

    Raises:
        BackendError: TensorRT 10 or newer is not installed, or the device is not a CUDA device.
    """

    name = "tensorrt"

    def __init__(
        self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype, gpu: Gpu | None = None
    ) -> None:
        if gpu is None and device.type != "cuda":
            raise BackendError(f'backend tensorrt needs a CUDA device, not {device}; use backend="auto"')
        if dtype not in (torch.float16, torch.float32):
            raise BackendError('backend tensorrt runs in fp16 or fp32: use precision="fp16"')
        try:
            tensorrt: Any = importlib.import_module("tensorrt")
        except ImportError as ex:
            raise BackendError('TensorRT is not installed: pip install tensorrt, or use backend="auto"') from ex
        if int(tensorrt.__version__.partition(".")[0]) < 10:
            raise BackendError(f"backend tensorrt needs TensorRT 10 or newer, not {tensorrt.__version__}")
        self._version: str = tensorrt.__version__
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        super().__init__(network, device)
        self._dtype = dtype
        self._gpu = gpu or CudaGpu(device)
        self._contexts: dict[tuple[str, Size], Any] = {}
        self._fingerprint = ""

    def _context(self, kind: str, size: Size) -> Any:
        """Return an execution context for a size, which keeps its engine alive."""
        key = kind, size
        if key not in self._contexts:
            if len(self._contexts) >= _KEPT:
                del self._contexts[next(iter(self._contexts))]
            with launching_on(self._device):
                context = self._engine(kind, size).create_execution_context()
            if context is None:
                raise torch.OutOfMemoryError(f"TensorRT has no memory for an engine of {size[2]}x{size[1]}")
            self._contexts[key] = context
        return self._contexts[key]

    def _engine(self, kind: str, size: Size) -> Any:
        self._fingerprint = self._fingerprint or fingerprint(self._network)
        facts = (self._fingerprint, kind, self._dtype, size, self._gpu.kind, self._version)
        kept = f"tensorrt/{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}.engine"
        content = load(kept)
        engine = None if content is None else self._runtime.deserialize_cuda_engine(content)
        if engine is None:  # not cached, or built on another machine
            log.info("building a TensorRT engine (%s) for %dx%d, which takes minutes", kind, size[2], size[1])
            content = self._built(kind, size)
            engine = self._runtime.deserialize_cuda_engine(content)
            if engine is None:
                raise BackendError('TensorRT cannot read the engine it has built; use backend="auto"')
            store(kept, content)
        return engine

    def _built(self, kind: str, size: Size) -> bytes:
        network = copy.deepcopy(self._network).cpu()
        with tempfile.TemporaryDirectory(prefix="vidnoise-") as name:
            onnx, script = Path(name) / "network.onnx", Path(name) / "build.py"
            with stored_onnx(network, kind, self._dtype) as path:
                shutil.copyfile(path, onnx)
            write_build_script(onnx, script, network, kind, size=None, sizes=(size, size, size))
            try:
                return runpy.run_path(str(script))["build"](Path(name)).read_bytes()
            except SystemExit as ex:
                raise BackendError(f'TensorRT cannot build the network, use backend="auto": {ex}') from ex

    def _run(self, kind: str, size: Size, inputs: dict[str, Tensor]) -> list[Tensor]:
        context, outputs = self._context(kind, size), self._outputs(kind, size)
        for name, tensor in inputs.items():
            context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())
        for name, tensor in zip(KINDS[kind].outputs, outputs, strict=True):
            context.set_tensor_address(name, tensor.data_ptr())
        if not self._gpu.run(context.execute_async_v3):
            raise BackendError("TensorRT failed to run a step; its messages above say why")
        return outputs
