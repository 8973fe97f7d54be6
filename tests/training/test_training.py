"""Training really learns, resumes exactly, and refuses bad configurations."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.training_setup import STAGES, config, make_data
from vidnoise.cli import main
from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.evaluation.clips import find_data, read_clip
from vidnoise.evaluation.metrics import psnr, ssim
from vidnoise.model import TIERS, DenoiseNetwork, ModelConfig, uniform_sigma
from vidnoise.training.batch import LUMA_SHARES, Batch, BatchMaker, as_video, measured_sigma, with_graphics
from vidnoise.training.config import CONFIGS, Augment, Stage, load_config
from vidnoise.training.data import ClipPack, ClipSampler, Folders
from vidnoise.training.legs import joined, legs_of, record
from vidnoise.training.log import append
from vidnoise.training.loop import Trainer
from vidnoise.training.losses import restoration, temporal
from vidnoise.training.objectives import PARTS, clip_loss, look
from vidnoise.training.optimizers import make_optimizers, orthogonalise
from vidnoise.training.pixels import FilePixels
from vidnoise.training.plot import plot_log
from vidnoise.training.reparameterise import branch, fold
from vidnoise.weights import ModelCard, load_model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def test_shipped_configurations_load() -> None:
    names = {path.stem for path in CONFIGS.glob("*.toml")}
    assert {"fast", "standard", "quality", "noise-level"} <= names
    for name in names:
        settings = load_config(name)
        assert settings.name == name
        assert settings.tier in TIERS
        assert settings.stages


STAGE = 'tier = "fast"\n[noise]\n[[stages]]\nname = "a"\nbatch = 1\nframes = 1\n'
GOOD = STAGE.replace("[noise]", "noise = { gaussian = 1 }") + "patch = 16\nsteps = 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tier = ", "Invalid value"),
        ('tier = "fast"\nspeed = 3\nnoise = {}', "unknown setting: speed"),
        ('tier = "fast"', "noise"),
        (STAGE + "patch = 16", "either steps or minutes"),
        (STAGE + "patch = 20\nsteps = 1", "multiple of 16"),
        (STAGE + 'patch = "16"\nsteps = 1', "patch cannot be '16'"),
        (STAGE + "patch = 16\nsteps = 1\nbptt = 0", "bptt must be from 1"),
        (STAGE + 'patch = 16\nsteps = 1\nschedule = "step"', "schedule must be one of constant, decay"),
        (STAGE + "patch = 16\nsteps = 1\ndecay = 0.0", "decay must be from 1e-09 to 1"),
        (STAGE + "patch = 16\nsteps = 1\nstill_patch = 20", "multiple of 16, got 20"),
        (STAGE + "patch = 16\nsteps = 1", "noise needs weights"),
        (GOOD + "[model]\ndepth = 3", "unknown model settings: depth"),
        (GOOD + "[augment]\nblur = 0.5", "unknown setting: blur"),
        (GOOD + "[pool]\nclips = 0", "clips and frames are above zero"),
        (GOOD + "[pool]\nsize = 33", "size is even"),
        (GOOD.replace("gaussian", "encoded") + "[pool]\nsize = 14", "a patch of 16 needs a pool of that size"),
        ('loss = "l2"\n' + GOOD, "loss must be one of charbonnier, l1, l1_ssim, psnr; got 'l2'"),
        ('optimizer = "sgd"\n' + GOOD, "muon, adamw"),
        ("alpha = 2\n" + GOOD, "alpha must be from 0 to 1"),
        ("stages = 3\n" + GOOD.partition("[[")[0], "stages must be a list"),
        ('initial = "fast"\n[[stages]]' + GOOD.partition("[[stages]]")[2], r"bad\.toml: missing: tier, noise$"),
        (GOOD.replace('"fast"', '"huge"'), "tier must be one of"),
    ],
)
def test_bad_configurations_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(str(path))


YAML = """
tier: fast
noise: {gaussian: 1}
stages:
  - {name: a, batch: 1, frames: 1, patch: 16, steps: 1, adam_lr: 1e-3}
"""


def test_yaml_says_the_same_as_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "same.toml").write_text(GOOD + "adam_lr = 1e-3\n")
    for suffix in ("yaml", "yml"):
        (tmp_path / f"same.{suffix}").write_text(YAML)
        assert load_config(str(tmp_path / f"same.{suffix}")) == load_config(str(tmp_path / "same.toml"))
    for text in ("tier: [", "- 3", "text"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UsageError, match=r"bad\.yaml"):
            load_config(str(tmp_path / "bad.yaml"))
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UsageError, match="PyYAML"):
        load_config(str(tmp_path / "same.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "muon_lr = 1e9", "adam_lr = -1", "warmup = 2", "warmup = nan", "steps = 0", "batch = 1000000000",
        "patch = 32.5", "batch = true", "muon_lr = inf",
    ],
)  # fmt: skip
def test_rates_and_counts_of_a_stage_have_bounds(tmp_path: Path, text: str) -> None:
    name = text.partition(" ")[0]
    lines = [line for line in GOOD.splitlines() if not line.startswith(f"{name} ")]
    (tmp_path / "bad.toml").write_text("\n".join([*lines, text]))
    with pytest.raises(UsageError) as caught:
        load_config(str(tmp_path / "bad.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "blind = 1.5", "ema = -0.1", "gray = nan", "synthetic = 7", "seed = -1", "sigma_power = 1e9",
        "a = " + "[" * 5000,
        "blind = [[[[]]]]", "model = {hidden = 1000000000}", "model = {widths = [[1]]}",
        "blind = '" + "x" * 100_000 + "'",
    ],
    ids=lambda t: t[:20],
)  # fmt: skip
def test_shares_have_bounds_and_messages_an_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.toml").write_text(f"{text}\n{GOOD}")
    with pytest.raises(UsageError) as caught:
        load_config(str(tmp_path / "bad.toml"))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nstages: [*b, *b]\n", "[" * 5000, "- " * 5000, "date: 2020-99-99\n",
        "!!python/object/apply:os.system [true]", "a: 1\n? {b: 1}\n: 2\n",
    ],
    ids=lambda t: t[:20],
)  # fmt: skip
def test_yaml_is_read_without_tricks(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(str(tmp_path / "bad.yaml"))
    assert len(str(caught.value)) < 600


def test_folders_are_found_in_any_layout(data: Path, tmp_path: Path) -> None:
    assert Folders.below(data) == Folders(data / "train", data / "val")
    assert Folders.below(data / "train") == Folders(data / "train", None)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "notes.txt").touch()
    assert Folders.below(tmp_path) == Folders(tmp_path / "train", None)


def test_absent_data_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDNOISE_DATA", raising=False)
    with pytest.raises(SourceOpenError, match="VIDNOISE_DATA"):
        find_data()
    with pytest.raises(SourceOpenError, match="does not exist"):
        find_data(tmp_path / "nowhere")
    with pytest.raises(SourceOpenError, match="no clips or photos"):
        ClipPack(tmp_path, tmp_path / "cache")
    with pytest.raises(UsageError, match="unknown noise type"):
        BatchMaker(config(noise={"smoke": 1.0}), None)  # type: ignore[arg-type]


def test_pack_holds_what_the_files_hold(data: Path, tmp_path: Path) -> None:
    pack = ClipPack(data / "train", tmp_path)
    assert [v.shape for v in pack.videos] == [(10, 200, 224, 3)] * 2
    assert [p.shape for p in pack.photos] == [(80, 96, 3)]
    assert np.array_equal(pack.videos[0], read_clip(data / "train" / "a.avi"))


def test_samples_are_clips_in_range(data: Path, tmp_path: Path) -> None:
    pack = ClipPack(data / "train", tmp_path)
    sampler = ClipSampler(pack, FilePixels(pack), synthetic=0.5, rng=np.random.default_rng(0))
    clips = sampler.sample(20, 6, 48)
    assert clips.shape == (20, 6, 3, 48, 48)
    assert clips.min() >= 0
    assert clips.max() <= 1


def test_measured_sigma_is_the_noise_that_was_added() -> None:
    noise = 0.1 * torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise[:, 0] *= 2
    level = measured_sigma(torch.stack([noise, 0 * noise]))
    assert level.shape == (2, 6, 32, 32)
    assert (level[1] == level.min()).all()
    # Variances of 4, 1 and 1 in R, G and B: of Y, C1 and C2 they are these, in the low-pass band and in the details.
    expected = 0.1 * torch.tensor([6 / 3, 5 / 2, 9 / 6]).sqrt().repeat(2)
    torch.testing.assert_close(level[0].mean((1, 2)), expected, rtol=0.05, atol=0)


def test_schedules_warm_up_and_end_as_they_say() -> None:
    cosine, line, leg = (
        Stage("a", 1, 1, 16, steps=100, warmup=0.1, **settings)  # type: ignore[arg-type]
        for settings in ({}, {"decay": 0.2}, {"schedule": "constant"})
    )
    for stage in (cosine, line, leg):
        assert stage.rate(0.0, 0) < 0.05
        assert stage.rate(0.1, 10) == pytest.approx(1.0)
    assert [s.rate(1.0, 100) for s in (cosine, line, leg)] == pytest.approx([0, 0, 1], abs=1e-9)
    assert cosine.rate(0.55, 55) == pytest.approx(0.5)
    assert [line.rate(p / 100, p) for p in (11, 50, 80, 90, 95)] == pytest.approx([1, 1, 1, 0.5, 0.25])
    counted = Stage("a", 1, 1, 16, minutes=1, schedule="constant", warmup_steps=50)
    assert [counted.rate(p, s) for p, s in ((0.9, 0), (0.0, 24), (0.0, 49), (0.9, 5000))] == [0.02, 0.5, 1, 1]


def test_single_frames_are_mixed_in_evenly() -> None:
    stage = Stage("a", 2, 3, 32, steps=100, still_share=0.3, still_patch=48)
    chosen = [stage.is_still(step) for step in range(100)]
    assert sum(chosen) == 30
    assert max(sum(chosen[i : i + 10]) for i in range(90)) <= 4
    assert stage.still == (6, 1, 48)
    assert not any(Stage("a", 2, 3, 32, steps=100).is_still(step) for step in range(100))


def test_a_leg_goes_on_from_raw_weights_and_cards_add_up(data: Path, tmp_path: Path) -> None:
    folders = Folders(data / "train", None)

    def leg(name: str, **changes: object) -> Trainer:
        stages = (Stage("leg", 2, 1, 16, steps=4, schedule="constant", warmup=0.0),)
        trainer = Trainer(config(name=name, stages=stages, **changes), folders, tmp_path / name, cache=tmp_path)
        trainer.fit(every=2)
        return trainer

    first = leg("first")
    model = load_model(tmp_path / "first" / "first-raw.safetensors")
    network, card = model.network, model.card
    for key, value in first.network.state_dict().items():
        assert torch.equal(network.state_dict()[key], value.half().float())
    assert not torch.equal(first.average["core.stem.weight"], first.network.state_dict()["core.stem.weight"])
    (alone,) = card.training["legs"]
    assert (alone["name"], alone["steps"], alone["device"]) == ("first", 4, "cpu")
    raw = str(tmp_path / "first" / "first-raw.safetensors")
    second = leg("second", initial=raw, model={})
    assert second.earlier == [alone]
    # The core of one, the fusion of the other: what they have in common counts once.
    both = {"core": str(tmp_path / "second" / "second.safetensors"), "fusion": raw}
    leg("third", initial=both)
    record = load_model(tmp_path / "third" / "third.safetensors").card.training
    assert [leg["name"] for leg in record["legs"]] == ["first", "second", "third"]
    assert record["steps"] == 12
    # And a run that is gone on with keeps the legs before it, whatever became of their files.
    again = Trainer(config(name="second", stages=second.config.stages), folders, tmp_path / "second", cache=tmp_path)
    assert again.earlier == [alone]


def test_hours_of_legs_are_told_by_device() -> None:
    card = ModelCard("a", "fast", training={"steps": 10, "hours": 1.5})
    (old,) = legs_of(card)
    cpu = {"name": "b", "steps": 5, "hours": 2.0, "device": "cpu", "units": 2}
    gpu = {"name": "c", "steps": 7, "hours": 0.25, "device": "a GPU", "units": 1}
    assert joined([[old, cpu], [old, cpu, gpu]]) == [old, cpu, gpu]
    told = record([old, cpu, gpu])
    assert (told["steps"], told["hours"], told["core_hours"], told["gpu_hours"]) == (22, 3.75, 5.5, 0.25)
    assert legs_of(ModelCard("d", "fast", training=told)) == [old, cpu, gpu]
    assert legs_of(ModelCard("e", "fast")) == []


def test_orthogonalise_evens_out_singular_values() -> None:
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 1, 24).unsqueeze(1)
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.4


def one_batch(frames: int, clips: int = 1, size: int = 32) -> Batch:
    """Smooth scenes that move by (1, 2) pixels a frame, under Gaussian noise of 0.1."""
    generator = torch.Generator().manual_seed(1)
    scene = torch.rand(clips, 3, 10, 10, generator=generator)
    whole = torch.nn.functional.interpolate(scene, size=size + 2 * frames, mode="bicubic").clamp(0, 1)
    clean = torch.stack([whole[..., 2 * t : 2 * t + size, t : t + size] for t in range(frames)])
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    sigma = uniform_sigma(0.1, clean[0]).expand(frames, clips, 6, size // 2, size // 2)
    return Batch(clean, noisy, sigma, torch.full((clips,), 0.1))


def test_one_patch_is_learnt_by_heart() -> None:
    """A network learns one small noisy clip in seconds: gradients reach everything, and the steps go the right way."""
    torch.manual_seed(0)
    network = DenoiseNetwork(TIERS["fast"]).train()
    batch, rates, steps = one_batch(3), (0.02, 4e-3), 90
    stage = Stage("one", 1, 3, 32, steps=steps, warmup=0.05)
    optimizers = make_optimizers(network, *rates)
    for step in range(steps):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * stage.rate(step / steps, step)
            optimizer.zero_grad()
        known = look(network, batch, torch.tensor([False]), config(), both_ways=False)
        clip_loss(network, batch, known, config())[0].backward()
        for optimizer in optimizers:
            optimizer.step()
    assert not [n for n, p in network.named_parameters() if p.grad is None]
    state, outputs = network.initial_state(1, 32, 32), []
    with torch.no_grad():
        for noisy, sigma in zip(batch.noisy, batch.sigma, strict=True):
            clean, state, _ = network(noisy, sigma, state)
            outputs.append(clean[0])
    before, after = (psnr(t, batch.clean[:, 0]).mean() for t in (batch.noisy[:, 0], torch.stack(outputs)))
    assert after > before + 6


def test_losses_measure_what_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2, 3, 24, 24, generator=generator)
    for kind in ("charbonnier", "l1", "l1_ssim"):
        assert restoration(a, b, kind).shape == (2,)
        assert restoration(a, a, kind).max() < 0.0021  # the least Charbonnier admits is its epsilon, 0.002
    l1 = (a - b).abs().mean((1, 2, 3))
    torch.testing.assert_close(restoration(a, b, "l1"), l1)
    torch.testing.assert_close(restoration(a, b, "l1_ssim", 1.0), l1)
    torch.testing.assert_close(restoration(a, b, "l1_ssim", 0.0), 1 - ssim(a, b))
    torch.testing.assert_close(restoration(a, b, "l1_ssim", 0.3), 0.3 * l1 + 0.7 * (1 - ssim(a, b)))
    decibels = -10 / math.log(10) * restoration(a, b, "psnr")
    torch.testing.assert_close(decibels, psnr(a, b), rtol=1e-3, atol=0)  # up to what it is content with
    assert restoration(a, a, "psnr").isfinite().all()
    # An error that stays is no flicker; one that comes is.
    assert temporal(a + 0.2, b + 0.2, a, b).max() < 0.0021
    torch.testing.assert_close(temporal(a + 0.2, b, a, b), torch.full((2,), 0.2), rtol=1e-3, atol=0)


def test_graphics_are_free_of_noise() -> None:
    clean = torch.full((40, 1, 3, 256, 256), 0.5)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    a, b = with_graphics(clean, noisy, np.random.default_rng(0))
    free = (a == b).all(2).all(1)
    shares = free.float().mean((1, 2))
    assert shares.min() >= (8 / 256) ** 2
    assert shares.max() < 0.9
    level = measured_sigma(b - a).amax(1)
    # Levels are smoothed over up to 40 pixels to each side.
    rows = torch.nn.functional.max_pool2d(1 - free[:, None].float(), (1, 97), 1, (0, 48))
    whole = torch.nn.functional.max_pool2d(rows, (97, 1), 1, (48, 0))[:, 0, ::2, ::2] == 0
    assert whole.any()
    assert level[whole].max() < 1 / 255
    assert torch.equal(clean, torch.full_like(clean, 0.5))  # the originals are left as they were
    # Bars lie at two opposite edges, half of them above and below; panels leave a corner at the lower right.
    above, beside, corner = (free[:, y, x] for y, x in ((0, 128), (128, 0), (255, 255)))
    assert 4 < (above & corner & ~beside).sum() < 25
    assert (beside & corner & ~above).any()
    assert 10 < (~corner).sum() < 30


def test_every_change_to_the_noise_that_is_asked_for_is_made(data: Path, tmp_path: Path) -> None:
    def batch(**changes: object) -> Batch:
        trainer = Trainer(config(**changes), Folders(data / "train", None), tmp_path / str(changes), cache=tmp_path)
        return trainer.batches.make(2, 2, 32)

    plain = batch()
    assert (plain.noisy != plain.clean).float().mean() > 0.99
    gray = batch(gray=1.0)
    assert torch.equal(gray.clean[:, :, 0], gray.clean[:, :, 1])
    codes = batch(quantised=1.0).noisy * 255
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
    covered = batch(graphics=1.0)
    assert (covered.noisy == covered.clean).all(0).all(1).float().mean() > 0.02


def test_stretches_of_a_clip_add_up_to_it_and_stop_the_gradient() -> None:
    torch.manual_seed(0)
    network = DenoiseNetwork(config().model_config()).train()
    batch, blind = one_batch(4, clips=2), torch.tensor([True, False])
    settings = config(temporal_weight=0.5)

    def gradients(stretch: int) -> tuple[float, dict[str, float], torch.Tensor]:
        network.zero_grad()
        known = look(network, batch, blind, settings, both_ways=True)
        state, total, sums = None, 0.0, dict.fromkeys(PARTS, 0.0)
        for start in range(0, 4, stretch):
            span = range(start, min(start + stretch, 4))
            loss, parts, state = clip_loss(network, batch, known, settings, span, state)
            loss.backward(retain_graph=span.stop < 4)
            state = state.detach()
            total += loss.item()
            sums = {k: sums[k] + v.item() for k, v in parts.items()}
        return total, sums, torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    whole, parts, gradient = gradients(4)
    assert {"clean", "fused", "noise", "temporal"} <= {k for k, v in parts.items() if v > 0}
    for stretch in (2, 3):
        total, sums, truncated = gradients(stretch)
        assert total == pytest.approx(whole, rel=1e-5)
        assert sums == pytest.approx(parts, rel=1e-5)
        assert not torch.allclose(truncated, gradient, rtol=1e-3)
    plain = clip_loss(network, batch, look(network, batch, blind, settings, both_ways=True), settings)[0]
    assert plain.item() == pytest.approx(whole, rel=1e-6)


def test_optimisers_get_the_parameters_that_suit_them() -> None:
    network = DenoiseNetwork(ModelConfig((8, 8, 8), (0, 1, 1, 0, 0), 4, separable=True))
    muon, adam = make_optimizers(network, 0.1, 0.1)
    shapes = [tuple(p.shape) for p in muon.param_groups[0]["params"]]
    assert all(len(shape) == 4 and shape[0] >= 8 and shape[1] > 1 for shape in shapes)
    assert (8, 1, 3, 3) in [tuple(p.shape) for p in adam.param_groups[0]["params"]]  # depthwise
    (alone,) = make_optimizers(network, 0.1, 0.1, kind="adamw", weight_decay=0.5)
    assert sum(len(group["params"]) for group in alone.param_groups) == len(list(network.parameters()))
    for optimizers in (make_optimizers(network, 0.1, 0.1, weight_decay=0.5), [alone]):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
            torch.nn.init.ones_(parameter)
        for optimizer in optimizers:
            optimizer.step()
        assert network.core.stem.weight.max().item() == pytest.approx(0.95)  # times 1 - rate * decay
        assert network.core.stem.bias.min().item() == 1


def test_branches_begin_at_nothing_and_fold_into_plain_weights() -> None:
    torch.manual_seed(0)
    plain = DenoiseNetwork(config().model_config()).requires_grad_(False)
    network = DenoiseNetwork(plain.config).requires_grad_(False)
    network.load_state_dict(plain.state_dict())
    branch(network)
    network.requires_grad_(False)
    frame = one_batch(1).noisy[0]
    sigma = uniform_sigma(0.1, frame)
    assert torch.equal(network.still(frame, sigma), plain.still(frame, sigma))
    for parameter in network.core.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    plain.load_state_dict(fold(network.state_dict()))
    difference = (network.still(frame, sigma) - plain.still(frame, sigma)).abs().max()
    assert difference < 1e-5  # float32, summed in another order
    assert fold(plain.state_dict()).keys() == plain.state_dict().keys()
    with pytest.raises(UsageError, match="separable"):
        branch(DenoiseNetwork(ModelConfig((8, 8, 8), (0, 1, 1, 0, 0), 4, separable=True)))


def stop_after(steps: int):
    """An ``on_log`` that stops a run as Ctrl-C does."""

    def stop(row: dict[str, float | str], progress: float) -> None:
        if row["step"] == steps:
            raise KeyboardInterrupt

    return stop


MUCH = {
    "optimizer": "adamw", "weight_decay": 0.01, "loss": "l1_ssim", "temporal_weight": 0.3, "reparameterise": True,
    "augment": Augment(rotate=0.5, elastic=0.5, hsv=0.5), "precision": "bf16",
    "stages": (STAGES[0], Stage("long", 1, 5, 32, steps=3, bptt=2, still_share=0.5)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        pytest.param({}, 3, id="defaults between stages"), pytest.param(MUCH, 3, id="much between stages"),
        pytest.param(MUCH, 4, id="much within a stage"),
        pytest.param({"precision": "fp16"}, 4, id="fp16 within a stage"),
        pytest.param({}, 4, id="defaults within a stage", marks=pytest.mark.slow),
        pytest.param({"precision": "fp16"}, 3, id="fp16 between stages", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_resumed_run_equals_an_uninterrupted_one(
    data: Path, tmp_path: Path, changes: dict[str, object], steps: int
) -> None:
    settings, folders = config(**changes), Folders(data / "train", None)
    whole = Trainer(settings, folders, tmp_path / "whole", cache=tmp_path)
    whole.fit(every=2)
    assert whole.total_steps == 6
    rows = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert len(rows) == 1 + 4  # a header; each stage logs after its second and its last step
    stopped = Trainer(settings, folders, tmp_path / "stopped", cache=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(every=1, on_log=stop_after(steps))
    resumed = Trainer(settings, folders, tmp_path / "stopped", cache=tmp_path)
    assert resumed.total_steps == steps
    resumed.fit(every=100)
    for key, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[key], value, rtol=0, atol=0)
        torch.testing.assert_close(resumed.average[key], whole.average[key], rtol=0, atol=0)
    assert resumed.precision.scaler.state_dict() == whole.precision.scaler.state_dict()
    saved = load_model(tmp_path / "whole" / "tiny.safetensors").network.state_dict()
    for key, value in whole.averaged().state_dict().items():
        assert torch.equal(saved[key], value.half().float())
    ended = Trainer(settings, folders, tmp_path / "whole", cache=tmp_path)
    ended.fit()
    assert ended.total_steps == 6  # nothing is left to do


def test_a_run_pauses_in_time_and_knows_what_is_left(data: Path, tmp_path: Path) -> None:
    stages = (Stage("a", 2, 1, 16, steps=4), Stage("b", 1, 2, 32, steps=8), Stage("c", 1, 2, 32, minutes=2.0))
    trainer = Trainer(config(stages=stages), Folders(data / "train", None), tmp_path, cache=tmp_path, minutes=1e-6)
    trainer.fit()
    assert trainer.total_steps == 1
    trainer.seconds, trainer.overhead = 10.0, 1.5
    # 512 pixels took 10 s; 3 such steps are left, then 8 of 2,048 pixels, then two minutes.
    assert trainer.remaining_seconds == pytest.approx(1.5 * (3 * 10 + 8 * 40 + 120))


def test_fp16_scales_the_loss_and_survives_an_overflow(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(config(precision="fp16"), Folders(data / "train", None), tmp_path, cache=tmp_path)
    scale = trainer.precision.scaler.get_scale()
    trainer.train_step()
    assert trainer.precision.scaler.get_scale() == scale
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    trainer.precision.scaler.update(1e38)  # gradients times this are infinite
    trainer.train_step()
    assert trainer.precision.scaler.get_scale() < 1e38
    assert all(torch.equal(v, before[k]) for k, v in trainer.network.state_dict().items())


def test_a_log_goes_on_with_new_columns_and_is_drawn(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("stage,step,hours,clean,fused\na,1,0.1,0.5,0.0\na,2,0.2,0.4,0.0\n")
    plot_log(log, tmp_path / "without.png")
    append({"stage": "b", "step": 3, "hours": 0.3, "clean": 0.3, "fused": 0.2, "temporal": 0.1, "psnr10": 30.0}, log)
    lines = log.read_text().splitlines()
    assert lines[0] == "stage,step,hours,clean,fused,temporal,psnr10"
    assert lines[1:] == ["a,1,0.1,0.5,0.0,,", "a,2,0.2,0.4,0.0,,", "b,3,0.3,0.3,0.2,0.1,30.0"]
    plot_log(log, tmp_path / "with.png")
    for name in ("without.png", "with.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_validation_takes_a_small_share_of_the_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(config(), data, tmp_path / "run", cache=tmp_path)
    scores = iter(range(100))
    monkeypatch.setattr(trainer, "validate", lambda: {"10": time.sleep(0.3) or float(next(scores))})
    rows: list[dict[str, float | str]] = []
    trainer.fit(every=1, on_log=lambda row, progress: rows.append(row))
    # At first, and at the end of each stage: tiny steps earn no more.
    assert [row.get("psnr10") for row in rows] == [0.0, None, 1.0, None, None, 2.0]
    plot_log(tmp_path / "run" / "log.csv", tmp_path / "gaps.png")


def test_the_command_trains_with_and_without_validation(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIDNOISE_DATA", raising=False)
    path = tmp_path / "tiny.toml"
    path.write_text(GOOD.replace("steps = 1", "steps = 2") + "[model]\nwidths = [8, 8]\n")
    where = ["--cache", str(tmp_path), "--run", str(tmp_path / "run")]
    assert main(["train", str(path), "--train", str(data / "train"), *where]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "no validation clips" in shown
    assert "PSNR 10" not in shown
    where[-1] = str(tmp_path / "run2")
    assert main(["train", str(path), "--data", str(data), "--precision", "fp32", *where]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "in fp32" in shown
    assert "PSNR 10" in shown
    assert "0:00 left" in shown
    assert {p.name for p in (tmp_path / "run2").iterdir()} == {
        "checkpoint.pt", "log.csv", "progress.png", "tiny.safetensors", "tiny-raw.safetensors"
    }  # fmt: skip
    assert main(["train", str(path), "--data", str(data), "--val", str(tmp_path / "run"), *where]) == 3
    assert "no clips for validation" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", ["empty", "cut", "no file of torch's", "a list", "position", "network", "code"])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, data: Path, kind: str) -> None:
    def trainer() -> Trainer:
        return Trainer(config(), Folders.below(data), tmp_path / "run", cache=tmp_path / "cache")

    first = trainer()
    first.train_step()
    first._save()
    path = first.checkpoint
    saved = torch.load(path, weights_only=True)
    if kind in ("empty", "cut", "no file of torch's"):
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2]}.get(kind, b"text"))
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "code":
        torch.save({"position": print}, path)
    else:
        torch.save({**saved, kind: [-1, "a", None] if kind == "position" else {}}, path)
    with pytest.raises(UsageError, match="move it away to begin anew") as caught:
        trainer()
    assert "\n" not in str(caught.value)


def test_the_estimator_alone_is_trained_by_what_the_core_makes_of_it(tmp_path: Path) -> None:
    """The core stays as it is, and its pictures alone move the estimator."""
    data = make_data(tmp_path)
    stage = Stage("noise-level", 2, 2, 32, steps=2, part="noise_level")
    moved = {}
    for weight in (0.0, 50.0):
        trainer = Trainer(config(stages=(stage,), picture_weight=weight), data, tmp_path / f"{weight}", cache=tmp_path)
        before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
        parts = trainer.train_step()
        assert (parts["clean"] > 0) == (weight > 0)
        after = trainer.network.state_dict()
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"noise_level"}
        moved[weight] = after["noise_level.head.weight"].clone()
    assert not torch.equal(moved[0.0], moved[50.0])


@pytest.mark.parametrize("frames", [1, 3])
def test_a_teacher_s_pictures_take_the_place_of_the_clean_frames(data: Path, tmp_path: Path, frames: int) -> None:
    """A network that learns from its own copy alone has nothing to learn; told the truth as well, it has."""
    stage = Stage("clips", 2, frames, 32, steps=1)
    settings: dict[str, Any] = {"stages": (stage,), "blind": 0.0, "both_ways": 1.0, "loss": "l1", "fused_weight": 0.0}
    settings |= {"sigma_power": 0.0, "noise_weight": 0.0, "precision": "fp32"}
    copy = tmp_path / "copy.safetensors"
    Trainer(config(**settings), data, tmp_path / "first", cache=tmp_path).export(copy)
    losses = []
    for weight in (1.0, 0.5, 0.0):
        config_ = config(**settings, initial=str(copy), teacher=str(copy), teacher_weight=weight)
        losses.append(Trainer(config_, data, tmp_path / f"{weight}", cache=tmp_path).train_step()["loss"])
    assert losses[0] < 1e-4
    assert losses[1] == pytest.approx(losses[2] / 2, rel=0.05)
    assert losses[2] > 0.01


def test_video_is_centred_by_its_own_matrix() -> None:
    """Encoded clips and noise of planes always, others by chance; then 8 bits are those of the planes."""
    rng = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 3, 16, 16, generator=rng)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=rng)
    for plain in (clean, noisy):
        found = as_video(plain, LUMA_SHARES)
        for clip, rgb, (kr, kb) in zip(found, plain, LUMA_SHARES.tolist(), strict=True):
            luma = kr * rgb[:, 0] + (1 - kr - kb) * rgb[:, 1] + kb * rgb[:, 2]
            torch.testing.assert_close(clip.mean(1), luma, atol=1e-6, rtol=0)
            torch.testing.assert_close(clip[:, 0] - clip[:, 2], rgb[:, 0] - rgb[:, 2], atol=1e-6, rtol=0)
