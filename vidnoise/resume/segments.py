"""The finished segments of an incomplete output: encoded packets in a folder, written safely against crashes.

The folder of ``clean.mp4`` is ``clean.mp4.parts/``. It holds ``manifest.json``, and for each segment a
``00000.packets``, which counts once ``00000.json`` exists. Packets are stored as the encoder made them, with exact
timestamps: no container rounds them, and joining them is copying.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import reprlib
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from vidnoise.disk import Draft, layer, real_path, truncated_name
from vidnoise.errors import EncodeError, SinkOpenError, UsageError

FORMAT = 1

_SUFFIX = ".parts"
_PART = ".part"
_MANIFEST = "manifest.json"
_RECORD = struct.Struct("<qqqI?")
"""Header of each packet, before its data: pts, dts, duration, size, whether it is a key frame."""


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """An encoded packet."""

    pts: int
    dts: int
    duration: int
    is_keyframe: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment, which begins with a key frame and does not depend on others."""

    time_base: str
    """Time base of the packets."""
    n_packets: int
    n_bytes: int
    sha256: str
    frames: tuple[int, ...]
    """Timestamps of the frames from the source, in its time base."""
    delay: int
    """Number of frames by which decoding is ahead of presentation."""

    def is_valid(self) -> bool:
        """Whether all fields have valid types and values, since segments are read from files.

        Raises:
            TypeError, ValueError, ArithmeticError: They have not.
        """
        counts = (self.n_packets, self.n_bytes, self.delay)
        are_numbers = all(type(n) is int for n in (*counts, *self.frames))
        fits = are_numbers and 0 <= self.delay <= self.n_packets and self.n_packets * _RECORD.size <= self.n_bytes
        in_order = fits and all(a < b for a, b in itertools.pairwise(self.frames))
        has_texts = isinstance(self.sha256, str) and isinstance(self.time_base, str)
        is_ratio = has_texts and re.fullmatch(r"\d{1,18}(/\d{1,18})?", self.time_base) is not None
        return in_order and is_ratio and bool(self.frames) and Fraction(self.time_base) > 0


def _folder_of(output: str) -> str:
    """Return the folder of an output's segments; a name that is too long is cut, and made unique by its hash."""
    folder, name = os.path.split(real_path(output) if os.path.islink(output) else output)
    if truncated_name(folder, name, _SUFFIX) != name + _SUFFIX:
        token = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        return os.path.join(folder, truncated_name(folder, name, f".{token}{_SUFFIX}"))
    return os.path.join(folder, name + _SUFFIX)


class Parts:
    """The folder of one output's segments.

    Args:
        output: Path of the final output.
    """

    def __init__(self, output: str) -> None:
        self.path = _folder_of(output)
        self._manifest: dict[str, Any] = {}
        self.segments: list[Segment] = []

    def load(self, settings: dict[str, Any]) -> None:
        """Load the segments of an earlier run, if any. Nothing is created.

        Args:
            settings: Settings that must be the same, as JSON values.

        Raises:
            UsageError: The earlier run had other settings.
            SinkOpenError: The folder was not made by vidnoise, or cannot be read.
        """
        self._manifest = {"format": FORMAT, "settings": settings}
        self.segments = []
        if not os.path.exists(self.path):
            return
        try:
            with open(self._file(_MANIFEST), encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            if os.path.isdir(self.path) and all(name.endswith(_PART) for name in os.listdir(self.path)):
                return  # after a power cut, before anything was written
            raise SinkOpenError(
                f"{self.path}: is there, but not from an earlier run; move it away", self.path
            ) from None
        except (OSError, ValueError, RecursionError) as ex:
            raise SinkOpenError(f"{self.path}: cannot be read ({ex}); delete it to begin anew", self.path) from ex
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise SinkOpenError(f"{self.path}: is of another version of vidnoise; delete it to begin anew", self.path)
        earlier = found.get("settings")
        if not isinstance(earlier, dict):
            raise SinkOpenError(f"{self.path}: is damaged; delete it to begin anew", self.path)
        changed = [name for name in {**earlier, **settings} if earlier.get(name) != settings.get(name)]
        if changed:
            what = ", ".join(
                f"{name} {_shown(earlier.get(name))}, now {_shown(settings.get(name))}" for name in changed
            )
            raise UsageError(
                f"{self.path}: was begun with other settings ({what}); give the same ones, or delete it to begin anew",
                *changed,
            )
        self._manifest = found
        while (segment := self._read(len(self.segments))) is not None:
            self.segments.append(segment)

    def note(self, name: str, value: Any) -> Any:
        """Record a JSON value on the first call, and return the recorded value; creates the folder.

        Args:
            name: Name of the value.
            value: The value.

        Raises:
            OSError: The folder cannot be written.
        """
        if not os.path.isdir(self.path):
            layer().make_folder(self.path)
            layer().sync_folder(os.path.dirname(self.path) or ".")
        if name not in self._manifest:
            self._manifest[name] = value
            self._replace(_MANIFEST, json.dumps(self._manifest, indent=1))
        return self._manifest[name]

    def noted(self, name: str) -> Any:
        """Return the value recorded by :meth:`note`, or None."""
        return self._manifest.get(name)

    @property
    def frames(self) -> list[int]:
        """Timestamps of all finished frames, in the source's time base."""
        return [pts for segment in self.segments for pts in segment.frames]

    def begin(self) -> SegmentFile:
        """Begin a new segment, and return its file."""
        for name in os.listdir(self.path):  # leftovers of a crash or a damaged disk must not count later
            number = name.partition(".")[0]
            if number.isdigit() and int(number) >= len(self.segments):
                layer().remove(self._file(name))
        return SegmentFile(self._file(f"{len(self.segments):05}.packets"))

    def finish(self, file: SegmentFile, frames: list[int], time_base: Fraction) -> None:
        """Record a complete segment, so that it survives a crash.

        Args:
            file: The segment's packets.
            frames: Timestamps of its frames, in the source's time base.
            time_base: Time base of its packets.

        Raises:
            OSError: It cannot be written.
        """
        segment = file.seal(frames, time_base)
        self._replace(f"{len(self.segments):05}.json", json.dumps(asdict(segment)))
        self.segments.append(segment)

    def packets(self) -> Iterator[tuple[EncodedPacket, Fraction]]:
        """Yield the packets of all segments, with their time bases; decoding times increase throughout.

        Raises:
            EncodeError: A segment is damaged.
        """
        delay = max((segment.delay for segment in self.segments), default=0)
        clock = _DecodingClock(delay)
        for number, segment in enumerate(self.segments):
            packets = list(self._stored(number, segment))
            times = clock.times([packet.pts for packet in packets])
            for packet, dts in zip(packets, times, strict=True):
                yield (
                    EncodedPacket(packet.pts, dts, packet.duration, packet.is_keyframe, packet.data),
                    Fraction(segment.time_base),
                )

    def remove(self) -> None:
        """Remove the folder, once the output is complete and synced. The manifest goes last."""
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self.path), key=lambda name: name == _MANIFEST):
                layer().remove(self._file(name))
            layer().remove_folder(self.path)

    def remove_if_empty(self) -> None:
        """Remove the folder if there is no finished segment."""
        if not self.segments and os.path.exists(self._file(_MANIFEST)):
            self.remove()

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _replace(self, name: str, text: str) -> None:
        draft = Draft(self._file(name))
        try:
            draft.write(text.encode())
            draft.seal()
            draft.publish(overwrite=True)
        except BaseException:
            draft.discard()
            raise

    def _read(self, number: int) -> Segment | None:
        """Return segment ``number`` if it is finished, or None."""
        try:
            with open(self._file(f"{number:05}.json"), encoding="utf-8") as file:
                found = json.load(file)
            segment = Segment(**{**found, "frames": tuple(found["frames"])})
            if segment.is_valid() and os.path.getsize(self._file(f"{number:05}.packets")) == segment.n_bytes:
                return segment
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            pass
        return None

    def _stored(self, number: int, segment: Segment) -> Iterator[EncodedPacket]:
        path = self._file(f"{number:05}.packets")
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                left = segment.n_bytes
                for _ in range(segment.n_packets):
                    head = file.read(_RECORD.size)
                    pts, dts, duration, size, is_keyframe = _RECORD.unpack(head)
                    left -= _RECORD.size + size
                    if left < 0:
                        raise EncodeError(f"{path}: is damaged; delete {self.path} to begin anew", path)
                    data = file.read(size)
                    digest.update(head)
                    digest.update(data)
                    yield EncodedPacket(pts, dts, duration, is_keyframe, data)
        except (OSError, struct.error) as ex:
            raise EncodeError(f"{path}: cannot be read: {ex}; delete {self.path} to begin anew", path) from ex
        if digest.hexdigest() != segment.sha256:
            raise EncodeError(f"{path}: is damaged; delete {self.path} to begin anew", path)


class SegmentFile:
    """The file of a segment that is being written."""

    def __init__(self, path: str) -> None:
        self._draft = Draft(path)
        self._digest = hashlib.sha256()
        self._n_bytes = 0
        self._shown: list[int] = []
        self._decoded: list[int] = []

    def add(self, packet: EncodedPacket) -> None:
        head = _RECORD.pack(packet.pts, packet.dts, packet.duration, len(packet.data), packet.is_keyframe)
        record = head + packet.data
        self._draft.write(record)
        self._digest.update(record)
        self._n_bytes += len(record)
        self._shown.append(packet.pts)
        self._decoded.append(packet.dts)

    def seal(self, frames: list[int], time_base: Fraction) -> Segment:
        """Sync and close the file; returns the description of the segment."""
        self._draft.seal()
        self._draft.publish(overwrite=True)
        first = min(self._shown)
        delay = next((i for i, dts in enumerate(self._decoded) if dts >= first), len(self._decoded))
        return Segment(
            str(time_base), len(self._shown), self._n_bytes, self._digest.hexdigest(), tuple(frames), delay
        )  # fmt: skip

    def discard(self) -> None:
        """Close and remove the file."""
        self._draft.discard()


class _DecodingClock:
    """Assigns decoding times to the packets of consecutive segments, as a single encoder would have.

    Each segment's encoder starts on its own: its first decoding times may precede the end of the segment before.
    A picture is decoded when the one ``delay`` before it in presentation order is shown.

    Args:
        delay: Number of frames by which decoding is ahead of presentation.
    """

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._waiting: deque[int] | None = None

    def times(self, shown: list[int]) -> list[int]:
        """Return the decoding times of a segment's packets with the presentation times ``shown``."""
        ordered = sorted(shown)
        if self._waiting is None:
            last = min(self._delay, len(ordered) - 1)
            lead = ordered[last] - ordered[0] + self._delay - last
            self._waiting = deque(pts - lead for pts in ordered[:last])
            self._waiting.extend(ordered[0] - left for left in range(self._delay - last, 0, -1))
        self._waiting.extend(ordered)
        return [self._waiting.popleft() for _ in ordered]


def _shown(value: Any) -> str:
    return "none" if value is None else reprlib.repr(value) if isinstance(value, (dict, list)) else str(value)[:100]


__all__ = ["EncodedPacket", "Parts", "Segment", "SegmentFile"]
