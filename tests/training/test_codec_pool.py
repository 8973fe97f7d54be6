"""Encoded clips: that they are really encoded, kept in a file, and drawn from it in pairs."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from support.training_setup import config, make_data
from vidnoise.color import to_rgb
from vidnoise.errors import EncodeError, UsageError
from vidnoise.training.batch import LUMA_SHARES, BatchMaker
from vidnoise.training.codec_pool import CodecPool, PoolSampler, encoded_clips, is_lost
from vidnoise.training.config import Pool
from vidnoise.training.data import ClipPack, Folders
from vidnoise.training.loop import Trainer
from vidnoise.training.pixels import PIXELS
from vidnoise.training.transcode import Encoding, as_stored, draw_encoding, transcode

SMALL = Pool(clips=3, frames=4, size=32)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ClipPack:
    return ClipPack(make_data(tmp_path_factory.mktemp("data")) / "train", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def pool(pack: ClipPack, tmp_path_factory: pytest.TempPathFactory) -> CodecPool:
    return CodecPool(pack, tmp_path_factory.mktemp("pool"), SMALL)


def smooth_clip(frames: int = 6, size: int = 64) -> Tensor:
    scene = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    scene = torch.nn.functional.interpolate(scene, size=size + frames, mode="bicubic").clamp(0, 1)
    return torch.cat([scene[..., t : t + size, t : t + size] for t in range(frames)])


def deviation(clip: Tensor, encoding: Encoding) -> float:
    """Between what is stored without a codec and what comes back."""
    frames = as_stored(clip, encoding)
    pairs = zip(transcode(frames, encoding), frames, strict=True)
    return torch.cat([to_rgb(a) - to_rgb(b) for a, b in pairs]).std().item() * 255


QUANTISER = ({"qmin": "2", "qmax": "2"}, {"qmin": "16", "qmax": "16"})


@pytest.mark.parametrize(
    ("encoding", "finer", "coarser"),
    [
        (Encoding("libx264", "h264", {"preset": "veryfast"}), {"crf": "8"}, {"crf": "36"}),
        (Encoding("libx265", "hevc", {"preset": "ultrafast", "x265-params": "log-level=none"}),
         {"crf": "8"}, {"crf": "36"}),
        (Encoding("mpeg2video", "mpeg2video", {"bf": "2"}, matrix=1), *QUANTISER),
        (Encoding("mpeg4", "mpeg4"), *QUANTISER),
        (Encoding("mjpeg", "mjpeg", pix_fmt="yuvj422p", range=2), *QUANTISER),
        (Encoding("libvpx-vp9", "vp9", {"deadline": "realtime", "b": "0"}), {"crf": "10"}, {"crf": "52"}),
    ],
    ids=lambda value: value.decoder if isinstance(value, Encoding) else "",
)  # fmt: skip
def test_every_codec_gives_the_clip_back_the_worse_the_coarser(
    encoding: Encoding, finer: dict[str, str], coarser: dict[str, str]
) -> None:
    clip = smooth_clip()
    fine, coarse = (deviation(clip, replace(encoding, options=encoding.options | o)) for o in (finer, coarser))
    assert fine < 3
    assert coarse > 1.3 * fine
    stored = torch.cat([to_rgb(frame) for frame in as_stored(clip, encoding)])
    assert (stored - clip).abs().mean() < 2 / 255  # a smooth clip loses its rounding only


def test_bits_are_as_few_as_asked() -> None:
    noisy = smooth_clip(10) + 0.05 * torch.randn(10, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    encoding = Encoding("libx264", "h264", {"preset": "veryfast"})
    rich, poor = (deviation(noisy, replace(encoding, bit_rate=64 * 64 * bits)) for bits in (200, 2))
    assert poor > 1.3 * rich


def test_encoders_are_drawn_of_all_kinds() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_encoding(rng, 160 * 160) for _ in range(200)]
    assert {e.decoder for e in drawn} == {"h264", "hevc", "mpeg2video", "mpeg4", "mjpeg", "vp9"}
    assert 30 < sum(e.bit_rate is not None for e in drawn) < 90
    assert {e.matrix for e in drawn} == {1, 6}
    assert {e.options.get("tune") for e in drawn} == {None, "grain", "film", "zerolatency"}


def test_an_absent_encoder_is_said_clearly() -> None:
    with pytest.raises(EncodeError, match="no smoke"):
        transcode(as_stored(smooth_clip(1), Encoding("smoke", "h264")), Encoding("smoke", "h264"))


def test_a_pool_holds_what_was_encoded_and_is_made_once(
    pool: CodecPool, pack: ClipPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool.pairs.shape == (3, 2, 4, 32, 32, 3)
    for pair, about, clip in zip(pool.pairs, pool.about, islice(encoded_clips(pack, SMALL), 3), strict=True):
        # x264 and x265 do not always encode such small pictures the same way twice.
        assert about["encoder"] in ("libx264", "libx265") or np.array_equal(pair[0], clip.noisy)
        assert np.array_equal(pair[1], clip.clean)
        assert about == clip.about
    made = CodecPool(pack, tmp_path, replace(SMALL, clips=1))
    files = sorted(p.suffix for p in tmp_path.iterdir())
    assert files == [".json", ".raw"]  # nothing half-made is left
    monkeypatch.setattr("vidnoise.training.codec_pool.encoded_clips", None)
    again = CodecPool(pack, tmp_path, replace(SMALL, clips=1))
    assert np.array_equal(made.pairs, again.pairs)


def test_a_pool_that_fails_leaves_nothing(pack: ClipPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise EncodeError("the encoder went up in smoke")

    monkeypatch.setattr("vidnoise.training.transcode.transcode", broken)
    with pytest.raises(EncodeError, match="smoke"):
        CodecPool(pack, tmp_path, SMALL)
    assert not list(tmp_path.iterdir())


def test_without_av_any_pool_does_and_none_is_said_clearly(
    pack: ClipPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vidnoise.training.transcode", None)
    with pytest.raises(UsageError, match="needs PyAV"):
        CodecPool(pack, tmp_path, SMALL)
    monkeypatch.undo()
    made = CodecPool(pack, tmp_path, replace(SMALL, clips=1))
    monkeypatch.setitem(sys.modules, "vidnoise.training.transcode", None)
    assert np.array_equal(CodecPool(pack, tmp_path, SMALL).pairs, made.pairs)


def test_parts_of_clips_are_turned_alike_and_reproducible() -> None:
    pairs = np.zeros((2, 2, 4, 24, 24, 3), np.uint8)
    pairs[:] = np.arange(24)[:, None, None] * 7 + np.arange(24)[:, None] * 3
    pairs += np.arange(4, dtype=np.uint8)[:, None, None, None]
    pool = CodecPool.__new__(CodecPool)
    pool.pairs, pool.about = pairs, [{"matrix": 1}, {"matrix": 6}]

    def sampler(seed: int, where: str = "cpu") -> PoolSampler:
        return PoolSampler(pool, PIXELS[where](pool, torch.device("cpu")), np.random.default_rng(seed))

    drawn = sampler(0)
    clean, noisy, shares = drawn.sample(40, 3, 16)
    assert torch.equal(clean, noisy)
    assert {tuple(pair) for pair in shares.tolist()} == {tuple(pair) for pair in LUMA_SHARES.tolist()}
    assert clean.shape == (40, 3, 3, 16, 16)
    assert len({clip.numpy().tobytes() for clip in clean}) > 30
    forwards = clean[:, 1].mean((1, 2, 3)) > clean[:, 0].mean((1, 2, 3))
    assert 25 < forwards.sum() < 40
    pairs[:, 1] += 10
    clean, noisy, shares = sampler(1).sample(6, 3, 16)
    assert torch.equal(clean * 255, noisy * 255 + 10)
    for a, b in zip(sampler(1, "device").sample(6, 3, 16), (clean, noisy, shares), strict=True):
        assert torch.equal(a, b)
    long, *_ = sampler(1).sample(1, 7, 16)
    assert torch.equal(long[0, 0], long[0, 6])  # to and fro


def test_what_is_lost_is_told_from_noise() -> None:
    clean = np.full((2, 32, 32, 3), 128, np.uint8)
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    assert not is_lost((clean + noise).clip(0, 255).astype(np.uint8), clean)
    assert is_lost(clean + 10, clean)


def test_batches_have_encoded_clips_among_others(pool: CodecPool, pack: ClipPack) -> None:
    def batches(**changes: object) -> BatchMaker:
        settings = config(noise={"gaussian": 1.0, "planes": 1.0, "none": 0.5, "encoded": 1.5}, **changes)
        return BatchMaker(settings, pack, pool, seed=1)

    batch = batches().make(24, 2, 32)
    codes = (batch.noisy[:, :, :1] - batch.noisy[:, :, 1:]) * 255  # centring shifts the channels of a pixel alike
    whole = ((codes - codes.round()).abs() < 1e-3).flatten(3).all(3).all(2).all(0)
    same = (batch.clean == batch.noisy).flatten(3).all(3).all(2).all(0)
    encoded = whole & ~same
    assert 3 < encoded.sum() < 18
    assert batch.noisy.shape == batch.clean.shape == (2, 24, 3, 32, 32)
    torch.testing.assert_close(batch.mean_sigma[same], torch.full((int(same.sum()),), 0.25 / 255))

    resumed, one = batches(), batches()
    one.make(5, 1, 32)
    resumed.restore(one.state())
    for a, b in zip(resumed.make(6, 2, 16), one.make(6, 2, 16), strict=True):
        assert torch.equal(a, b)
    gray = batches(gray=1.0).make(8, 1, 32)
    torch.testing.assert_close(gray.noisy[:, :, 0], gray.noisy[:, :, 2])
    torch.testing.assert_close(gray.mean_sigma.median(), batches().make(8, 1, 32).mean_sigma.median(), rtol=0.8, atol=0)


def test_a_pool_is_made_if_the_configuration_asks_for_one(tmp_path: Path) -> None:
    data = Folders(make_data(tmp_path) / "train", None)
    settings = config(noise={"encoded": 1.0}, pool=replace(SMALL, clips=1))
    trainer = Trainer(settings, data, tmp_path / "run", cache=tmp_path / "cache")
    assert trainer.batches.pool is not None
    assert trainer.train_step()["loss"] > 0
    assert len(list((tmp_path / "cache").glob("pool-*"))) == 2
    with pytest.raises(UsageError, match="needs a pool"):
        BatchMaker(settings, ClipPack(data.train, tmp_path / "cache"))
