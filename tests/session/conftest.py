"""Fixtures of these tests."""

from __future__ import annotations

import pytest
import torch

from support.networks import TINY
from vidnoise.model import DenoiseNetwork


@pytest.fixture
def network() -> DenoiseNetwork:
    torch.manual_seed(0)
    return DenoiseNetwork(TINY).eval().requires_grad_(False)
