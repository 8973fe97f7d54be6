"""Descriptions of the choices of a run, with their reasons, for ``vidnoise -v``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vidnoise.frame import StreamInfo
from vidnoise.options import FileOptions
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.noise_profile import NoiseProfile
from vidnoise.session.noise_region import parse_region


def choices(
    denoiser: Denoiser, options: FileOptions, info: StreamInfo, profile: NoiseProfile | None = None
) -> Iterator[str]:
    """Describe the choices of a run, one line each.

    Args:
        denoiser: The stream's session.
        options: The options of the run, as given.
        info: Description of the source.
        profile: The noise as measured before the run.
    """
    card = denoiser.model.card
    yield f"model {card.name}, version {card.version}"
    yield f"device {denoiser.device} ({_why_device(options, denoiser.device)}), {_count(torch.get_num_threads())}"
    precision = str(denoiser.dtype).removeprefix("torch.")
    yield f"arithmetic in {precision} ({_asked(options.precision != 'auto', 'the default of device and backend')})"
    yield f"backend {denoiser.backend_name} ({_why_backend(options, denoiser, info)})"
    yield f"lookahead of {denoiser.latency_frames} frames ({_why_lookahead(options, denoiser, info)})"
    yield f"noise level: {_noise_level(options, profile)}"
    if info.field_order is not None:
        yield f"interlaced ({info.field_order}): each field is denoised as a stream of its own"


def _noise_level(options: FileOptions, profile: NoiseProfile | None) -> str:
    if options.sigma is not None:
        return f"{options.sigma:g}/255 (as asked)"
    place = "the flattest parts" if options.noise_region is None else f"the region {parse_region(options.noise_region)}"
    if profile is not None:
        frames = "1 frame" if profile.n_frames == 1 else f"{profile.n_frames} frames"
        return f"luma {profile.luma:.1f}/255, chroma {profile.chroma:.1f}/255, measured in {place} of {frames}"
    if options.noise_region is not None:
        return f"measured in {place}, in each frame"
    return "estimated for each pixel, channel and frame"


def _asked(is_asked: bool, otherwise: str) -> str:
    return "as asked" if is_asked else otherwise


def _count(threads: int) -> str:
    return f"{threads} {'thread' if threads == 1 else 'threads'} of the network"


def _why_device(options: FileOptions, device: torch.device) -> str:
    found = "a GPU was found" if device.type == "cuda" else "no CUDA GPU was found"
    return _asked(str(options.device) != "auto", found)


def _why_backend(options: FileOptions, denoiser: Denoiser, info: StreamInfo) -> str:
    if options.max_memory is not None:
        return "in tiles, to keep max_memory"
    if options.backend != "auto":
        return "as asked"
    if denoiser.device.type != "cpu":
        return f"the fastest on {denoiser.device.type}"
    if options.precision == "int8":
        return "the one that runs int8"
    return "live video does not wait for trials" if info.is_live else "a long run may measure others, and change"


def _why_lookahead(options: FileOptions, denoiser: Denoiser, info: StreamInfo) -> str:
    if options.lookahead != "auto":
        return "as asked"
    if not info.is_live:
        return "the default for files, as far as memory allows"
    return "live, within max_latency" if denoiser.latency_frames else "live: no time for more"
