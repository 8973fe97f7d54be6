"""The main functions: :func:`denoise` for videos as pictures, :func:`denoise_image` for one, :func:`denoise_file`."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

import torch

from vidnoise.allocator import memory_errors_explained
from vidnoise.backends import check_backend, steady_backend
from vidnoise.backends.device import resolve_device
from vidnoise.backends.tiled import room_for_still
from vidnoise.backends.window import choose_lookahead
from vidnoise.checked import takes
from vidnoise.errors import UsageError
from vidnoise.frame import Frame, StreamInfo
from vidnoise.options import DenoiseOptions, DeviceOptions, FileOptions, ImageOptions
from vidnoise.parallel.sharing import reason_to_work_alone, share
from vidnoise.pictures import Order, Picture, PictureAdapter, ToPicture, check_several, image_frame, owned
from vidnoise.pipeline.choices import choices
from vidnoise.pipeline.device_transfer import HostTransfer, make_device_transfer
from vidnoise.pipeline.run import run
from vidnoise.pipeline.stats import Progress, RunStats, combine
from vidnoise.resume.source import open_resumable
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldSessions
from vidnoise.session.grain_table import GrainTable
from vidnoise.session.noise_profile import NoiseProfile
from vidnoise.session.noise_region import Region, parse_region
from vidnoise.session.noise_span import measure_span, parse_span
from vidnoise.session.protocol import Session
from vidnoise.session.strength import still_mask
from vidnoise.sinks import check_places, keeps_clock, make_sink, numbered, sink_kind
from vidnoise.sources import make_source
from vidnoise.stills.names import is_still
from vidnoise.text import shown
from vidnoise.weights import Model, ModelLike, as_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vidnoise.option_keywords import DenoiseKeywords, FileKeywords, ImageKeywords

Image = TypeVar("Image")
Options = TypeVar("Options", bound=DeviceOptions)

logger = logging.getLogger(__name__)


@takes(DenoiseOptions)
def denoise(
    frames: Iterable[Picture],
    *,
    model: ModelLike = "standard",
    order: Order = "rgb",
    **options: Unpack[DenoiseKeywords],
) -> Iterator[Picture]:
    """Denoise the consecutive pictures of one video, lazily and in constant memory.

    Args:
        frames: numpy arrays ``(H, W, 3)`` RGB or ``(H, W)`` gray, torch tensors ``(3, H, W)`` RGB, each in uint8,
            uint16 (all 16 bits used) or float32 (nominally [0, 1], never clipped); PIL images (modes RGB, L, I;16);
            ``av.VideoFrame``; or :class:`Frame`. A change of size resets the denoiser. One array ``(N, H, W, 3)``
            is a video of N frames, too.
        model: A name from :func:`list_models`, a ``.safetensors`` file, or what :func:`load_model` returned, so that
            many calls share it.
        order: Order of the channels of arrays and tensors, in and out: ``"rgb"``, or ``"bgr"`` as OpenCV has them.
        options: See below, and :class:`vidnoise.options.DenoiseOptions`. ``lookahead`` is the number of pictures that
            may be taken from ``frames`` before one comes out; zones need pictures that have times
            (``av.VideoFrame`` and :class:`Frame` do).

    Returns:
        An iterator over as many pictures of the same kind, sample type, shape, range and device; an ``av.VideoFrame``
        keeps its format, time and colour tags. The caller owns them: they are never overwritten.

    Raises:
        UsageError: An option is out of range (at the call).
        UnknownModelError, WeightsError, DeviceError: There is no such model or device (at the call).
        BackendError: The backend is not installed, or does not support the device or precision (at the call).
        FormatError: ``frames`` is a single picture or the name of a file (at the call); a picture is of an unsupported
            kind, sample type or shape, or a float picture whose white is not 1 (when it is reached).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> noisy = [np.clip(rng.normal(128, 20, (48, 64)), 0, 255).astype(np.uint8) for _ in range(4)]
    >>> clean = list(denoise(noisy, sigma=20))
    >>> len(clean), clean[3].shape, clean[3].dtype
    (4, (48, 64), dtype('uint8'))
    >>> bool(clean[3].std() < 0.5 * noisy[3].std())
    True
    """
    chosen = DenoiseOptions.of("denoise", options)
    check_several(frames)
    adapter = PictureAdapter(order)
    return _denoise(frames, adapter.frame, Denoiser(model, **chosen.keywords(DenoiseOptions)))


def _denoise(
    pictures: Iterable[Image], to_frame: Callable[[Image], tuple[Frame, ToPicture]], denoiser: Denoiser
) -> Iterator[Image]:
    converters: deque[ToPicture] = deque()

    def adapted() -> Iterator[Frame]:
        for picture in pictures:
            frame, to_picture = to_frame(picture)
            # Planes are only valid for a while after a download, and a frame would be handed on as it is.
            converters.append((lambda clean, back=to_picture: back(owned(clean))) if frame is picture else to_picture)
            yield frame

    with contextlib.ExitStack() as stages:
        stages.callback(denoiser.close)
        frames = adapted()
        first = next(frames, None)
        if first is None:
            return
        is_there = all(plane.device == denoiser.device for plane in first.planes)
        device_transfer = HostTransfer() if is_there else make_device_transfer(denoiser.device)
        uploaded = stages.enter_context(contextlib.closing(device_transfer.upload(itertools.chain([first], frames))))
        del first
        clean = stages.enter_context(contextlib.closing(device_transfer.download(denoiser(uploaded))))
        for frame in clean:
            yield converters.popleft()(frame)


@takes(ImageOptions)
def denoise_image(
    image: Image,
    *,
    model: ModelLike = "standard",
    order: Order = "rgb",
    **options: Unpack[ImageKeywords],
) -> Image:
    """Denoise one picture on its own; :func:`denoise_file` denoises files into files.

    If the free memory does not suffice for the whole picture, it is denoised in tiles.

    Args:
        image: A numpy array ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA, ``(H, W)`` gray or ``(H, W, 2)`` gray with alpha, or
            a torch tensor ``(3, H, W)`` RGB, each in uint8, uint16 (all 16 bits used) or float32 (nominally [0, 1],
            never clipped; not for gray with alpha); a PIL image (modes RGB, RGBA, L, LA, I;16); an ``av.VideoFrame``; a
            :class:`Frame`; or the path of a picture file.
        model: A name from :func:`list_models`, a ``.safetensors`` file, or the result of :func:`load_model`, to share
            it between pictures.
        order: Order of the channels of arrays and tensors, in and out: ``"rgb"``, or ``"bgr"`` as OpenCV has them.
            Alpha always comes last.
        options: See below, and :class:`vidnoise.options.ImageOptions`.

    Returns:
        A picture of the same kind, sample type, shape and device; alpha and the ``info`` of a PIL image are kept. For a
        path, a numpy array in ``order``: uint8, uint16 or float32 as in the file, ``(H, W)`` if it is gray, with alpha
        if the file has it, not rotated by EXIF. The caller owns it.

    Raises:
        UsageError: An option is out of range.
        SourceError: The file cannot be read, or is not a picture.
        FormatError: The picture is of an unsupported kind, sample type or shape, or a float picture whose white is
            not 1.
        UnknownModelError, WeightsError, DeviceError: There is no such model or device.
        BackendError: The backend is not installed, or does not support the device or precision.

    >>> import numpy as np
    >>> noisy = np.random.default_rng(0).normal(128, 20, (48, 64, 3)).clip(0, 255).astype(np.uint8)
    >>> clean = denoise_image(noisy)
    >>> clean.shape, clean.dtype, bool(clean.std() < 0.5 * noisy.std())
    ((48, 64, 3), dtype('uint8'), True)
    """
    chosen = ImageOptions.of("denoise_image", options)
    frame, to_picture = image_frame(image, order)
    loaded, chosen = _for_still(model, chosen, frame.height, frame.width)
    with memory_errors_explained():
        (clean,) = _denoise(
            [image], lambda _: (frame, to_picture), Denoiser(loaded, **chosen.keywords(ImageOptions))
        )  # fmt: skip
    return clean


@takes(FileOptions)
def denoise_file(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    model: ModelLike = "standard",
    **options: Unpack[FileKeywords],
) -> RunStats:
    """Denoise a video, a picture, or a sequence of pictures into another one, as ``vidnoise SRC -o DST`` does.

    Audio, subtitles, chapters, metadata, timestamps, rotation and colour tags are kept, and the EXIF, ICC profile, XMP
    and resolution of pictures. ``dst`` gets its name only when it is complete; on Ctrl-C, it is finished with the
    frames so far.

    Args:
        src: A path or URL, or ``-`` for standard input. ``frame%04d.png`` and ``shots/*.png`` are sequences of
            pictures, which are denoised like a video; the name of one picture is a still.
        dst: A path, whose extension selects the container or the kind of picture (``clean%04d.png`` for several), ``-``
            for standard output, or a URL to push to.
        progress: Called about ten times a second, and at the end.
        should_stop: Called before each frame; when it returns True, the file ends there.
        model: A name from :func:`list_models`, a ``.safetensors`` file, or the result of :func:`load_model`, to share
            it between files.
        options: See below, and :class:`vidnoise.options.FileOptions`. For live inputs, the backend ``auto`` never
            pauses to measure backends.

    Raises:
        SourceError, SinkError, FormatError, ModelError, DeviceError, UsageError: All are ``VidnoiseError``, with a
            message of one line.

    >>> import tempfile, os
    >>> folder = tempfile.mkdtemp()
    >>> stats = denoise_file("lavfi:testsrc2=size=64x48:rate=25:duration=0.2", os.path.join(folder, "clean.mkv"))
    >>> stats.frames_out
    5
    """
    chosen = FileOptions.of("denoise_file", options)
    if isinstance(chosen.backend, str):
        check_backend(chosen.backend)
    check_places(
        [os.fspath(output) for output in (dst, *chosen.tee)],
        reads=[os.fspath(read) for read in (src, chosen.mask, model) if isinstance(read, (str, os.PathLike))],
        writes=[] if chosen.grain_table is None else [os.fspath(chosen.grain_table)],
    )
    # Errors are found in order of cost: names and options first, then the input, then the model.
    table = None if chosen.grain_table is None else GrainTable(chosen.grain_table, overwrite=chosen.overwrite)
    region = None if chosen.noise_region is None else parse_region(chosen.noise_region)
    span = None if chosen.noise_from is None else parse_span(chosen.noise_from)
    if not chosen.is_shared:
        chosen = replace(chosen, device=chosen.devices[0])
    # Workers get frames in main memory, and the model from there.
    device = "cpu" if chosen.hwaccel == "none" or chosen.is_shared else resolve_device(chosen.device)
    rest = None
    if chosen.resume and not is_still(os.fspath(src)):
        model = as_model(model, "cpu" if chosen.is_shared else resolve_device(chosen.device))
        source, sink = open_resumable(src, dst, chosen, network=model.network, device=device)
        rest = source
    else:
        sink = make_sink(dst, chosen)
        are_files = all(sink_kind(os.fspath(output)) == "file" for output in (dst, *chosen.tee))
        if chosen.size_change == "split" and not are_files:
            raise UsageError(
                "size_change split goes on in another file: every output must be one; use scale", "size_change"
            )
        source = make_source(
            src, chosen, keeps_clock=keeps_clock(dst, chosen.format) and all(map(keeps_clock, chosen.tee)),
            live_size_change="split" if are_files else "scale", device=device,
        )  # fmt: skip
    with contextlib.closing(source), contextlib.ExitStack() as stack:
        stack.callback(lambda: sink.abort())  # has no effect once the sink is closed
        if chosen.threads:
            torch.set_num_threads(chosen.threads)
        if source.info.is_still:
            model, chosen = _for_still(model, chosen, source.info.height, source.info.width)
        if region is not None and source.info.field_order is not None:
            region = replace(region, lines=source.info.height)
        profile = None if span is None else measure_span(src, span, region, chosen, source.info, should_stop)
        alone = reason_to_work_alone(source.info) if chosen.is_shared else ""
        if alone:
            level = logging.INFO if source.info.is_still else logging.WARNING
            logger.log(level, "%s: %s, so one process denoises it", shown(os.fspath(src)), alone)
            chosen = replace(chosen, device=chosen.devices[0], jobs=None, cluster=None)
        begins = rest.first_time if rest else None
        make_denoiser = _denoiser_factory(source.info, chosen, table, begins, region, profile)
        begin = (
            _shared_sessions(make_denoiser, model, chosen, should_stop)
            if chosen.is_shared
            else _sessions(make_denoiser, model, chosen, source.info, profile)
        )
        transfer = HostTransfer() if chosen.is_shared else None
        parts: list[RunStats] = []
        stack.enter_context(memory_errors_explained())
        while True:
            stats = run(
                source, begin(source.info.rotation), sink, device_transfer=transfer,
                max_latency_ms=chosen.max_latency, on_progress=progress, should_stop=should_stop, close_source=False,
            )  # fmt: skip
            parts.append(stats)
            if rest or stats.interrupted or not getattr(source, "next_part", bool)():
                break
            dst, *tee = (numbered(os.fspath(output)) for output in (dst, *chosen.tee))
            chosen = replace(chosen, tee=tee)
            info = source.info
            logger.warning(
                "%s: goes on as %dx%d %s in %s", shown(os.fspath(src)), info.width, info.height, info.format.name, dst
            )
            sink = make_sink(dst, chosen)
        stats = combine(parts)
        return rest.amend(stats) if rest else stats


def _sessions(
    make_denoiser: Callable[..., Denoiser],
    model: ModelLike,
    options: FileOptions,
    info: StreamInfo,
    profile: NoiseProfile | None,
) -> Callable[[int], Session]:
    """Return a function that makes the session of the next output, for a rotation in degrees, in this process."""
    sessions = FieldSessions(make_denoiser, model)
    told: list[str] = []

    def begin(rotation: int) -> Session:
        first, session = sessions.begin(grain_seed=options.grain_seed, rotation=rotation)
        if not told:
            told.extend(choices(first, options, info, profile))
            for line in told:
                logger.info("%s", line)
        return session

    return begin


def _shared_sessions(
    make_denoiser: functools.partial[Denoiser],
    model: ModelLike,
    options: FileOptions,
    should_stop: Callable[[], bool] | None,
) -> Callable[[int], Session]:
    """Return a function like :func:`_sessions`, whose sessions have workers denoise pieces."""
    loaded = as_model(model, "cpu")

    def begin(rotation: int) -> Session:
        make = functools.partial(make_denoiser, rotation=rotation)
        return share(make, loaded, options, should_stop=should_stop)

    return begin


def _for_still(model: ModelLike, options: Options, height: int, width: int) -> tuple[Model, Options]:
    """Return the loaded model, and the options for one picture: in tiles if the memory does not suffice for the whole.

    Args:
        model: The model, or its name.
        options: As given.
        height: Height of the picture.
        width: Width of the picture.
    """
    device = resolve_device(options.device)
    loaded = as_model(model, device)
    if options.max_memory is None and options.backend in ("auto", "eager") and options.precision != "int8":
        options = replace(options, max_memory=room_for_still(loaded.network, height, width, device))
    return loaded, options


def _denoiser_factory(
    info: StreamInfo, options: FileOptions, table: GrainTable | None, first_time: Fraction | None,
    region: Region | None, profile: NoiseProfile | None,
) -> functools.partial[Denoiser]:  # fmt: skip
    """Return a factory that makes the denoisers of one input from a model.

    Args:
        info: Description of the input.
        options: Options of the run.
        table: The grain table, if there is one.
        first_time: Timestamp of the video's first frame in seconds, if decoding starts at a later one.
        region: Region to measure the noise in.
        profile: The noise as measured before.
    """
    if region is not None:
        region.place(info.width, info.height, info.rotation)
    if options.mask is not None and info.field_order is not None:
        raise UsageError(f"{info.field_order} video is denoised by field, where a mask has no place yet")
    if getattr(options.sigma, "ndim", 0) and info.field_order is not None:
        raise UsageError(
            f"{info.field_order} video is denoised by field, where a map of sigma has no place yet", "sigma"
        )
    device = resolve_device("cpu" if options.cluster else options.devices[0])
    backend, lookahead, mask = options.backend, options.lookahead, options.mask
    if info.is_still:
        lookahead = 0
    if lookahead == "auto":
        lookahead = choose_lookahead(
            (info.width, info.height), device, max_memory=options.max_memory, rate=info.rate,
            max_latency_ms=options.max_latency if info.is_live else None, streams=options.jobs or 1,
        )  # fmt: skip
    if info.is_live and isinstance(backend, str):
        backend = steady_backend(backend, device, options.precision)
    if options.is_shared and isinstance(mask, (str, os.PathLike)):
        mask = still_mask(mask)
    fixed = {
        **options.keywords(DenoiseOptions), "device": device, "backend": backend, "lookahead": lookahead,
        "grain_table": table, "mask": mask, "noise_region": region, "noise_profile": profile,
    }  # fmt: skip
    return functools.partial(
        Denoiser, rotation=info.rotation, begin_seconds=options.start or 0.0, first_time=first_time, **fixed
    )
