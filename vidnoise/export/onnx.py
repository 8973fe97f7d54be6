"""ONNX: written by PyTorch's tracer, checked by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from vidnoise.disk import part_name
from vidnoise.errors import BackendError
from vidnoise.export.graph import KINDS, NetworkGraph, Size, scale_of
from vidnoise.model import DenoiseNetwork

OPSET = 20
"""The oldest whose GridSample is defined as everybody has it (16 and 18 leave corners open)."""

_EXAMPLE = (1, 48, 80)
"""Streams, height and width while tracing: nothing of them stays in a dynamic graph."""


def _axes(names: tuple[str, ...]) -> dict[str, dict[int, str]]:
    """Names of the dynamic axes of tensors."""
    axes = {}
    for name in names:
        scale = scale_of(name)
        places = {} if scale is None else {2: f"height/{scale}", 3: f"width/{scale}"}
        axes[name] = {0: "streams", **{i: text.removesuffix("/1") for i, text in places.items()}}
    return axes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The tracer warns of what it always does here: shapes that it takes for constants are (they count channels)."""
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
    """Write one of a network's graphs as an ONNX file; nobody sees it before it is whole.

    Args:
        network: on the CPU.
        path: where to.
        kind: which, see :data:`KINDS`.
        size: streams, height and width (multiples of 16); ``None`` leaves them open.
        dtype: of the convolutions; everything else, inputs and outputs too, is float32.

    Raises:
        BackendError: the package ``onnx`` is missing.
    """
    try:
        import onnx  # noqa: F401 - the tracer needs it
    except ImportError as ex:
        raise BackendError("writing ONNX needs the package onnx: pip install 'vidnoise[export]'") from ex
    graph = NetworkGraph(network.in_precision(dtype), kind).eval()
    inputs, outputs, _ = KINDS[kind]
    part = Path(part_name(os.fspath(path)))
    with _quiet(), torch.no_grad():
        # The newer exporter (dynamo=True) gives the same graph in thirty times the time.
        torch.onnx.export(
            graph, graph.example(size or _EXAMPLE), part, dynamo=False, opset_version=OPSET,
            input_names=inputs, output_names=outputs, dynamic_axes=None if size else _axes(inputs + outputs),
        )  # fmt: skip
    os.replace(part, path)
