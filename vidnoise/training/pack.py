"""Reduction of training data to a size that can be carried to another machine, as an ordinary data folder.

Clips are copied unchanged. Photos become WebP pictures, at the highest quality that fits. Of the validation clips, the
parts that :func:`~vidnoise.evaluation.protocol.quick_validation` uses are kept losslessly; of the pool of encoded
clips, as many as fit into their share, in one video for :class:`~vidnoise.training.codec_pool.CodecPool`. The other
machine needs only OpenCV.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.evaluation.clips import CLIP_SUFFIXES, read_clip
from vidnoise.evaluation.protocol import centre_crops
from vidnoise.opencv import cv2
from vidnoise.training.codec_pool import ENCODED_FILE, CodecPool
from vidnoise.training.data import PHOTO_SUFFIXES, Folders

POOL_SHARE = 0.12
"""Share of the space for encoded clips."""
CRF = 12
"""Quality of x264 for the video of encoded clips."""
QUALITIES = (100, 97, 94, 90, 85, 80, 70, 60)
"""Qualities of WebP for photos; the first that fits is used."""


class Cut(NamedTuple):
    """Summary of one reduced part of the data."""

    part: str
    files: int
    """Number of files, or of encoded clips."""
    megabytes: float
    psnr: float
    """PSNR against the original, in dB; infinite if identical."""


def cut_down(folders: Folders, out: Path, *, megabytes: float, pool: CodecPool | None) -> list[Cut]:
    """Write a smaller data folder.

    Args:
        folders: The complete data.
        out: Folder to write; must be empty or not exist.
        megabytes: Maximum size, in units of 10^6 bytes.
        pool: Encoded clips to select from.

    Raises:
        SinkOpenError: ``out`` is not empty.
        UsageError: The clips or the photos do not fit.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SinkOpenError(f"{out} is not an empty folder", str(out))
    (out / "train").mkdir(parents=True)
    cuts = [_clips(folders.train, out / "train")]
    if folders.val:
        cuts.append(_validation(folders.val, out / "val"))
    if pool:
        cuts.append(_pool(pool, out, POOL_SHARE * megabytes * 1e6))
    left = megabytes - sum(cut.megabytes for cut in cuts)
    if left < 0:
        raise UsageError(f"the clips alone have {megabytes - left:.1f} MB, more than {megabytes:g}")
    photos = _files(folders.train, PHOTO_SUFFIXES)
    return [*cuts, _photos(photos, folders.train, out / "train", left)] if photos else cuts


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes)


def _size(paths: Iterable[Path]) -> float:
    return sum(p.stat().st_size for p in paths) / 1e6


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.square(a.astype(np.float32) - b).mean() / 255**2
    return float(-10 * np.log10(error)) if error else float("inf")


def _clips(folder: Path, out: Path) -> Cut:
    copies = []
    for path in _files(folder, CLIP_SUFFIXES):
        copies.append(out / path.relative_to(folder))
        copies[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copies[-1])
    return Cut("clips", len(copies), _size(copies), float("inf"))


def _validation(folder: Path, out: Path) -> Cut:
    from vidnoise.training.transcode import record

    out.mkdir()
    for name, crop in centre_crops(folder):
        pictures = (crop * 255).round().byte().permute(0, 2, 3, 1).numpy()
        record(out / f"{name}.mkv", pictures, {"preset": "medium"}, exact=True)
    files = list(out.iterdir())
    return Cut("validation", len(files), _size(files), float("inf"))


def _pool(pool: CodecPool, out: Path, room: float) -> Cut:
    from vidnoise.training.transcode import record

    _, _, length, *_ = pool.pairs.shape
    options = {"crf": str(CRF), "preset": "medium", "g": str(length), "keyint_min": str(length), "sc_threshold": "0"}
    path = out / ENCODED_FILE

    # Clips differ in size: the number that fits is estimated from the first few, then corrected.
    wanted = min(16, len(pool.pairs))
    for _ in range(4):
        n = wanted
        record(path, pictures := pool.pairs[:n].reshape(-1, *pool.pairs.shape[3:]), options)
        size = path.stat().st_size
        if size <= room and (n == len(pool.pairs) or size > 0.8 * room):
            break
        wanted = max(1, min(len(pool.pairs), int(0.92 * room / size * n)))
    index: dict[str, Any] = {"shape": [n, *pool.pairs.shape[1:]], "clips": pool.about[:n]}
    path.with_suffix(".json").write_text(json.dumps(index))
    files = path, path.with_suffix(".json")
    return Cut("encoded", n, _size(files), _psnr(read_clip(path), pictures))


def _photos(photos: list[Path], folder: Path, out: Path, megabytes: float) -> Cut:
    pictures = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in photos]

    def coded(among: list[Any], quality: int) -> list[np.ndarray]:
        return [cv2.imencode(".webp", p, [cv2.IMWRITE_WEBP_QUALITY, quality])[1] for p in among]

    codes, size = [], 0.0
    for quality in QUALITIES:
        some = pictures[::10]  # encoding takes long, so a tenth is tried first
        if sum(map(len, coded(some, quality))) / len(some) * len(pictures) > 1.05e6 * megabytes:
            continue
        codes = coded(pictures, quality)
        size = sum(map(len, codes)) / 1e6
        if size <= megabytes:
            break
    else:
        raise UsageError(f"no room for the photos: {megabytes:.1f} MB are left")
    psnr = []
    for path, picture, code in zip(photos, pictures, codes, strict=True):
        target = (out / path.relative_to(folder)).with_suffix(".webp")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(code.tobytes())
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        assert decoded is not None  # OpenCV reads what it has just written
        assert picture is not None  # it was already read for the pack
        psnr.append(_psnr(decoded, picture))
    return Cut(f"photos, WebP {quality}", len(photos), size, float(np.mean(psnr)))
