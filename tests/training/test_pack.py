"""Data cut down to be carried: what it still has, what it fits into, and that it needs no PyAV to be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.tolerances import RECODED_DB
from support.training_setup import make_data
from vidnoise.cli import main
from vidnoise.errors import SinkOpenError, SourceOpenError, UsageError
from vidnoise.evaluation.clips import read_clip
from vidnoise.training.codec_pool import ENCODED_FILE, CodecPool
from vidnoise.training.config import Pool
from vidnoise.training.data import ClipPack, Folders
from vidnoise.training.pack import cut_down

SMALL = Pool(clips=3, frames=4, size=32)

CONFIG = """
tier = "fast"
noise = { gaussian = 1, encoded = 1 }
pool = { clips = 3, frames = 4, size = 32 }
[[stages]]
name = "a"
batch = 2
frames = 2
patch = 32
steps = 1
[model]
widths = [8, 8]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def test_what_is_cut_down_is_still_the_same_data(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = ClipPack(data / "train", tmp_path / "cache")
    pool = CodecPool(pack, tmp_path / "cache", SMALL)
    cuts = {
        cut.part.split(",")[0]: cut for cut in cut_down(Folders.below(data), tmp_path / "small", megabytes=2, pool=pool)
    }
    assert {name: cut.files for name, cut in cuts.items()} == {"clips": 2, "validation": 1, "encoded": 3, "photos": 1}
    small = Folders.below(tmp_path / "small")
    files = [p for p in (tmp_path / "small").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) == pytest.approx(1e6 * sum(cut.megabytes for cut in cuts.values()))

    for name in ("a.avi", "b.avi"):
        assert (small.train / name).read_bytes() == (data / "train" / name).read_bytes()
    assert small.val is not None
    crop = read_clip(data / "val" / "c.avi")[:10, 4:196, 16:208]
    assert np.array_equal(read_clip(small.val / "c.mkv"), crop)  # to the last bit
    photo, before = (cv2.imread(str(p)) for p in (small.train / "photo.webp", data / "train" / "photo.png"))
    assert photo is not None
    assert before is not None
    assert cv2.PSNR(photo, before) > RECODED_DB

    monkeypatch.setitem(sys.modules, "vidnoise.training.transcode", None)  # as it is without PyAV
    again = ClipPack(small.train, tmp_path / "there")
    brought = CodecPool(again, tmp_path / "there", Pool(), brought=tmp_path / "small" / ENCODED_FILE)
    assert brought.pairs.shape == pool.pairs.shape
    assert brought.about == pool.about
    assert cv2.PSNR(np.array(brought.pairs).ravel(), np.array(pool.pairs).ravel()) > RECODED_DB


def test_there_must_be_room(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="clips alone"):
        cut_down(Folders.below(data), tmp_path / "a", megabytes=0.01, pool=None)
    clips = sum(p.stat().st_size for p in (data / "train").glob("*.avi")) / 1e6
    with pytest.raises(UsageError, match="no room for the photos"):
        cut_down(Folders(data / "train", None), tmp_path / "b", megabytes=clips + 1e-5, pool=None)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine").touch()
    with pytest.raises(SinkOpenError, match="not an empty folder"):
        cut_down(Folders.below(data), tmp_path / "c", megabytes=2, pool=None)
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["mine"]


def test_finer_photos_where_there_is_more_room(data: Path, tmp_path: Path) -> None:
    folders = Folders(data / "train", None)
    clips = sum(p.stat().st_size for p in (data / "train").glob("*.avi")) / 1e6
    rough, fine = (
        cut_down(folders, tmp_path / str(kb), megabytes=clips + kb / 1000, pool=None)[-1] for kb in (1.5, 20)
    )
    assert rough.megabytes < 0.0015
    assert fine.psnr > rough.psnr + 3


def test_the_command_cuts_down_and_trains_on_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.toml").write_text(CONFIG)
    common = ["train", str(tmp_path / "tiny.toml"), "--cache", str(tmp_path / "cache")]
    out = str(tmp_path / "small")
    assert main([*common, "--data", str(data), "--pack", out, "--megabytes", "2"]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "clips: 2 of" in shown
    assert "encoded: 3 of" in shown
    assert f"MB in {out}" in shown
    assert main([*common, "--data", str(data), "--pack", out]) == 4

    monkeypatch.setitem(sys.modules, "vidnoise.training.transcode", None)
    run = ["--run", str(tmp_path / "run"), "--cache", str(tmp_path / "there"), "--batches", "device"]
    assert main([*common[:2], *run, "--train", str(tmp_path / "small" / "train")]) == 0
    assert (tmp_path / "run" / "tiny-raw.safetensors").is_file()


def test_a_pool_that_is_not_what_its_list_says(data: Path, tmp_path: Path) -> None:
    (tmp_path / ENCODED_FILE).write_bytes((data / "train" / "a.avi").read_bytes())
    (tmp_path / ENCODED_FILE).with_suffix(".json").write_text(json.dumps({"shape": [1, 2, 3, 32, 32, 3], "clips": []}))
    with pytest.raises(SourceOpenError, match="is not what"):
        CodecPool(ClipPack(data / "train", tmp_path), tmp_path, SMALL, brought=tmp_path / ENCODED_FILE)
