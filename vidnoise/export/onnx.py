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

from ..disk import part_name
from ..errors import BackendError
from ..model import DenoiseNetwork
from .graph import OUTPUTS, StepGraph, input_names

OPSET = 20
"""The oldest whose GridSample is defined as everybody has it (16 and 18 leave corners open)."""

_EXAMPLE = (1, 48, 80)
"""Streams, height and width while tracing: nothing of them stays in a dynamic graph."""

_STEPS = {"noisy": 1, "previous": 1, "clean": 1, "fused": 1, "ratio": 2, "hidden": 4, "noise": 8}
"""By what height and width of a picture are divided in each tensor."""


def _axes(names: tuple[str, ...]) -> dict[str, dict[int, str]]:
    """Names of the dynamic axes of tensors."""
    axes = {}
    for name in names:
        step = _STEPS.get(name.removeprefix("next_"))
        places = {} if step is None else {2: f"height/{step}", 3: f"width/{step}"}
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
    *,
    blind: bool = True,
    size: tuple[int, int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write one step of a network as an ONNX file; nobody sees it before it is whole.

    Args:
        network: on the CPU.
        path: where to.
        blind: whether the noise level is estimated; otherwise ``sigma`` is an input.
        size: streams, height and width (multiples of 16); ``None`` leaves them open.
        dtype: of the convolutions; everything else, inputs and outputs too, is float32.

    Raises:
        BackendError: the package ``onnx`` is missing.
    """
    try:
        import onnx  # noqa: F401 - the tracer needs it
    except ImportError as ex:
        raise BackendError("writing ONNX needs the package onnx: pip install 'vidnoise[export]'") from ex
    graph = StepGraph(network.in_precision(dtype), blind=blind).eval()
    names = input_names(blind=blind)
    part = Path(part_name(os.fspath(path)))
    with _quiet(), torch.no_grad():
        # The newer exporter (dynamo=True) gives the same graph in thirty times the time.
        torch.onnx.export(
            graph, graph.example(*(size or _EXAMPLE)), part, dynamo=False, opset_version=OPSET,
            input_names=names, output_names=OUTPUTS, dynamic_axes=None if size else _axes((*names, *OUTPUTS)),
        )  # fmt: skip
    os.replace(part, path)
