"""Cache of ONNX files between runs, as tracing takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from vidnoise._version import __version__
from vidnoise.cache import load, store
from vidnoise.export.onnx import write_onnx
from vidnoise.model import DenoiseNetwork
from vidnoise.model import network as network_module


def fingerprint(network: DenoiseNetwork) -> str:
    """Return a fingerprint of a network: of its weights, its settings and the program that runs it."""
    digest = hashlib.sha256(f"{__version__} {torch.__version__} {network.config.to_dict()}".encode())
    for name, values in network.state_dict().items():
        digest.update(name.encode() + values.float().cpu().numpy().tobytes())
    for folder in (Path(network_module.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


@contextlib.contextmanager
def stored_onnx(network: DenoiseNetwork, kind: str, dtype: torch.dtype = torch.float32) -> Iterator[Path]:
    """Provide an ONNX file of one of the network's graphs, with dynamic sizes, while the block runs.

    Raises:
        BackendError: ``onnx`` is not installed.
    """
    name = f"onnx/{fingerprint(network)}-{kind}-{str(dtype).removeprefix('torch.')}"
    kept = load(name)
    with tempfile.TemporaryDirectory(prefix="vidnoise-") as folder:
        path = Path(folder) / "network.onnx"
        if kept is None:
            write_onnx(network, path, kind, dtype=dtype)
            store(name, path.read_bytes())
        else:
            path.write_bytes(kept)
        yield path
