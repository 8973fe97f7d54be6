"""Export to OpenVINO's own format (IR)."""

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
    """Import OpenVINO with its telemetry disabled, which would otherwise report the import over the network.

    Raises:
        BackendError: It is not installed.
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
    """Return the single ``openvino.Core`` of this process.

    The CPU plugin installs an alternate signal stack on the thread that starts it, and restores the previous one when
    its ``Core`` ends. If two end in the order in which they began, the second restores the stack of the first, freed by
    then: the next signal, such as Ctrl-C, would crash the process.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    return import_openvino().Core()


def read_graph(path: str | os.PathLike[str], network: DenoiseNetwork, size: Size | None) -> Any:
    """Read an ONNX file as an ``openvino.Model``.

    Args:
        path: From :func:`~vidnoise.export.onnx.write_onnx`.
        network: The network of the graph.
        size: Streams, height and width to fix; ``None`` leaves them as in the file.
    """
    model = openvino_core().read_model(os.fspath(path))
    if size is not None:
        model.reshape({port: list(shape_of(port.any_name, network, size)) for port in model.inputs})
    return model


def write_openvino(onnx_path: str | os.PathLike[str], path: str | os.PathLike[str], network: DenoiseNetwork) -> None:
    """Convert an ONNX file of the same network to ``path`` (``.xml``), with the weights beside it (``.bin``).

    Raises:
        BackendError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    openvino.save_model(read_graph(onnx_path, network, None), os.fspath(path), compress_to_fp16=False)
