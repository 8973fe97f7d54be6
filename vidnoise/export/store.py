"""ONNX files of networks, kept between runs: tracing takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from .._version import __version__
from ..cache import cache_folder, store
from ..model import DenoiseNetwork
from ..model import network as network_module
from .onnx import write_onnx


def fingerprint(network: DenoiseNetwork) -> str:
    """Tells networks apart, by their weights and settings and by the program that runs them."""
    digest = hashlib.sha256(f"{__version__} {torch.__version__} {network.config.to_dict()}".encode())
    for name, values in network.state_dict().items():
        digest.update(name.encode() + values.float().cpu().numpy().tobytes())
    for folder in (Path(network_module.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


@contextlib.contextmanager
def stored_onnx(network: DenoiseNetwork, kind: str, dtype: torch.dtype = torch.float32) -> Iterator[Path]:
    """An ONNX file of one of the network's graphs, all sizes open, for as long as the block runs: :func:`write_onnx`.

    Raises:
        BackendError: ``onnx`` is not installed.
    """
    kept = cache_folder() / "onnx" / f"{fingerprint(network)}-{kind}-{str(dtype).removeprefix('torch.')}.onnx"
    if kept.is_file():
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="vidnoise-") as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, path, kind, dtype=dtype)
        store(kept, path.read_bytes())
        yield path
