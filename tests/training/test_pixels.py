"""Batches show the same whether OpenCV renders them or a device does, and what they show is spread as it should be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from support.tolerances import RENDERED
from support.training_setup import config, make_data
from vidnoise.errors import UsageError
from vidnoise.training.augment import Augmenter
from vidnoise.training.batch import BatchMaker
from vidnoise.training.colours import colour_maps, recoloured
from vidnoise.training.config import Augment, Shape
from vidnoise.training.data import ClipPack
from vidnoise.training.motion import paths
from vidnoise.training.noise import NOISES
from vidnoise.training.pixels import PIXELS, DevicePixels, FilePixels, render_on
from vidnoise.training.plan import Plan, Planner, draw_crops

CPU = torch.device("cpu")


class Renderers(NamedTuple):
    pack: ClipPack
    file: FilePixels
    device: DevicePixels


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> Renderers:
    root = tmp_path_factory.mktemp("data")
    pack = ClipPack(make_data(root) / "train", root / "cache")
    return Renderers(pack, FilePixels(pack), DevicePixels(pack, CPU))


def planner(pack: ClipPack, *, synthetic: float, augment: Augment | None = None, seed: int = 0) -> Planner:
    videos = np.array([v.shape[:3] for v in pack.videos])
    photos = np.array([p.shape[:2] for p in pack.photos])
    rng = np.random.default_rng(seed)
    return Planner(videos, photos, synthetic=synthetic, augment=augment or Augment(), rng=rng)


def drawn(pack: ClipPack, n: int, frames: int, patch: int, synthetic: float) -> Plan:
    return planner(pack, synthetic=synthetic).draw(n, frames, patch)


@pytest.mark.parametrize("patch", [48, 208], ids=["within", "larger than the videos"])
def test_crops_are_the_same_to_the_last_bit(renderers: Renderers, patch: int) -> None:
    plan = drawn(renderers.pack, 12, 13, patch, 0.0)  # of clips of 10 frames, of 200 lines
    pictures = renderers.file.render(plan)
    assert pictures.shape == (12, 13, 3, patch, patch)
    assert torch.equal(renderers.device.render(plan), pictures)
    flips = plan.flips[plan.real]
    assert torch.equal(renderers.device.cut(plan.crops, patch, flips), pictures)
    assert torch.equal(renderers.file.cut(plan.crops, patch, flips), pictures)
    i = int(np.flatnonzero(~plan.flips.any(1))[0])
    where = plan.crops.video[i], plan.crops.frames[i, 4], plan.crops.top[i] + 7, plan.crops.left[i] + 9
    assert pictures[i, 4, :, 7, 9].tolist() == renderers.pack.videos[where[0]][where[1:]].tolist()


@pytest.mark.parametrize("patch", [48, 160], ids=["within", "larger than the fields"])
def test_fields_have_every_second_row(renderers: Renderers, patch: int) -> None:
    plan = planner(renderers.pack, synthetic=0.0, augment=Augment(fields=0.5)).draw(12, 2, patch)
    is_field = plan.crops.row_step == 2
    assert 0 < is_field.sum() < 12
    assert not plan.flips[is_field, 2].any()  # rows stay rows
    pictures = renderers.file.render(plan)
    assert torch.equal(renderers.device.render(plan), pictures)
    i = int(np.flatnonzero(is_field)[0])
    across, down, _ = plan.flips[i]
    shown = pictures[i, 1].flip(2) if across else pictures[i, 1]
    shown = shown.flip(1) if down else shown
    where = plan.crops.video[i], plan.crops.frames[i, 1], plan.crops.top[i] + 2 * 7, plan.crops.left[i] + 9
    assert shown[:, 7, 9].tolist() == renderers.pack.videos[where[0]][where[1:]].tolist()


def test_moving_photos_are_the_same_but_for_rounding(renderers: Renderers) -> None:
    plan = drawn(renderers.pack, 16, 3, 64, 1.0)
    assert len(plan.objects.over) > 3
    a, b = renderers.file.render(plan), renderers.device.render(plan)
    # OpenCV places pixels to a thirty-second.
    assert (a - b).abs().mean() < RENDERED
    assert (a - b).abs().max() < 24 * RENDERED
    assert a.std() > 20


def test_clips_and_photos_keep_their_places(renderers: Renderers) -> None:
    plan = drawn(renderers.pack, 20, 1, 48, 0.5)
    assert 0 < plan.real.sum() < 20
    a, b = renderers.file.render(plan), renderers.device.render(plan)
    assert torch.equal(a[torch.from_numpy(plan.real)], b[torch.from_numpy(plan.real)])
    assert (a - b).abs().mean() < RENDERED


def test_crops_are_spread_over_time_and_place() -> None:
    shapes, n = np.array([[40, 100, 200]]), 4000
    crops = draw_crops(shapes, np.zeros(n, int), 10, 50, np.random.default_rng(0))
    step = np.diff(crops.frames, axis=1)
    assert (step == step[:, :1]).all()
    shares = {s: (step[:, 0] == s).mean() for s in (-2, -1, 0, 1, 2)}
    assert sum(shares.values()) == pytest.approx(1)
    expected = {0: 0.08, 1: 0.92 * 0.85 / 2, -1: 0.92 * 0.85 / 2, 2: 0.92 * 0.15 / 2, -2: 0.92 * 0.15 / 2}
    for s, share in expected.items():
        assert shares[s] == pytest.approx(share, abs=0.02)
    assert (crops.frames.min(), crops.frames.max()) == (0, 39)
    assert (crops.top.min(), crops.top.max(), crops.left.max()) == (0, 50, 150)
    assert crops.left.mean() == pytest.approx(75, abs=3)


def test_short_videos_are_played_to_and_fro() -> None:
    crops = draw_crops(np.array([[4, 64, 64]]), np.zeros(200, int), 9, 32, np.random.default_rng(0))
    assert set(np.abs(np.diff(crops.frames, axis=1)).ravel()) == {0, 1}
    assert crops.frames.min() == 0
    assert crops.frames.max() == 3


def test_cameras_stand_drift_and_race() -> None:
    """Motion, as it was ever since photos were moved: a fifth stands, some move by pixels a frame."""
    sizes = np.tile([[480, 640]], (4000, 1))
    maps = paths(5, 96, sizes, np.random.default_rng(0)).astype(float)
    middle = np.array([47.5, 47.5, 1.0])
    centre = maps @ middle
    speed = np.linalg.norm(np.diff(centre, axis=1), axis=-1).mean(1)
    assert (speed < 1e-3).mean() == pytest.approx(0.2, abs=0.02)
    # Of normal velocities in two directions, times 1, 3 or 8, the mean length is 1.25 as much; shaking adds to it.
    assert speed.mean() == pytest.approx(1.2533 * (0.35 * 1 + 0.3 * 3 + 0.15 * 8), rel=0.06)
    zoom = np.linalg.det(maps[:, 0, :, :2]) ** 0.5
    assert zoom.min() >= 0.8
    assert zoom.max() <= 1.3
    assert zoom.mean() == pytest.approx(0.7 * 1.05 + 0.3, abs=0.01)
    assert (centre[:, 0] >= 0).all()
    assert (centre[:, 0] <= [640, 480]).all()


def test_shares_are_as_asked(renderers: Renderers) -> None:
    plan = drawn(renderers.pack, 3000, 4, 32, 0.35)
    assert (~plan.real).mean() == pytest.approx(0.35, abs=0.03)
    assert len(plan.objects.over) / len(plan.moves.photo) == pytest.approx(0.5, abs=0.05)
    assert plan.flips.mean(0) == pytest.approx([0.5] * 3, abs=0.04)
    assert not drawn(renderers.pack, 10, 1, 32, 1.0).objects.over.size  # a single frame needs no passers-by


def test_colours_are_maps_of_colours() -> None:
    """The composed map does what contrast, saturation, exchange and tint do one after the other."""
    matrix, offset = colour_maps(6000, 0.4, np.random.default_rng(0))
    same = np.isclose(matrix, np.eye(3)).all((1, 2)) & (offset == 0).all(1)
    assert same.mean() == pytest.approx(0.6 * 0.65 * (0.75 + 0.25 / 6) * 0.7, abs=0.02)
    # Mid-gray, whatever the contrast, moves by brightness and tint alone: to 0.4 to 0.6, times 0.85 to 1.1.
    gray = matrix @ np.full(3, 0.5) + offset
    assert (gray > 0.4 * 0.85 - 1e-9).all()
    assert (gray < 0.6 * 1.1 + 1e-9).all()
    assert gray.mean() == pytest.approx(0.5 * (1 - 0.3 * 0.025), abs=0.003)
    assert np.linalg.det(matrix).min() < 0  # exchanged
    assert matrix.max() > 2  # colourful


def test_moments_of_clips_are_those_of_the_footage(renderers: Renderers) -> None:
    """Colour, contrast and motion of many clips, rendered in both ways from other draws, agree."""
    means, deviations, changes = [], [], []
    for seed, pixels in ((1, renderers.file), (2, renderers.device)):
        draws = planner(renderers.pack, synthetic=0.35, seed=seed)
        clips = recoloured(pixels.render(draws.draw(200, 3, 32)), Augment(), draws.rng)
        assert 0 <= clips.min() <= clips.max() <= 1
        means.append(clips.mean().item())
        deviations.append(clips.std((1, 2, 3, 4)).mean().item())
        changes.append((clips[:, 1:] - clips[:, :-1]).abs().mean((1, 2, 3, 4)).quantile(torch.tensor([0.3, 0.5, 0.8])))
    assert means[0] == pytest.approx(means[1], rel=0.05)
    assert deviations[0] == pytest.approx(deviations[1], rel=0.1)
    torch.testing.assert_close(*changes, rtol=0.3, atol=0.004)


EVERYTHING: dict[str, Any] = {"gray": 0.3, "quantised": 0.5, "graphics": 0.3, "noise": dict.fromkeys(NOISES, 1.0)}


def test_batches_are_the_same_wherever_they_are_made(renderers: Renderers) -> None:
    settings = config(**EVERYTHING)
    file, device = (BatchMaker(settings, renderers.pack, where=where, seed=3) for where in ("cpu", "device"))
    for shape in ((40, 1, 48), (9, 3, 32)):
        a, b = file.make(*shape), device.make(*shape)
        assert a.noisy.shape == b.noisy.shape == (shape[1], shape[0], 3, *[shape[2]] * 2)
        assert (a.clean - b.clean).abs().mean() * 255 < RENDERED
        torch.testing.assert_close(a.mean_sigma, b.mean_sigma, rtol=0.05, atol=0.5 / 255)
        torch.testing.assert_close(a.sigma.mean((0, 2, 3, 4)), b.sigma.mean((0, 2, 3, 4)), rtol=0.05, atol=0.5 / 255)
        assert torch.equal(file.blind(5), device.blind(5))


def test_noise_of_many_batches_is_spread_alike(renderers: Renderers) -> None:
    """Strength of the noise, its share of luma and chroma, and its mean, from other draws."""
    settings, levels, groups, means = config(**EVERYTHING), [], [], []
    for seed, where in ((4, "cpu"), (5, "device")):
        batch = BatchMaker(settings, renderers.pack, where=where, seed=seed).make(1000, 1, 32)
        levels.append(torch.histc(batch.mean_sigma * 255, bins=6, min=0, max=60) / 1000)
        groups.append(batch.sigma[0].mean((0, 2, 3)))
        means.append((batch.noisy - batch.clean).mean())
    torch.testing.assert_close(*levels, rtol=0, atol=0.08)  # a bin of 300 varies by 15
    torch.testing.assert_close(*groups, rtol=0.2, atol=0)  # a few clips are very noisy: means vary by a tenth
    torch.testing.assert_close(*means, rtol=0, atol=0.004)


def test_batches_made_ahead_are_mixed_like_others(renderers: Renderers) -> None:
    maker = BatchMaker(config(noise={"none": 1.0, "gaussian": 1.0}), renderers.pack, where="device")
    maker.ahead, shapes = 32 * 16**2, (Shape(8, 1, 16), Shape(2, 4, 16))
    drawn = {shape: [maker.next(shape) for _ in range(4)] for shape in shapes}
    assert not any(maker.made.values())  # four of each were made at once
    for shape, batches in drawn.items():
        assert {b.noisy.shape for b in batches} == {(shape.frames, shape.clips, 3, 16, 16)}
        assert len({b.clean.numpy().tobytes() for b in batches}) == 4
    free = [(b.mean_sigma < 0.3 / 255).float().mean() for b in drawn[shapes[0]]]
    assert max(free) - min(free) <= 1 / 8
    maker.next(shapes[0])
    assert len(maker.made[shapes[0]]) == 3


def test_batches_are_made_where_asked(renderers: Renderers, monkeypatch: pytest.MonkeyPatch) -> None:
    packs, rotated = [renderers.pack], Augment(rotate=0.5)
    assert isinstance(render_on("auto", packs, CPU, Augment())[0], FilePixels)
    with pytest.raises(UsageError, match="auto, cpu, device; got 'moon'"):
        render_on("moon", packs, CPU, Augment())
    gpu, made = torch.device("cuda", 0), lambda name: lambda pack, device: (name, device)
    for name in PIXELS:
        monkeypatch.setitem(PIXELS, name, made(name))
    for free, augment, where in ((2, Augment(), "cpu"), (3, Augment(), "device"), (3, rotated, "cpu")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, n=free: (n * renderers.pack.data.size, 0))
        assert render_on("auto", packs, gpu, augment) == [(where, gpu)]


def test_a_device_renders_no_deformations(renderers: Renderers) -> None:
    plan = planner(renderers.pack, synthetic=0.0, augment=Augment(rotate=1.0)).draw(2, 2, 32)
    assert renderers.file.render(plan).shape == (2, 2, 3, 32, 32)
    with pytest.raises(UsageError, match="--batches cpu"):
        renderers.device.render(plan)


def test_kornia_is_not_needed_without_it() -> None:
    assert Augmenter(Augment()).draw(32, np.random.default_rng(0)) is None
