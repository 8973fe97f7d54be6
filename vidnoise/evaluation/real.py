"""The protocol ``real``: realistic video noise, denoised by the complete product and evaluated by plane.

A noisy clip (:mod:`vidnoise.evaluation.scenarios`) goes through :func:`vidnoise.denoise` as for a user: blind, with
default options, interlaced frames field by field. The output is compared with the clean clip in the same 4:2:0
format: in the network's RGB, clipped to [0, 1], and plane by plane in 8-bit codes. ``photos`` is the same on
single pictures with a measured truth. :func:`quick_real_validation` is a small part of it, for training.
"""

from __future__ import annotations

import io
import statistics
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidnoise.color import component_values, to_rgb
from vidnoise.color.colorimetry import luma_weights
from vidnoise.disk import write_whole
from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.evaluation.metrics import psnr, temporal_error
from vidnoise.evaluation.plane_filters import PlaneFilter, Run, Setting, by_field
from vidnoise.evaluation.protocol import Rows, find_clips, network_method
from vidnoise.evaluation.scenarios import MATERIAL_VERSION, SCENARIOS, Scenario, Shot, read_frames, shoot
from vidnoise.evaluation.vmaf import vmaf
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.session.fields import fields
from vidnoise.weights import ModelLike, as_model

PLANES = "yuv"


def shots(scenario: Scenario, folder: Path, n_frames: int) -> list[Shot]:
    """Make a scenario's material from all clips below a folder.

    Raises:
        SourceError: There are none, or one cannot be read.
        UsageError: There is no ffmpeg binary.
    """
    return [shoot(scenario, name, path, n_frames) for name, path in find_clips(folder).items()]


NOISY, TRUE = "_real", "_mean"
"""Suffixes of the names of a photograph and of its truth."""


def find_photos(folder: Path) -> dict[str, Path]:
    """Find the photographs below a folder that have a truth beside them, by their names without :data:`NOISY`.

    Raises:
        SourceOpenError: There are none.
    """
    found = [p for p in sorted(folder.rglob(f"*{NOISY}.*")) if _truth(p).is_file()]
    if not found:
        raise SourceOpenError(f"no pairs *{NOISY}.JPG, *{TRUE}.JPG below {folder}", str(folder))
    return {p.relative_to(folder).with_suffix("").as_posix().removesuffix(NOISY): p for p in found}


def _truth(path: Path) -> Path:
    return path.with_name(path.stem.removesuffix(NOISY) + TRUE + path.suffix)


def photo_pairs(folder: Path) -> list[Shot]:
    """Read photographs and their truth, each a clip of one frame, in the planes of the JPEG files.

    Raises:
        SourceError: There are none, or one cannot be read.
        UsageError: A photograph and its truth differ in size or format.
    """
    pairs = []
    for name, path in find_photos(folder).items():
        noisy, clean = read_frames(path), read_frames(_truth(path))
        if [p.shape for p in noisy[0].planes] != [p.shape for p in clean[0].planes]:
            raise UsageError(f"{path.name} and {_truth(path).name} differ in size or format")
        pairs.append(Shot(name, noisy[:1], clean[:1]))
    return pairs


def denoising(
    model: ModelLike, *, strength: float = 1.0, lookahead: int = 0, device: str | torch.device = "cpu"
) -> Run:
    """Return a run of a model as for a user: blind, with default options; in int8 if that is what the model is for.

    Args:
        model, strength, device: As for :func:`vidnoise.denoise`.
        lookahead: Likewise; 0 is causal.
    """
    from vidnoise.api import denoise

    model = as_model(model, device)
    precision = "int8" if model.network.config.quantised else "auto"

    def run(frames: Sequence[Frame]) -> list[Frame]:
        # The backend is explicit, so that a measurement does not depend on earlier trials on this machine.
        return list(
            denoise(
                frames,
                model=model,
                strength=strength,
                lookahead=lookahead,
                device=device,
                precision=precision,
                backend="eager",
            )
        )

    return by_field(run)


def _rgb(frames: Sequence[Frame]) -> Tensor:
    """Convert frames to RGB ``(T, 3, H, W)``, clipped to [0, 1]; fields of interlaced frames separately."""

    def one(frame: Frame) -> Tensor:
        if not frame.interlaced:
            return to_rgb(frame)
        top, bottom = (to_rgb(field) for field in fields(frame))
        return torch.stack([top, bottom], dim=3).flatten(2, 3)[:, :, : frame.height]

    return torch.cat([one(frame) for frame in frames]).clamp(0, 1)


def _square_errors(out: Sequence[Frame], clean: Sequence[Frame]) -> dict[str, Tensor]:
    """Return the mean square error of each frame by plane, in 8-bit codes."""
    pairs = [(component_values(a), component_values(b)) for a, b in zip(out, clean, strict=True)]
    return {p: torch.stack([(a[p] - b[p]).square().mean() for a, b in pairs]) for p in PLANES if p in pairs[0][1]}


def score(out: Sequence[Frame], clean: Sequence[Frame], *, with_vmaf: bool = False) -> dict[str, float]:
    """Compute all metrics of one clip.

    ``psnr`` (RGB) and ``psnr_y``, ``psnr_u``, ``psnr_v`` are means over frames in dB; ``rms_y`` ... are root mean
    squares in 8-bit codes. ``temporal_error`` (RGB) and ``psnr_first`` are omitted for a single picture,
    ``vmaf`` without ``with_vmaf``.
    """
    rgb, truth = _rgb(out), _rgb(clean)
    frames = psnr(rgb, truth)
    scores = {"psnr": frames.mean().item()}
    if len(clean) > 1:
        scores |= {"psnr_first": frames[0].item(), "temporal_error": temporal_error(rgb, truth)}
    if with_vmaf:
        like = clean[0]
        scores["vmaf"] = vmaf(rgb, truth, luma_weights(like.color, like.format, like.height, like.width))
    for plane, errors in _square_errors(out, clean).items():
        scores[f"psnr_{plane}"] = (-10 * torch.log10(errors.clamp(min=1e-6) / 255**2)).mean().item()
        scores[f"rms_{plane}"] = errors.mean().sqrt().item()
    return scores


def evaluate(run: Run, material: Iterable[Shot], *, with_vmaf: bool = False) -> Rows:
    """Compute scores by clip, and over all clips under ``"mean"``."""
    rows = {shot.name: score(run(shot.noisy), shot.clean, with_vmaf=with_vmaf) for shot in material}
    means = {key: statistics.fmean(row[key] for row in rows.values()) for key in next(iter(rows.values()))}
    return rows | {"mean": means}


def evaluate_filter(peer: PlaneFilter, material: Sequence[Shot], *, with_vmaf: bool = False) -> dict[str, object]:
    """Evaluate a classic filter at its best strength, as :func:`evaluate`.

    The result also has ``strength`` (in words) and ``strength_at_edge``.
    """
    n = peer.search_frames
    short = [replace(shot, noisy=shot.noisy[:n], clean=shot.clean[:n]) for shot in material]

    def judge(run: Run) -> tuple[float, float]:
        found = [_square_errors(run(shot.noisy), shot.clean) for shot in short]
        y, u, v = (
            statistics.fmean(-10 * torch.log10(errors[p].clamp(min=1e-6)).mean().item() for errors in found)
            for p in PLANES
        )
        return y, (u + v) / 2

    luma, chroma = judge(list)
    noise = (10 ** (-luma / 20), 10 ** (-chroma / 20))
    luma, chroma, at_edge = peer.best(judge, noise)
    rows = evaluate(peer.run(luma, chroma), material, with_vmaf=with_vmaf)

    def words(setting: Setting) -> str:
        return ":".join(f"{s:g}" for s in setting)

    return {**rows, "strength": f"luma {words(luma)}, chroma {words(chroma)}", "strength_at_edge": at_edge}


QUICK = ("planes20", "chroma20", "dark", "camera")
"""Scenarios of the quick validation."""

QUICK_SIZE, QUICK_FRAMES, MADE_OF = 160, 8, 20
"""Height and width of its crops, number of frames kept, and number of frames encoded."""

Material = dict[str, list[tuple[Tensor, Tensor]]]
"""Noisy and clean frames of each clip, in centred RGB ``(T, 3, H, W)``, by scenario."""

_COLOUR = ColorInfo(matrix=6, range=1)


@lru_cache(maxsize=1)
def centre_material(folder: Path, cache: Path) -> Material:
    """Return the centres of the first frames of all clips below a folder, in the scenarios of :data:`QUICK`.

    They are made once, which needs an ffmpeg binary and PyAV, and kept as a file in ``cache``; a machine that has
    this file needs neither, nor the folder.

    Raises:
        SourceError, UsageError: See :func:`shots`.
    """
    clips = [(name, path.stat().st_size) for name, path in find_clips(folder).items()]
    key = zlib.crc32(repr((MATERIAL_VERSION, clips, QUICK, QUICK_SIZE, QUICK_FRAMES, MADE_OF)).encode())
    file = cache / f"real-{key:08x}.npz"
    if not file.is_file():
        planes = {
            f"{name}/{i:03}/{kind}/{p}": np.stack([plane.numpy() for plane in part])
            for name in QUICK
            for i, shot in enumerate(shots(SCENARIOS[name], folder, MADE_OF))
            for kind, frames in (("noisy", shot.noisy), ("clean", shot.clean))
            for p, part in enumerate(zip(*(_centre(frame) for frame in frames[:QUICK_FRAMES]), strict=True))
        }
        written = io.BytesIO()
        np.savez_compressed(written, **planes)  # pyright: ignore[reportArgumentType]
        cache.mkdir(parents=True, exist_ok=True)
        write_whole(str(file), written.getvalue(), overwrite=True)
    material: Material = {name: [] for name in QUICK}
    with np.load(file) as kept:
        for name in QUICK:
            for i in range(len(clips)):
                noisy, clean = (
                    _from_planes([kept[f"{name}/{i:03}/{kind}/{p}"] for p in range(3)]) for kind in ("noisy", "clean")
                )
                material[name].append((noisy, clean))
    return material


def _centre(frame: Frame) -> list[Tensor]:
    """Return the planes of the centre of a 4:2:0 frame, or of all of it if it is smaller than :data:`QUICK_SIZE`."""
    planes = []
    for plane, size in zip(frame.planes, (QUICK_SIZE, QUICK_SIZE // 2, QUICK_SIZE // 2), strict=True):
        # Chroma and luma must start at the same place, so luma offsets are twice those of chroma.
        step = 2 * size // QUICK_SIZE
        top, left = (max(0, (n * 2 // step - QUICK_SIZE) // 2 // 2 * step) for n in plane.shape)
        planes.append(plane[top : top + size, left : left + size])
    return planes


def _from_planes(planes: Sequence[np.ndarray]) -> Tensor:
    samples = [torch.from_numpy(plane) for plane in planes]
    pictures = zip(*samples, strict=True)
    return torch.cat([to_rgb(Frame(tuple(p), PIXEL_FORMATS["yuv420p"], _COLOUR), centred=True) for p in pictures])


def quick_real_validation(
    network: DenoiseNetwork, folder: Path, cache: Path, *, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Compute PSNR in centred RGB by scenario, blind and causal, on :func:`centre_material`: a compass for training.

    Args:
        network: In evaluation mode, on ``device``.
        folder: Clean clips.
        cache: Folder where the material is kept.
        device: Device of the network.

    Raises:
        SourceError, UsageError: There is no material, and it cannot be made.
    """
    method = network_method(network, blind=True, device=device)
    return {
        name: statistics.fmean(psnr(method(n, 0.0).clamp(0, 1), c.clamp(0, 1)).mean().item() for n, c in clips)
        for name, clips in centre_material(folder, cache).items()
    }
