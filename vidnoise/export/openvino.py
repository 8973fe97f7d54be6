"""OpenVINO's own form of the graph (IR)."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from vidnoise.errors import BackendError
from vidnoise.export.graph import Size, shape_of
from vidnoise.model import DenoiseNetwork

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """The package, without its telemetry: importing it would tell its makers so, over the network and unasked.

    Raises:
        BackendError: it is not installed.
    """
    is_ours = _TELEMETRY not in sys.modules
    if is_ours:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # as if it was not installed, which it need not be
    try:
        import openvino
    except ImportError as ex:
        raise BackendError("OpenVINO is not installed: pip install 'vidnoise[openvino]'") from ex
    finally:
        if is_ours:
            del sys.modules[_TELEMETRY]
    return openvino


@functools.cache
def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process.

    The CPU's plugin gives the thread that starts it another stack for signals, and takes it back when its ``Core``
    ends. Of two that end in the order in which they began, the second leaves the first's, freed by then: the next
    signal, a Ctrl-C say, would crash the process.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    return import_openvino().Core()


def read_graph(path: str | os.PathLike[str], network: DenoiseNetwork, size: Size | None) -> Any:
    """An ``openvino.Model`` from an ONNX file.

    Args:
        path: from :func:`~vidnoise.export.onnx.write_onnx`.
        network: whose graph it is.
        size: streams, height and width, fixed from now on; ``None`` leaves them as they are in the file.
    """
    model = openvino_core().read_model(os.fspath(path))
    if size is not None:
        model.reshape({port: list(shape_of(port.any_name, network, size)) for port in model.inputs})
    return model


def write_openvino(onnx_path: str | os.PathLike[str], path: str | os.PathLike[str], network: DenoiseNetwork) -> None:
    """Write ``path`` (``.xml``) and beside it the weights (``.bin``), from an ONNX file of the same network.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    openvino.save_model(read_graph(onnx_path, network, None), os.fspath(path), compress_to_fp16=False)
