"""What most users of the library need: :func:`denoise` for pictures, :func:`denoise_file` for files."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from vidnoise.allocator import memory_errors_explained
from vidnoise.backends import check_backend, steady_backend
from vidnoise.backends.window import choose_lookahead
from vidnoise.errors import UsageError
from vidnoise.frame import Frame
from vidnoise.pictures import PictureAdapter, Restore
from vidnoise.pipeline.device_transfer import HostTransfer, make_transfer
from vidnoise.pipeline.live_policy import MAX_LATENCY_MS
from vidnoise.pipeline.run import run
from vidnoise.pipeline.stats import Progress, RunStats, joined
from vidnoise.resume.source import SEGMENT_SECONDS, open_resumable
from vidnoise.session.denoiser import Denoiser, resolve_device
from vidnoise.session.fields import FieldDenoiser
from vidnoise.session.grain_table import GrainTable
from vidnoise.sinks import check_places, keeps_clock, numbered, open_sink, sink_kind
from vidnoise.sources import SizeChange, open_source
from vidnoise.text import shown
from vidnoise.weights import LoadedModel, load_model

if TYPE_CHECKING:
    import av
    import numpy as np

    from vidnoise.session.strength import MaskLike, ZonesLike

    Picture = TypeVar("Picture", np.ndarray, torch.Tensor, av.VideoFrame, Frame)
else:
    Picture = TypeVar("Picture")

logger = logging.getLogger(__name__)


def denoise(
    frames: Iterable[Picture],
    *,
    model: str | os.PathLike[str] = "standard",
    sigma: float | None = None,
    strength: float = 1.0,
    luma: float = 1.0,
    chroma: float = 1.0,
    zones: ZonesLike | None = None,
    mask: MaskLike | None = None,
    grain: float = 0.0,
    grain_seed: int = 0,
    grain_table: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    backend: str = "auto",
    detect_cuts: bool = True,
    lookahead: int = 0,
    preview: str | None = None,
) -> Iterator[Picture]:
    """Denoise the consecutive pictures of one video, lazily and in constant memory.

    Args:
        frames: numpy arrays ``(H, W, 3)`` RGB or ``(H, W)`` gray, torch tensors ``(3, H, W)`` RGB, each in uint8,
            uint16 (all 16 bits used) or float32 (nominally [0, 1], never clipped); ``av.VideoFrame``; or
            :class:`Frame`. A change of size starts afresh.
        model: a name from :func:`list_models`, or a ``.safetensors`` file.
        sigma: standard deviation of the noise in 8-bit units (25 means 25/255), of each plane's samples as they are
            stored: of R, G and B, of gray, or of Y, Cb and Cr; ``None`` measures it.
        strength: 0 changes nothing, 1 removes what the network takes for noise, up to 2 removes more.
        luma, chroma: 0 to 2, times it, for brightness and colour.
        zones: strengths by time, ``"0-10:0.5,60-:0"``: seconds from the first picture on, which must have times
            (``av.VideoFrame`` and :class:`Frame` do).
        mask: strength by place: a picture or video file or an ``(H, W)`` array, white fully, black not at all.
        grain: fresh grain like the noise removed, 0 to 2; 1 gives back as much. ``grain_seed`` says which.
        grain_table: file for an AV1 film-grain table (``filmgrn1``) of the noise removed, written at the end.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``: where the network runs.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        backend: how the network runs: ``auto``, or a name from docs/BACKENDS.md (``eager``, ``openvino`` ...).
        detect_cuts: start afresh at scene cuts.
        lookahead: how many pictures may be taken from ``frames`` before one comes out, up to 32: each is then denoised
            by those after it, too. 0 waits for nothing.
        preview: ``split`` leaves the left half as it is, with a thin divider, to look at.

    Returns:
        An iterator of as many pictures of the same kind: sample type, shape, range, device; an ``av.VideoFrame``
        keeps its format, time and colour tags. They are yours: nothing overwrites them later.

    Raises:
        UsageError: an option out of range (at the call).
        UnknownModelError, WeightsError, DeviceError: no such model or device (at the call).
        BackendError: the backend is not installed, or does not go with the device or precision (at the call).
        FormatError: a picture of another kind, sample type or shape (when it is reached).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> noisy = [np.clip(rng.normal(128, 20, (48, 64)), 0, 255).astype(np.uint8) for _ in range(4)]
    >>> clean = list(denoise(noisy, sigma=20))
    >>> len(clean), clean[3].shape, clean[3].dtype
    (4, (48, 64), dtype('uint8'))
    >>> bool(clean[3].std() < 0.5 * noisy[3].std())
    True
    """
    denoiser = Denoiser(
        model, sigma=sigma, strength=strength, luma=luma, chroma=chroma, zones=zones, mask=mask,
        grain=grain, grain_seed=grain_seed, grain_table=grain_table,
        device=device, precision=precision, backend=backend, detect_cuts=detect_cuts, lookahead=lookahead,
        preview=preview,
    )  # fmt: skip
    return _denoise(frames, denoiser)


def _denoise(pictures: Iterable[Picture], denoiser: Denoiser) -> Iterator[Picture]:
    adapter = PictureAdapter()
    ways_back: deque[Restore] = deque()

    def adapted() -> Iterator[Frame]:
        for picture in pictures:
            frame, restore = adapter.frame(picture)
            ways_back.append(restore)
            yield frame

    with contextlib.ExitStack() as stages:
        stages.callback(denoiser.close)
        arriving = adapted()
        first = next(arriving, None)
        if first is None:
            return
        is_there = all(plane.device == denoiser.device for plane in first.planes)
        transfer = HostTransfer() if is_there else make_transfer(denoiser.device)
        uploaded = stages.enter_context(contextlib.closing(transfer.upload(itertools.chain([first], arriving))))
        del first
        clean = stages.enter_context(contextlib.closing(transfer.download(denoiser(uploaded))))
        for frame in clean:
            yield ways_back.popleft()(frame)


def denoise_file(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    overwrite: bool = False,
    model: str | os.PathLike[str] | LoadedModel = "standard",
    sigma: float | None = None,
    strength: float = 1.0,
    luma: float = 1.0,
    chroma: float = 1.0,
    zones: ZonesLike | None = None,
    mask: MaskLike | None = None,
    grain: float = 0.0,
    grain_seed: int = 0,
    grain_table: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    backend: str = "auto",
    max_memory: float | None = None,
    detect_cuts: bool = True,
    lookahead: int | str = "auto",
    preview: str | None = None,
    start: float | None = None,
    duration: float | None = None,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    audio: str = "copy",
    format: str | None = None,
    tee: Sequence[str | os.PathLike[str]] = (),
    grow: bool = False,
    faststart: bool | None = None,
    input_format: str | None = None,
    raw_size: str | None = None,
    raw_format: str | None = None,
    raw_rate: str | None = None,
    live: bool | None = None,
    max_latency: float = MAX_LATENCY_MS,
    connect_timeout: float = 15,
    read_timeout: float | None = None,
    reconnect: int = 5,
    rtsp_transport: str | None = None,
    input_options: dict[str, str] | None = None,
    interlaced: str = "auto",
    tracks: str | None = None,
    max_pixels: int | None = None,
    hwaccel: str = "none",
    threads: int = 0,
    resume: bool = False,
    segment_seconds: float = SEGMENT_SECONDS,
    size_change: SizeChange | None = None,
) -> RunStats:
    """Denoise a video file into another one; this is what ``vidnoise SRC -o DST`` runs.

    Sound, subtitles, chapters, metadata, time stamps, rotation and colour tags are kept. ``dst`` appears under its
    name only when it is complete; on Ctrl-C it is finished with what was done so far.

    Args:
        src: a path or URL, or ``-`` for standard input.
        dst: a path, whose extension chooses the container, ``-`` for standard output, or a URL to push to.
        progress: called about ten times a second, and at the end.
        should_stop: asked before each frame; when it says yes, the file ends there.
        overwrite: whether ``dst`` may exist.
        model: see :func:`denoise`; it may also be what :func:`load_model` returned, so that many files share it.
        sigma, strength, luma, chroma, zones, mask, grain, grain_seed, grain_table, preview: see :func:`denoise`.
        device, precision, backend, max_memory, detect_cuts: see :class:`Denoiser`. Live inputs never pause to measure
            backends: ``auto`` is steady there.
        lookahead: ``auto`` or a number: by default files are looked at 8 frames ahead, or as far as the memory allows;
            live inputs not at all on a CPU, and on a GPU by up to 3 frames, if a quarter of ``max_latency`` has room
            for them.
        start, duration: seconds; the part of ``src`` that is wanted.
        codec, crf, preset, pix_fmt, audio, format, tee, grow, faststart: see :func:`open_sink`.
        input_format, raw_size, raw_format, raw_rate, interlaced, tracks, max_pixels: see :func:`open_source`.
        live, connect_timeout, read_timeout, reconnect, rtsp_transport, input_options: see :func:`open_source`.
        hwaccel: what decodes: ``none`` the CPU; ``cuda`` an NVIDIA GPU, or an error; ``auto`` the GPU that the network
            runs on, if it knows the codec.
        max_latency: of live inputs, ms from a frame's arrival to its being written; the oldest frames are dropped
            where it would be longer.
        threads: for decoder, encoder and, in the whole process, torch; 0 lets each choose.
        resume: write in segments to ``<dst>.parts``, and go on from the last finished one where that is there from an
            interrupted run with the same options; ``dst`` appears when all is done.
        segment_seconds: length of a segment: what an interruption costs at most.
        size_change: what to do where the pictures change their size or format in the middle: ``split`` finishes the
            output and goes on in ``<name>-2``, ``scale`` gives all the first one's size, ``stop`` finishes the output
            and raises SizeChangeError. By default files stop; live inputs go on in another file, or scaled where an
            output is no file.

    Raises:
        SourceError, SinkError, FormatError, ModelError, DeviceError, UsageError: all are ``VidnoiseError``; each
            text is one line.

    >>> import tempfile, os
    >>> folder = tempfile.mkdtemp()
    >>> stats = denoise_file("lavfi:testsrc2=size=64x48:rate=25:duration=0.2", os.path.join(folder, "clean.mkv"))
    >>> stats.frames_out
    5
    """
    check_backend(backend)
    check_places(
        [os.fspath(output) for output in (dst, *tee)],
        reads=[os.fspath(read) for read in (src, mask, model) if isinstance(read, (str, os.PathLike))],
        writes=[] if grain_table is None else [os.fspath(grain_table)],
    )
    # What can be wrong is found in the order of what it costs: names and options, then the input, then the model.
    table = None if grain_table is None else GrainTable(grain_table, overwrite=overwrite)
    sink_options: dict[str, Any] = {
        "overwrite": overwrite, "codec": codec, "crf": crf, "preset": preset, "pix_fmt": pix_fmt,
        "audio": audio, "format": format, "threads": threads,
    }  # fmt: skip
    if faststart is not None:
        sink_options["faststart"] = faststart
    source_options: dict[str, Any] = {
        "start": start, "duration": duration, "threads": threads, "format": input_format,
        "raw_size": raw_size, "raw_format": raw_format, "raw_rate": raw_rate, "live": live,
        "connect_timeout": connect_timeout, "read_timeout": read_timeout, "reconnect": reconnect,
        "rtsp_transport": rtsp_transport, "input_options": input_options, "interlaced": interlaced, "tracks": tracks,
        "max_pixels": max_pixels,
        "keeps_clock": keeps_clock(dst, format) and all(map(keeps_clock, tee)),
    }  # fmt: skip
    if hwaccel != "none":
        from vidnoise.sources.hardware import Hardware

        source_options["hardware"] = Hardware(hwaccel, resolve_device(device))
    rest = None
    if resume:
        if tee or grow or table or live:
            raise UsageError("resume writes one finished file: it does not go with tee, grow, grain_table or live")
        if size_change not in (None, "stop"):
            raise UsageError(f"resume writes one finished file as it is: it does not go with size_change {size_change}")
        if isinstance(model, (str, os.PathLike)):
            model = load_model(model, resolve_device(device))
        looks = {
            "sigma": sigma, "strength": strength, "luma": luma, "chroma": chroma,
            "zones": None if zones is None else str(zones), "grain": grain, "grain_seed": grain_seed,
            "precision": precision, "detect_cuts": detect_cuts, "lookahead": lookahead, "preview": preview,
        }  # fmt: skip
        source, sink = open_resumable(
            src, dst, segment_seconds=segment_seconds, network=model.network, mask=mask, looks=looks,
            source_options=source_options, sink_options=sink_options,
        )  # fmt: skip
        rest = source
    else:
        sink = open_sink(dst, tee=tee, grow=grow, **sink_options)
        are_files = all(sink_kind(os.fspath(output)) == "file" for output in (dst, *tee))
        if size_change == "split" and not are_files:
            raise UsageError("size_change split goes on in another file: every output must be one; use scale")
        source = open_source(
            src, **source_options, size_change=size_change or "stop",
            live_size_change=size_change or ("split" if are_files else "scale"),
        )  # fmt: skip
    with contextlib.closing(source), contextlib.ExitStack() as stack:
        stack.callback(lambda: sink.abort())  # which changes nothing once it is closed
        if threads:
            torch.set_num_threads(threads)
        if mask is not None and source.info.field_order is not None:
            raise UsageError(f"{source.info.field_order} video is denoised by field, where a mask has no place yet")
        if isinstance(lookahead, str):
            if lookahead != "auto":
                raise UsageError(f"lookahead must be auto or a number of frames, got {lookahead!r}")
            info = source.info
            lookahead = choose_lookahead(
                (info.width, info.height), resolve_device(device), max_memory=max_memory, rate=info.rate,
                max_latency_ms=max_latency if info.is_live else None,
            )  # fmt: skip
        session = functools.partial(
            Denoiser, sigma=sigma, strength=strength, luma=luma, chroma=chroma, zones=zones, mask=mask,
            grain=grain, grain_table=table, device=device, precision=precision, detect_cuts=detect_cuts,
            backend=steady_backend(backend, resolve_device(device)) if source.info.is_live else backend,
            lookahead=lookahead, max_memory=max_memory, preview=preview, rotation=source.info.rotation,
            begin_seconds=start or 0.0, first_time=rest.first_time if rest else None,
        )  # fmt: skip
        first = session(model, grain_seed=grain_seed)
        second = functools.partial(session, grain_seed=grain_seed + 1, backend=first.backend)
        parts: list[RunStats] = []
        stack.enter_context(memory_errors_explained())
        while True:
            stats = run(
                source, FieldDenoiser(first, second), sink, max_latency_ms=max_latency, on_progress=progress,
                should_stop=should_stop, close_source=False,
            )  # fmt: skip
            parts.append(stats)
            if rest or stats.interrupted or not getattr(source, "next_part", bool)():
                break
            dst, *tee = (numbered(os.fspath(output)) for output in (dst, *tee))
            info = source.info
            logger.warning(
                "%s: goes on as %dx%d %s in %s", shown(os.fspath(src)), info.width, info.height, info.format.name, dst
            )
            sink = open_sink(dst, tee=tee, grow=grow, **sink_options)
            first = session(first.model, grain_seed=grain_seed, backend=first.backend, rotation=info.rotation)
        stats = joined(parts)
        return rest.amend(stats) if rest else stats
