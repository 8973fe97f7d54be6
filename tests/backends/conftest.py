"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.networks import TINY
from vidnoise.model import DenoiseNetwork


@pytest.fixture(scope="module")
def network() -> DenoiseNetwork:
    torch.manual_seed(0)
    return DenoiseNetwork(TINY).eval().requires_grad_(False)


@pytest.fixture
def backend_cache(traced: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ONNX files are kept for all tests, measurements for one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(traced))
    yield
    (traced / "vidnoise" / "backends").unlink(missing_ok=True)
