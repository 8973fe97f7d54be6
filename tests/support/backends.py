"""Clips through backends, causal and with lookahead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from vidnoise.backends import open_backend
from vidnoise.backends.protocol import Backend
from vidnoise.backends.window import Window
from vidnoise.errors import BackendError
from vidnoise.model import Denoised, DenoiseNetwork

CPU = torch.device("cpu")


def backend(name: str, network: DenoiseNetwork, dtype: torch.dtype = torch.float32) -> Backend:
    """That backend, where it can be."""
    try:
        return open_backend(name, network, device=CPU, dtype=dtype)
    except BackendError as ex:
        pytest.skip(str(ex))


CUT = 3
"""The frame before which the second of two streams has a cut."""


def clip(
    n: int = 5, streams: int = 2, height: int = 32, width: int = 48
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Frames of smooth scenes that move under noise, and which streams go on."""
    generator = torch.Generator().manual_seed(3)
    for i in range(n):
        if i in (0, CUT):
            coarse = torch.rand(streams, 3, 6, 9, generator=generator)
            fresh = torch.nn.functional.interpolate(coarse, size=(height, width + 2 * n), mode="bicubic")
            scene = fresh if i == 0 else torch.cat([scene[:1], fresh[1:]])  # noqa: F821 - from the round before
        noise = 0.05 * torch.randn(streams, 3, height, width, generator=generator)
        keep = torch.ones(streams, dtype=torch.bool)
        keep[-1] = i != CUT
        yield scene[..., i : i + width] + noise, keep


def given(blind: bool, streams: int) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Noise levels and boosts."""
    return None if blind else torch.linspace(0.05, 0.08, streams), torch.linspace(1, 1.2, 2 * streams).reshape(-1, 2)


def outputs(backend: Backend, *, blind: bool, streams: int = 2) -> list[Denoised]:
    state = backend.initial_state(streams, 32, 48)
    results = []
    for noisy, keep in clip(streams=streams):
        result = backend.step(noisy, *given(blind, streams), keep, state)
        results.append(Denoised(result.clean.clone(), result.level.clone(), result.state))
        state = result.state
    return results


def both_ways(backend: Backend, *, blind: bool, streams: int = 2) -> list[Denoised]:
    """The same, looked through both ways, in two windows."""
    window: Window[None] = Window(backend, 3)
    results: list[Denoised] = []
    for noisy, keep in clip(streams=streams):
        results += [r for _, r in window.push(None, noisy, *given(blind, streams), keep)]
    return results + [r for _, r in window.flush()]


def worst_rms(a: list[Denoised], b: list[Denoised]) -> float:
    return max(float((x.clean - y.clean).square().mean().sqrt()) for x, y in zip(a, b, strict=True))
