"""ONNX export by PyTorch's tracer, checked with ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vidnoise.disk import part_name
from vidnoise.errors import BackendError
from vidnoise.export.graph import KINDS, NetworkGraph, Size, scale_of
from vidnoise.model import DenoiseNetwork
from vidnoise.model.quantisation import packed

OPSET = 20
"""ONNX operator set: the oldest that defines GridSample as all implementations have it (16 and 18 leave gaps)."""

_EXAMPLE = (1, 48, 80)
"""Streams, height and width while tracing; they leave no trace in a dynamic graph."""


def _axes(names: tuple[str, ...]) -> dict[str, dict[int, str]]:
    """Return the names of the dynamic axes of tensors."""
    axes = {}
    for name in names:
        scale = scale_of(name)
        places = {} if scale is None else {2: f"height/{scale}", 3: f"width/{scale}"}
        axes[name] = {0: "streams", **{i: text.removesuffix("/1") for i, text in places.items()}}
    return axes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracer's warnings about constant shapes: those it means are constant (numbers of channels)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


@torch.inference_mode(False)
def write_onnx(
    network: DenoiseNetwork,
    path: str | os.PathLike[str],
    kind: str = "step",
    *,
    size: Size | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write one of a network's graphs as an ONNX file, atomically.

    Args:
        network: On the CPU.
        path: File to write.
        kind: Kind of graph, see :data:`KINDS`.
        size: Streams, height and width (multiples of 16); ``None`` leaves them dynamic.
        dtype: Precision of the convolutions; everything else, including inputs and outputs, is float32. In int8, the
            convolutions are floats between QuantizeLinear and DequantizeLinear, and their weights are stored as int8.

    Raises:
        BackendError: The package ``onnx`` is missing.
    """
    try:
        import onnx
    except ImportError as ex:
        raise BackendError("writing ONNX needs the package onnx: pip install 'vidnoise[export]'") from ex
    graph = NetworkGraph(network.in_precision(dtype), kind).eval()
    inputs, outputs, _ = KINDS[kind]
    part = Path(part_name(os.fspath(path)))
    with _quiet(), torch.no_grad():
        # The newer exporter (dynamo=True) gives the same graph but takes thirty times as long.
        torch.onnx.export(
            graph, graph.example(size or _EXAMPLE), part, dynamo=False, opset_version=OPSET,
            input_names=inputs, output_names=outputs, dynamic_axes=None if size else _axes(inputs + outputs),
        )  # fmt: skip
    if dtype is torch.int8:
        onnx.save(_with_packed_weights(onnx.load(part), graph), part)
    os.replace(part, path)


def _with_packed_weights(model: Any, graph: NetworkGraph) -> Any:
    """Replace the float weights that a graph quantises by the integers that it makes of them."""
    from onnx import numpy_helper

    whole = model.graph
    integers = {f"network.{key}": value for key, value in packed(graph.network).items() if value.dtype is torch.int8}
    initializers = {tensor.name: tensor for tensor in whole.initializer}
    for node in [node for node in whole.node if node.op_type == "QuantizeLinear" and node.input[0] in integers]:
        name = node.input[0]
        initializers[name].CopyFrom(numpy_helper.from_array(integers[name].numpy(), node.output[0]))
        whole.node.remove(node)
    return model
