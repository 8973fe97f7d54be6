"""Import of ONNX Runtime without telemetry, which from 1.32 on must be disabled before the import."""

from __future__ import annotations

import os
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
