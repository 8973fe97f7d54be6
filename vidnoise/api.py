"""The functions that most users of the library need: :func:`denoise` for pictures, :func:`denoise_file` for files."""

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
from vidnoise.backends.tiled import room_for_still
from vidnoise.backends.window import choose_lookahead
from vidnoise.checked import takes
from vidnoise.errors import UsageError
from vidnoise.frame import Frame, StreamInfo
from vidnoise.options import DenoiseOptions, DeviceOptions, FileOptions, ImageOptions
from vidnoise.pictures import PictureAdapter, Restore, image_frame
from vidnoise.pipeline.device_transfer import HostTransfer, make_transfer
from vidnoise.pipeline.run import run
from vidnoise.pipeline.stats import Progress, RunStats, joined
from vidnoise.resume.source import open_resumable
from vidnoise.session.denoiser import Denoiser, resolve_device
from vidnoise.session.fields import FieldDenoiser
from vidnoise.session.grain_table import GrainTable
from vidnoise.sinks import check_places, keeps_clock, make_sink, numbered, sink_kind
from vidnoise.sources import make_source
from vidnoise.stills.names import is_one_picture
from vidnoise.text import shown
from vidnoise.weights import LoadedModel, load_model

if TYPE_CHECKING:
    import av
    import numpy as np
    from typing_extensions import Unpack

    from vidnoise.options import DenoiseKeywords, FileKeywords, ImageKeywords

    Picture = TypeVar("Picture", np.ndarray, torch.Tensor, av.VideoFrame, Frame)
    Image = TypeVar("Image")
else:
    Picture, Image = TypeVar("Picture"), TypeVar("Image")

logger = logging.getLogger(__name__)


@takes(DenoiseOptions)
def denoise(
    frames: Iterable[Picture],
    *,
    model: str | os.PathLike[str] = "standard",
    **options: Unpack[DenoiseKeywords],
) -> Iterator[Picture]:
    """Denoise the consecutive pictures of one video, lazily and in constant memory.

    Args:
        frames: numpy arrays ``(H, W, 3)`` RGB or ``(H, W)`` gray, torch tensors ``(3, H, W)`` RGB, each in uint8,
            uint16 (all 16 bits used) or float32 (nominally [0, 1], never clipped); ``av.VideoFrame``; or
            :class:`Frame`. A change of size starts afresh.
        model: a name from :func:`list_models`, or a ``.safetensors`` file.
        options: see below, and :class:`vidnoise.options.DenoiseOptions`. ``lookahead`` is the number of pictures that
            may be taken from ``frames`` before one comes out; zones need pictures that have times
            (``av.VideoFrame`` and :class:`Frame` do).

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
    chosen = DenoiseOptions.of("denoise", options)
    return _denoise(frames, Denoiser(model, **chosen.keywords(DenoiseOptions)))


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


@takes(ImageOptions)
def denoise_image(
    image: Image,
    *,
    model: str | os.PathLike[str] | LoadedModel = "standard",
    **options: Unpack[ImageKeywords],
) -> Image:
    """Denoise one picture; to denoise files into files, use :func:`denoise_file`.

    Where the free memory would not do for the whole, the picture is denoised in tiles.

    Args:
        image: a numpy array ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA, ``(H, W)`` gray or ``(H, W, 2)`` gray with alpha, a
            torch tensor ``(3, H, W)`` RGB, each in uint8, uint16 (all 16 bits used) or float32 (nominally [0, 1], never
            clipped); a ``PIL.Image.Image`` of mode L, LA, RGB, RGBA or I;16; an ``av.VideoFrame``; a :class:`Frame`; or
            the path of a picture file.
        model: a name from :func:`list_models`, a ``.safetensors`` file, or what :func:`load_model` returned.
        options: see below, and :class:`vidnoise.options.ImageOptions`.

    Returns:
        A picture of the same kind, sample type, shape and device; alpha and what a PIL image tells in ``info`` are
        kept. For a path a numpy array, RGB: uint8, uint16 or float32 as the file has it, gray as ``(H, W)``, with alpha
        where there is one, not turned by EXIF.

    Raises:
        UsageError: an option out of range.
        SourceError: the file cannot be read, or is no picture.
        FormatError: a picture of another kind, sample type or shape.
        UnknownModelError, WeightsError, DeviceError, BackendError: see :func:`denoise`.

    >>> import numpy as np
    >>> noisy = np.random.default_rng(0).normal(128, 20, (48, 64, 3)).clip(0, 255).astype(np.uint8)
    >>> clean = denoise_image(noisy)
    >>> clean.shape, clean.dtype, bool(clean.std() < 0.5 * noisy.std())
    ((48, 64, 3), dtype('uint8'), True)
    """
    chosen = ImageOptions.of("denoise_image", options)
    given, restore = image_frame(image)
    loaded, chosen = _for_still(model, chosen, given.height, given.width)
    with contextlib.closing(Denoiser(loaded, **chosen.keywords(ImageOptions))) as denoiser, memory_errors_explained():
        is_there = all(plane.device == denoiser.device for plane in given.planes)
        transfer = HostTransfer() if is_there else make_transfer(denoiser.device)
        uploaded = transfer.upload(iter([given]))
        (clean,) = (restore(frame) for frame in transfer.download(denoiser(uploaded)))
    return clean


@takes(FileOptions)
def denoise_file(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    model: str | os.PathLike[str] | LoadedModel = "standard",
    **options: Unpack[FileKeywords],
) -> RunStats:
    """Denoise a video, a picture or a sequence of pictures into another one; ``vidnoise SRC -o DST`` runs this.

    Sound, subtitles, chapters, metadata, time stamps, rotation and colour tags are kept; of pictures EXIF, ICC profile,
    XMP and resolution. ``dst`` appears under its name only when it is complete; on Ctrl-C it is finished with what was
    done so far.

    Args:
        src: a path or URL, or ``-`` for standard input. ``frame%04d.png`` and ``shots/*.png`` are sequences, which are
            denoised as videos are; a picture's name alone is a still.
        dst: a path, whose extension chooses the container or the kind of picture (``clean%04d.png`` for many), ``-``
            for standard output, or a URL to push to.
        progress: called about ten times a second, and at the end.
        should_stop: asked before each frame; when it says yes, the file ends there.
        model: a name from :func:`list_models`, a ``.safetensors`` file, or what :func:`load_model` returned, so that
            many files share it.
        options: see below, and :class:`vidnoise.options.FileOptions`. Live inputs never pause to measure backends:
            ``auto`` is steady there.

    Raises:
        SourceError, SinkError, FormatError, ModelError, DeviceError, UsageError: all are ``VidnoiseError``; each
            text is one line.

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
    # What can be wrong is found in the order of what it costs: names and options, then the input, then the model.
    table = None if chosen.grain_table is None else GrainTable(chosen.grain_table, overwrite=chosen.overwrite)
    device = "cpu" if chosen.hwaccel == "none" else resolve_device(chosen.device)
    rest = None
    if chosen.resume and not is_one_picture(os.fspath(src)):
        if isinstance(model, (str, os.PathLike)):
            model = load_model(model, resolve_device(chosen.device))
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
        stack.callback(lambda: sink.abort())  # which changes nothing once it is closed
        if chosen.threads:
            torch.set_num_threads(chosen.threads)
        if source.info.is_still:
            model, chosen = _for_still(model, chosen, source.info.height, source.info.width)
        session = _sessions(source.info, chosen, table, rest.first_time if rest else None)
        first = session(model)
        # Fields of the second kind take their grain from another seed.
        second = functools.partial(
            session, grain_seed=chosen.grain_seed + 1, backend=first.backend, max_memory=None,
        )  # fmt: skip
        parts: list[RunStats] = []
        stack.enter_context(memory_errors_explained())
        while True:
            stats = run(
                source, FieldDenoiser(first, second), sink, max_latency_ms=chosen.max_latency, on_progress=progress,
                should_stop=should_stop, close_source=False,
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
            first = session(first.model, backend=first.backend, max_memory=None, rotation=info.rotation)
        stats = joined(parts)
        return rest.amend(stats) if rest else stats


Options = TypeVar("Options", bound=DeviceOptions)


def _for_still(
    model: str | os.PathLike[str] | LoadedModel, options: Options, height: int, width: int
) -> tuple[LoadedModel, Options]:
    """The model, loaded, and the options for one picture: in tiles where the memory would not do for the whole."""
    device = resolve_device(options.device)
    loaded = model if isinstance(model, LoadedModel) else load_model(model, device)
    if options.max_memory is None and options.backend in ("auto", "eager"):
        options = replace(options, max_memory=room_for_still(loaded.network, height, width, device))
    return loaded, options


def _sessions(
    info: StreamInfo, options: FileOptions, table: GrainTable | None, first_time: Fraction | None
) -> Callable[..., Denoiser]:
    """Return a factory that makes the denoisers of one input from a model.

    Args:
        info: of the input.
        options: of the run.
        table: open already, if there is one.
        first_time: time stamp of the first frame in seconds, where the first that comes is a later one.
    """
    if options.mask is not None and info.field_order is not None:
        raise UsageError(f"{info.field_order} video is denoised by field, where a mask has no place yet")
    device, backend, lookahead = resolve_device(options.device), options.backend, options.lookahead
    if info.is_still:
        lookahead = 0
    if lookahead == "auto":
        lookahead = choose_lookahead(
            (info.width, info.height), device, max_memory=options.max_memory, rate=info.rate,
            max_latency_ms=options.max_latency if info.is_live else None,
        )  # fmt: skip
    if info.is_live and isinstance(backend, str):
        backend = steady_backend(backend, device)
    settled = {**options.keywords(DenoiseOptions), "backend": backend, "lookahead": lookahead, "grain_table": table}
    return functools.partial(
        Denoiser, rotation=info.rotation, begin_seconds=options.start or 0.0, first_time=first_time, **settled
    )
