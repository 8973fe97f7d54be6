"""Resuming an interrupted file: which frames are left, and whether anything else has changed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from vidnoise._version import __version__
from vidnoise.checked import about, named_fields
from vidnoise.errors import SourceError, SourceOpenError, UsageError
from vidnoise.frame import Frame, Packet
from vidnoise.options import FileOptions
from vidnoise.pipeline.stats import RunStats
from vidnoise.resume.segments import Parts
from vidnoise.sinks import keeps_clock, sink_kind
from vidnoise.sources import make_source, source_kind
from vidnoise.sources.protocol import ClosedAfterUse

if TYPE_CHECKING:
    import torch

    from vidnoise.model import DenoiseNetwork
    from vidnoise.resume.sink import ResumableSink
    from vidnoise.sources.container import ContainerSource

WARM_UP_FRAMES = 64
"""Number of frames before a seam that are denoised again, so that the network has its state back. For the effect at the
seam, compared with a run without interruption, see docs/BATCH.md.
"""

_LEAD_SECONDS = 2
"""Seconds to decode before the warm-up: pictures right after a seek may be incomplete."""

_SAMPLE_BYTES = 1 << 20


def open_resumable(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    options: FileOptions,
    *,
    network: DenoiseNetwork,
    device: str | torch.device,
) -> tuple[RestOfSource, ResumableSink]:
    """Open the unfinished part of ``src``, and the sink that has the rest.

    Args:
        src: A file.
        dst: A file; segments are stored next to it in ``<dst>.parts``.
        options: Options of the run. On resuming, those without :attr:`~vidnoise.checked.Option.may_change` must be the
            same as before.
        network: The model.
        device: Device on which pictures decoded by ``hwaccel`` stay.

    Raises:
        UsageError: The earlier run had other settings, or this input or output cannot be resumed.
        SourceError, SinkError, FormatError: As for :func:`open_source` and :func:`open_sink`.
    """
    from vidnoise.resume.sink import ResumableSink

    source, output = _path(src), _path(dst)
    if source_kind(source) != "file" or (os.path.exists(source) and not os.path.isfile(source)):
        raise UsageError(f"{source}: only a file can be resumed: it must be possible to go back in it")
    if sink_kind(output) != "file":
        raise UsageError(f"{output}: only a file can be resumed")
    parts = Parts(output)

    def open_at(start: float | None, duration: float | None) -> ContainerSource:
        part = replace(options, start=start, duration=duration)
        return cast(
            "ContainerSource", make_source(source, part, keeps_clock=keeps_clock(dst, options.format), device=device)
        )

    start, duration = options.start, options.duration

    @contextlib.contextmanager
    def others() -> Iterator[Iterable[Packet]]:
        with contextlib.closing(open_at(start, duration)) as whole:
            yield whole.copied_packets()

    sink = ResumableSink(
        output, options, parts=parts, segment_seconds=options.segment_seconds, warm_up_frames=WARM_UP_FRAMES,
        is_whole=lambda n_taken: rest.is_whole(n_taken), others=others,
    )  # fmt: skip
    sink.reserve()
    whole = None
    try:
        whole = open_at(start, duration)
        if whole.info.is_live:
            raise UsageError(f"{source}: is live, so it cannot be resumed")
        parts.load(
            {
                "version": __version__,
                "input": _fingerprint(source),
                "model": _weights_hash(network),
                **fixed_options(options),
            }
        )
        rest = RestOfSource(whole, open_at, parts, start=start or 0.0, duration=duration)
    except BaseException:
        sink.abort()
        if whole is not None:
            whole.close()
        raise
    return rest, sink


class RestOfSource(ClosedAfterUse):
    """The unfinished frames of a source, preceded by :data:`WARM_UP_FRAMES` finished ones, with unchanged timestamps.

    Args:
        whole: The whole source, not iterated yet; it is closed with this one.
        open_at: Reopens it with a start and a duration.
        parts: The finished segments.
        start, duration: Time range of the whole, as the user gave it.
    """

    trailing_packets: tuple[Packet, ...] = ()

    def __init__(
        self,
        whole: ContainerSource,
        open_at: Callable[[float | None, float | None], ContainerSource],
        parts: Parts,
        *,
        start: float,
        duration: float | None,
    ) -> None:
        done = parts.frames
        self.n_kept = len(done)
        """Number of finished frames."""
        self._warm_up = done[-WARM_UP_FRAMES:]
        self._done = done
        self._source = whole
        self._shift = 0
        """Ticks to add to the timestamps of ``_source`` to get those of the whole."""
        self._has_sought = False
        self._end: Fraction | None = None
        self._n_given = 0
        self._stopped = self._ended = False
        self.info = whole.info
        self.first_time = done[0] * whole.info.time_base if done else None
        """Timestamp of the first frame of the whole, in seconds; None if nothing is finished."""
        if not done:
            return
        left = None
        if whole.info.n_frames is not None:
            left = max(whole.info.n_frames - self.n_kept + len(self._warm_up), len(self._warm_up))
        elapsed = (self._warm_up[0] - done[0]) * whole.info.time_base
        seconds = whole.info.duration_seconds
        self.info = replace(
            whole.info, n_frames=left, duration_seconds=None if seconds is None else max(0.0, seconds - float(elapsed))
        )
        begin = float(elapsed) + start - _LEAD_SECONDS
        if begin > start and self._seeks_accurately(whole, open_at, begin):
            whole.close()
            self._source = open_at(begin, None)
            self._shift = self._source.shift - whole.shift
            self._has_sought = True
            if duration is not None and self.first_time is not None:
                self._end = self.first_time + Fraction(duration).limit_denominator(1_000_000)

    def _seeks_accurately(
        self, whole: ContainerSource, open_at: Callable[[float | None, float | None], ContainerSource], begin: float
    ) -> bool:
        """Whether seeking to ``begin`` yields the same frames as reading from the start did."""
        try:
            with contextlib.closing(open_at(begin, None)) as source:
                times = ((frame.pts or 0) + source.shift - whole.shift for frame in source)
                times = itertools.dropwhile(lambda pts: pts < self._warm_up[0], times)
                return list(itertools.islice(times, len(self._warm_up))) == self._warm_up
        except (SourceError, UsageError):
            return False

    @property
    def n_corrupt(self) -> int:
        return self._source.n_corrupt

    @property
    def n_warm_up(self) -> int:
        """Number of frames that were finished before."""
        return len(self._warm_up)

    def is_whole(self, n_taken: int) -> bool:
        """Whether ``n_taken`` frames are all frames up to the end of the source."""
        return self._ended and n_taken == self._n_given

    def __iter__(self) -> Iterator[Frame]:
        first_index = self.n_kept - self.n_warm_up
        for number, frame in enumerate(self._remaining()):
            if number < self.n_warm_up and frame.pts != self._warm_up[number]:
                raise SourceError(
                    f"{self._source.uri}: reads otherwise than when its first part was finished; "
                    "delete the folder of its parts to begin anew", self._source.uri,
                )  # fmt: skip
            self._n_given += 1
            yield replace(frame, index=first_index + number, packets=())
        self._ended = not self._stopped and self._n_given >= self.n_warm_up

    def _remaining(self) -> Iterator[Frame]:
        to_skip = 0 if self._has_sought else self.n_kept - self.n_warm_up
        for number, frame in enumerate(self._source):
            pts = (frame.pts or 0) + self._shift
            if number < to_skip or (self._has_sought and pts < self._warm_up[0]):
                continue
            if self._end is not None and pts * frame.time_base >= self._end:
                self._source.close()
                return
            yield replace(frame, pts=pts)

    def amend(self, stats: RunStats) -> RunStats:
        """Return the ``stats`` of a run over these frames without those that were finished before."""
        again = min(self.n_warm_up, stats.frames_out)
        out = stats.frames_out - again
        return replace(
            stats, frames_in=stats.frames_in - min(self.n_warm_up, stats.frames_in), frames_out=out,
            frames_kept=self.n_kept, fps=out / max(stats.seconds, 1e-9), is_whole=self.is_whole(stats.frames_out),
        )  # fmt: skip

    def stop(self) -> None:
        """End the iteration as soon as possible. Thread-safe."""
        self._stopped = True
        self._source.stop()

    def close(self) -> None:
        self._source.close()


def _weights_hash(network: DenoiseNetwork) -> str:
    digest = hashlib.sha256()
    for name, values in network.state_dict().items():
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _file_hash(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_SAMPLE_BYTES):
                digest.update(block)
    except OSError as ex:
        raise SourceOpenError(f"{path}: cannot be read: {ex.strerror or ex}", os.fspath(path)) from ex
    return digest.hexdigest()[:16]


def fixed_options(options: FileOptions) -> dict[str, Any]:
    """Return the options that must be the same when a run is resumed, as JSON values."""
    names = [name for name, each in named_fields(FileOptions).items() if not about(each).may_change]
    return {name: _recorded(name, getattr(options, name)) for name in names}


def _recorded(name: str, value: Any) -> Any:
    """Return the recorded value of an option: a hash for files, and for options of FFmpeg's demuxers, such as keys."""
    if not value:
        return value
    if name == "mask":
        return _file_hash(value)
    if name == "input_options":
        return hashlib.sha256(repr(sorted(value.items())).encode()).hexdigest()[:16]
    return value if isinstance(value, (int, float)) else str(value)


def _fingerprint(path: str) -> dict[str, Any]:
    """Return the size and a hash of the beginning and end, which identifies a file quickly, however large."""
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(file.read(_SAMPLE_BYTES))
    return {"bytes": size, "hash": digest.hexdigest()[:16]}


def _path(uri: str | os.PathLike[str]) -> str:
    return os.fspath(uri).removeprefix("file:")
