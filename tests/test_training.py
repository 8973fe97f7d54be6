"""Training really learns, resumes exactly, and refuses bad configurations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.evaluation.clips import find_data, read_clip
from vidnoise.model import TIERS, DenoiseNetwork, uniform_sigma
from vidnoise.training.batch import Batch, BatchMaker, measured_sigma
from vidnoise.training.config import CONFIGS, Stage, TrainConfig, load_config
from vidnoise.training.data import ClipPack, ClipSampler
from vidnoise.training.loop import Trainer, clip_loss, schedule
from vidnoise.training.motion import moving_photo
from vidnoise.training.optimizers import make_optimizers, orthogonalise


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two short clips and a photo in ``train`` and one clip in ``val``."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, shift in (("train/a", 2), ("train/b", 0), ("val/c", 1)):
        path = root / f"{name}.avi"
        path.parent.mkdir(exist_ok=True)
        scene = cv2.resize(rng.integers(0, 256, (20, 40, 3), np.uint8), (400, 200), interpolation=cv2.INTER_CUBIC)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 25, (224, 200))
        for t in range(10):
            writer.write(np.ascontiguousarray(scene[:, shift * t : shift * t + 224]))
        writer.release()
    cv2.imwrite(str(root / "train" / "photo.png"), cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (96, 80)))
    return root


def config(**changes: object) -> TrainConfig:
    stages = (Stage("spatial", 2, 1, 16, steps=3), Stage("recurrent", 2, 3, 32, steps=3))
    return replace(TrainConfig("tiny", "fast", {"gaussian": 1.0}, stages), **changes)  # type: ignore[arg-type]


def test_shipped_configurations_load() -> None:
    names = {path.stem for path in CONFIGS.glob("*.toml")}
    assert {"fast", "fast-awgn", "standard", "standard-awgn"} <= names
    for name in names:
        settings = load_config(name)
        assert settings.name == name
        assert settings.tier in TIERS
        assert settings.stages


STAGE = 'tier = "fast"\n[noise]\n[[stages]]\nname = "a"\nbatch = 1\nframes = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tier = ", "Invalid value"),
        ('tier = "fast"\nspeed = 3\nnoise = {}', "unknown setting: speed"),
        ('tier = "fast"', "noise"),
        (STAGE + "patch = 16", "either steps or minutes"),
        (STAGE + "patch = 20\nsteps = 1", "multiple of 16"),
    ],
)
def test_bad_configurations_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(str(path))


def test_absent_data_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDNOISE_DATA", raising=False)
    with pytest.raises(SourceOpenError, match="VIDNOISE_DATA"):
        find_data()
    with pytest.raises(SourceOpenError, match="does not exist"):
        find_data(tmp_path / "nowhere")
    with pytest.raises(SourceOpenError, match="no clips or photos"):
        ClipPack(tmp_path, tmp_path / "cache")
    with pytest.raises(UsageError, match="unknown noise type"):
        BatchMaker(None, {"smoke": 1.0})  # type: ignore[arg-type]


def test_pack_holds_what_the_files_hold(data: Path, tmp_path: Path) -> None:
    pack = ClipPack(data / "train", tmp_path)
    assert [v.shape for v in pack.videos] == [(10, 200, 224, 3)] * 2
    assert [p.shape for p in pack.photos] == [(80, 96, 3)]
    assert np.array_equal(pack.videos[0], read_clip(data / "train" / "a.avi"))


def test_samples_are_clips_in_range(data: Path, tmp_path: Path) -> None:
    sampler = ClipSampler(ClipPack(data / "train", tmp_path), synthetic=0.5, rng=np.random.default_rng(0))
    for _ in range(20):
        clip = sampler.sample(6, 48)
        assert clip.shape == (6, 3, 48, 48)
        assert clip.min() >= 0
        assert clip.max() <= 1


def test_moving_photos_move() -> None:
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (120, 160, 3), np.uint8)
    clips = [moving_photo([photo], 4, 48, rng) for _ in range(40)]
    changes = [np.abs(c[1:].astype(int) - c[:-1]).mean() for c in clips]
    assert min(changes) < 1  # still scenes are among them
    assert max(changes) > 10


def test_measured_sigma_is_the_noise_that_was_added() -> None:
    noise = 0.1 * torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise[:, 0] *= 2
    level = measured_sigma(noise)
    assert level.shape == (6, 32, 32)
    torch.testing.assert_close(level[[0, 3]].mean(), torch.tensor(0.2), rtol=0.05, atol=0)
    torch.testing.assert_close(level[[1, 2, 4, 5]].mean(), torch.tensor(0.1), rtol=0.05, atol=0)


def test_h264_noise_is_real_compression() -> None:
    from vidnoise.training.codec_noise import transcode

    clip = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    fine, coarse = ((transcode(clip, crf=crf, preset="veryfast") - clip).std() for crf in (4, 40))
    assert coarse > fine
    assert abs((transcode(clip, crf=4, preset="veryfast") - clip).mean()) < 0.005


def test_schedule_warms_up_and_ends_at_zero() -> None:
    assert schedule(0.0, 0.1) < 0.05
    assert schedule(0.1, 0.1) == pytest.approx(1.0)
    assert schedule(1.0, 0.1) == pytest.approx(0.0, abs=1e-9)


def test_orthogonalise_evens_out_singular_values() -> None:
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 1, 24).unsqueeze(1)
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_one_patch_is_learnt_by_heart() -> None:
    """The loss of one small clip falls far below where it began: gradients reach everything that matters."""
    torch.manual_seed(0)
    network = DenoiseNetwork(TIERS["fast"]).train()
    generator = torch.Generator().manual_seed(1)
    scene = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=generator), size=(32, 32), mode="bicubic")
    clean = scene.clamp(0, 1).expand(3, 1, 3, 32, 32).contiguous()
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    sigma = uniform_sigma(0.1, clean[0]).expand(3, 1, 6, 16, 16)
    batch = Batch(clean, noisy, sigma, torch.tensor([0.1]))
    optimizers = make_optimizers(network, 0.01, 2e-3)
    losses = []
    for _ in range(150):
        loss, parts, _ = clip_loss(network, batch, torch.tensor([False]), config())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(parts["clean"])
    assert losses[-1] < 0.4 * losses[0]
    untouched = [n for n, p in network.named_parameters() if p.grad is None]
    assert not untouched


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    whole = Trainer(config(), data, tmp_path / "whole", cache=tmp_path)
    whole.fit(every=2)
    rows = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert len(rows) == 1 + 4  # a header; each stage logs after its second and its last step
    paused = Trainer(config(), data, tmp_path / "paused", cache=tmp_path, minutes=1e-6)
    paused.fit(every=100)
    assert paused.total_steps == 1
    resumed = Trainer(config(), data, tmp_path / "paused", cache=tmp_path)
    assert resumed.total_steps == 1
    resumed.fit(every=100)
    for key, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[key], value, rtol=0, atol=0)
        torch.testing.assert_close(resumed.average[key], whole.average[key], rtol=0, atol=0)
    assert (tmp_path / "whole" / "tiny.safetensors").is_file()
