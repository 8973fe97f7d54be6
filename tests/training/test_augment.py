"""Augmentation changes all frames alike, samples nothing that is not there, and is absent where it is off."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch

from vidnoise.errors import UsageError
from vidnoise.training.augment import ANGLE_DEGREES, REACH, Augmenter, Deformation
from vidnoise.training.colours import turned
from vidnoise.training.config import Augment
from vidnoise.training.data import ClipSampler
from vidnoise.training.light import with_changing_light
from vidnoise.training.pixels import FilePixels

ALL = Augment(rotate=1.0, elastic=1.0, hsv=1.0, contrast=1.0)


class Pack:
    """What a sampler needs of a pack: one clip of a still scene."""

    def __init__(self, frames: int = 6, size: int = 160) -> None:
        scene = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
        self.videos, self.photos = [np.broadcast_to(scene, (frames, size, size, 3))], []


def sampler(augment: Augment | None, seed: int = 0) -> ClipSampler:
    pack: Any = Pack()
    return ClipSampler(pack, FilePixels(pack), synthetic=0.0, rng=np.random.default_rng(seed), augment=augment)


def test_all_frames_of_a_clip_are_changed_alike() -> None:
    drawn = sampler(ALL)
    for clip in drawn.sample(5, 4, 48):
        assert clip.shape == (4, 3, 48, 48)
        assert 0 <= clip.min() < clip.max() <= 1
        assert torch.equal(clip, clip[:1].expand_as(clip))


def test_what_is_off_draws_nothing() -> None:
    """Runs without augmentation see the clips that they saw before there was any."""
    plain, off, on = (sampler(a) for a in (None, Augment(), Augment(hsv=1e-9)))
    clips = [s.sample(1, 2, 32) for s in (plain, off, on)]
    assert torch.equal(clips[0], clips[1])
    assert torch.equal(clips[0], clips[2])
    states = [s.rng.bit_generator.state["state"] for s in (plain, off, on)]
    assert states[0] == states[1] != states[2]


def test_rotation_samples_where_it_should_and_never_beyond_the_crop() -> None:
    for degrees in (-ANGLE_DEGREES, 7.0, ANGLE_DEGREES):
        deform = Deformation(40, math.radians(degrees), None)
        ramp = torch.arange(deform.crop, dtype=torch.float32) / deform.crop
        picture = torch.stack([ramp.expand(deform.crop, -1), ramp[:, None].expand(-1, deform.crop)] * 2)[None, :3]
        out = deform(picture)[0]
        c, s = math.cos(deform.angle), math.sin(deform.angle)
        y, x = torch.meshgrid(*[torch.arange(40.0) - 19.5] * 2, indexing="ij")
        centre = (deform.crop - 1) / 2
        # A ramp is reproduced by any interpolation, but would fold where the crop is mirrored.
        torch.testing.assert_close(out[0], (c * x - s * y + centre) / deform.crop, rtol=0, atol=2e-3)
        torch.testing.assert_close(out[1], (s * x + c * y + centre) / deform.crop, rtol=0, atol=2e-3)


def test_no_deformation_is_the_middle_of_the_crop() -> None:
    deform = Deformation(32, 0.0, None)
    picture = torch.rand(2, 3, deform.crop, deform.crop)
    edge = (deform.crop - 32) // 2
    torch.testing.assert_close(deform(picture), picture[..., edge:-edge, edge:-edge], rtol=0, atol=1e-5)


def test_elastic_deformation_moves_by_about_a_pixel() -> None:
    """The displacement that alpha 30 and sigma 5 stand for, read off a ramp."""
    rng, moved = np.random.default_rng(0), []
    for _ in range(20):
        deform = Augmenter(Augment(elastic=1.0)).draw(96, rng)
        assert deform is not None
        ramp = torch.arange(deform.crop, dtype=torch.float32).expand(1, 3, deform.crop, -1) / deform.crop
        expected = (torch.arange(96.0) + (deform.crop - 96) / 2) / deform.crop
        moved.append(((deform(ramp)[0, 0] - expected) * deform.crop)[16:-16, 16:-16])
    distance = torch.stack(moved)
    # Uniform noise (deviation 0.577) smoothed by a Gaussian of 5 pixels keeps 1 / (2 sqrt(pi) 5) of it; times 30. (More
    # near the border, where the noise is mirrored.)
    assert distance.std().item() == pytest.approx(0.98, rel=0.1)
    assert (distance.abs() > REACH).float().mean() < 1e-3


def test_hsv_turns_colours_but_leaves_gray_gray() -> None:
    rng = np.random.default_rng(0)
    gray = torch.rand(4, 2, 1, 8, 8).expand(-1, -1, 3, -1, -1)
    out = turned(gray.clone(), 1.0, rng)
    assert (out - out.mean(2, keepdim=True)).abs().max() < 1e-5
    ratio = out / gray
    assert (ratio - ratio.mean((1, 2, 3, 4), keepdim=True)).abs().max() < 0.2  # one factor a clip, save where it clips
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 3, 1, 1).expand(9, 1, 3, 2, 2)
    assert (turned(red.clone(), 1.0, rng)[:, 0, 0] - 1).abs().max() > 0.05
    some = turned(red.clone(), 0.5, rng)
    assert 0 < (some == red).flatten(1).all(1).sum() < 9


def test_kornia_is_asked_for_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    assert sampler(Augment(contrast=1.0)).sample(1, 2, 32).shape == (1, 2, 3, 32, 32)
    for need in ({"rotate": 0.1}, {"elastic": 0.1}, {"hsv": 0.1}):
        with pytest.raises(UsageError, match="kornia"):
            Augmenter(Augment(**need))


def test_fades_and_flashes_change_what_they_should() -> None:
    clips = torch.rand(40, 6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    still = clips[:, :1].expand(-1, 6, -1, -1, -1)
    assert with_changing_light(still, Augment(), np.random.default_rng(0)) is still
    single = with_changing_light(still[:, :1], Augment(fade=1.0, flash=1.0), np.random.default_rng(0))
    assert torch.equal(single, still[:, :1])
    faded = with_changing_light(still, Augment(fade=1.0), np.random.default_rng(0))
    other = still.roll(1, 0).flip(4)
    share = ((faded - still) * (other - still)).sum((2, 3, 4)) / (other - still).square().sum((2, 3, 4))
    assert (share.diff(dim=1) >= -1e-5).all()  # from one to the other, never back
    assert share.min() >= -1e-5
    assert share.max() <= 1 + 1e-5
    assert ((share > 0.05) & (share < 0.95)).any(1).float().mean() > 0.5
    lit = with_changing_light(still, Augment(flash=0.5), np.random.default_rng(0))
    changed = (lit != still).flatten(2).any(2)
    assert set(changed.sum(1).tolist()) == {0, 1}
    assert 0.3 < changed.any(1).float().mean() < 0.7
    assert lit.min() >= 0
    assert lit.max() <= 1
