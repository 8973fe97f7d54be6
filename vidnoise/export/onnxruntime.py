"""ONNX Runtime: its import without telemetry, which from 1.32 on must be disabled before; and its sessions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vidnoise.errors import BackendError

_SWITCH = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry disabled.

    Raises:
        BackendError: It is not installed.
    """
    os.environ[_SWITCH] = "1"  # never unset, as the library checks whenever a session is created
    try:
        import onnxruntime
    except ImportError as ex:
        raise BackendError("ONNX Runtime is not installed: pip install 'vidnoise[onnxruntime]'") from ex
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def open_session(path: str | os.PathLike[str], threads: int | None = None) -> Any:
    """Open an ONNX file as an ``onnxruntime.InferenceSession`` on the CPU.

    In int8, it rounds exactly as PyTorch does, but multiplies floats: its own conversion to integers covers a third of
    the convolutions, gains no time, and rounds sums that are to stay exact, too.

    Args:
        path: The file.
        threads: CPU threads; by default as many as there are cores.

    Raises:
        BackendError: ONNX Runtime is not installed.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(Path(path), options, providers=["CPUExecutionProvider"])
