"""ONNX Runtime, which from 1.32 on tells its makers of its use unless it is told not to before it is imported."""

from __future__ import annotations

import os
from typing import Any

from vidnoise.errors import BackendError

_SWITCH = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """The package, without its telemetry.

    Raises:
        BackendError: it is not installed.
    """
    os.environ[_SWITCH] = "1"  # and it stays: the library looks whenever a session is made
    try:
        import onnxruntime
    except ImportError as ex:
        raise BackendError("ONNX Runtime is not installed: pip install 'vidnoise[onnxruntime]'") from ex
    onnxruntime.disable_telemetry_events()
    return onnxruntime
