"""Complaints of users of video denoisers: the page that answers them names tests that exist; small tests of pictures.

The pictures are for the shipped models, whose weights change: bounds are what a user would see, not what was measured.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vidnoise
from support.paths import ROOT, TESTS
from support.scenes import scene

PAGE = ROOT / "docs" / "COMPLAINTS.md"
N_COMPLAINTS = 40
SIGMA = 20 / 255
CODE = 1 / 255

models = pytest.mark.parametrize("model", ["fast", "standard", "quality"])


def noise(clean: Tensor) -> Tensor:
    return SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))


def denoised(model: str, frames: Tensor) -> Tensor:
    return torch.stack(list(vidnoise.denoise(list(frames), model=model, device="cpu")))


def rms(error: Tensor) -> float:
    return error.square().mean().sqrt().item()


# --- the page ---------------------------------------------------------------------------------------------------------


def answers() -> dict[int, str]:
    """Rows of the page's tables by their numbers."""
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len({int(n) for n, _ in rows}) == len(rows)
    return {int(n): text for n, text in rows}


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_complaint_is_answered_by_a_test_or_a_reason() -> None:
    found = answers()
    assert sorted(found) == list(range(1, N_COMPLAINTS + 1))
    for number, text in found.items():
        _, answer, proof = (cell.strip() for cell in text.split("|"))
        assert answer, number
        assert "::test_" in proof or proof == "–", number


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(test_\w+)::(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > N_COMPLAINTS / 2
    known = {file: functions_in(next(TESTS.rglob(f"{file}.py"))) for file in {file for file, _ in named}}
    assert [f"{file}::{test}" for file, test in named if test not in known[file]] == []


# --- pictures ---------------------------------------------------------------------------------------------------------


@models
def test_no_streaks_at_the_borders_of_odd_sizes(model: str) -> None:
    """The outermost pixels are about as good as the same ones in a larger picture, where they lie inside."""
    clean = scene(1).expand(4, -1, -1, -1)
    noisy = clean + noise(clean)
    inner = (slice(None), slice(10, 75), slice(6, 89))  # 65x83
    whole = (denoised(model, noisy)[-1] - clean[-1])[inner]
    cut = (denoised(model, noisy[(slice(None), *inner)]) - clean[(slice(None), *inner)])[-1]
    for border in (
        (..., slice(2), slice(None)), (..., slice(-2, None), slice(None)),
        (..., slice(None), slice(2)), (..., slice(None), slice(-2, None)),
    ):  # fmt: skip
        assert rms(cut[border]) < 2 * rms(whole[border])
        assert rms(cut[border]) < SIGMA / 2


@models
def test_no_boxes_in_fog(model: str) -> None:
    """A soft gradient shows no grid: what is left jumps at multiples of 4, 8 and 16 pixels as elsewhere."""
    clean = torch.linspace(0.4, 0.6, 96).expand(4, 3, 64, 96)
    left = denoised(model, clean + noise(clean))[-1] - clean[-1]
    assert rms(left) < SIGMA / 4
    for axis in (1, 2):
        jumps = left.diff(dim=axis).abs().mean((0, 3 - axis))
        places = torch.arange(1, len(jumps) + 1)
        for size in (4, 8, 16):
            on_grid = places % size == 0
            assert jumps[on_grid].mean() < 1.25 * jumps[~on_grid].mean()


@models
def test_letterbox_bars_bring_no_noise(model: str) -> None:
    clean = scene(6)
    clean[:, :, :20] = clean[:, :, -20:] = 0
    noisy = clean + noise(clean)
    noisy[:, :, :20] = noisy[:, :, -20:] = 0
    out = denoised(model, noisy)[-1]
    picture = (slice(None), slice(20, -20))
    assert rms((out - clean[-1])[picture]) < 0.95 * rms((noisy - clean)[-1][picture])
    assert out[:, :18].abs().max() < 2 * CODE
    assert out[:, -18:].abs().max() < 2 * CODE


@models
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_nothing_is_added_to_what_is_clean(model: str, level: float) -> None:
    flat = torch.full((3, 3, 48, 64), level)
    assert (denoised(model, flat) - flat).abs().max() < 2 * CODE


@models
def test_a_clean_scene_stays_as_it_is(model: str) -> None:
    clean = scene(4)
    assert rms(denoised(model, clean) - clean) < 3 * CODE


@models
def test_no_specks_near_black_and_white(model: str) -> None:
    """Clipped noise at both ends of the range: nothing is further off than the noise was, and nothing wraps around."""
    clean = (1.6 * scene(4) - 0.3).clamp(0, 1)
    noisy = (255 * (clean + noise(clean))).round().clamp(0, 255).to(torch.uint8)
    out = torch.stack(list(vidnoise.denoise(list(noisy), model=model, device="cpu")))
    assert out.dtype == torch.uint8
    error = (out / 255.0 - clean).abs().max()
    assert error <= (noisy / 255.0 - clean).abs().max() + 0.05
