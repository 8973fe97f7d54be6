"""The table of docs/FIDELITY.md: every cell is tried. Nothing may get lost in silence, whatever the table says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from support.clips import CLIPS, Clip, write
from support.interlaced import stored_order, write_interlaced
from support.paths import ROOT
from support.roundtrip import packets, starts, through, times
from vidnoise.errors import FormatError, SinkOpenError
from vidnoise.frame.passthrough import is_same_language
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]
Check = tuple[Callable[[Path, Clips], object], Callable[[str, Path], bool]]

_TABLE = ROOT / "docs" / "FIDELITY.md"
_SHORT = (0, 40, 80)


def _recipe(clips: Clips, name: str = "cfr_mkv", **more: object) -> Callable[[Path, Clips], Path]:
    return lambda folder, _: write(folder / "in.mkv", replace(CLIPS[name], ticks=_SHORT, **more)).path


def _info(path: object):
    return open_source(str(path)).info


def _hdr(folder: Path, _: Clips) -> Path:
    from support.hdr import hdr10

    return hdr10(folder / "in.mkv").path


def _cover(folder: Path, clips: Clips) -> Path:
    """A Matroska file whose attachment is a picture."""
    target = folder / "in.mkv"
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 32, 32, "yuvj420p", Fraction(1, 25)
    picture = av.VideoFrame(32, 32, "yuvj420p")
    picture.pts = 0
    data = b"".join(bytes(p) for p in [*codec.encode(picture), *codec.encode(None)])
    with av.open(str(clips("cfr"))) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0], opaque=True)
        writer.add_attachment("cover.jpg", "image/jpeg", data)
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = stream
                writer.mux(packet)
    return target


def _streams(path: Path, kind: str) -> list[av.stream.Stream]:
    with av.open(str(path)) as container:
        return [s for s in container.streams if s.type == kind]


def _counts(path: object) -> list[int]:
    return [len(track) for track in packets(str(path), "audio")]


def _lead(path: object) -> Fraction:
    first = starts(Path(str(path)))
    return first["audio"] - first["video"] if "audio" in first else Fraction(-99)


def _languages(path: object) -> list[str | None]:
    with av.open(str(path)) as container:
        return [s.language for s in container.streams.audio]


def _moved(source: object, target: object) -> Fraction:
    """Milliseconds by which the sound's lead over the picture has changed."""
    return 1000 * abs(_lead(target) - _lead(source))


def _same_languages(source: object, target: object) -> bool:
    before, after = _languages(source), _languages(target)
    return len(before) == len(after) and all(
        is_same_language(a or "", b or "") for a, b in zip(before, after, strict=True)
    )


def _has_chapters(path: Path) -> bool:
    with av.open(str(path)) as container:
        return len(container.chapters()) == 2


def _covers(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(bool(s.disposition & av.stream.Disposition.attached_pic) for s in container.streams.video)


def _same_times(source: str, target: Path) -> bool:
    before, after = times(source), times(target)
    return [t - before[0] for t in before] == [t - after[0] for t in after]


def _color(path: object) -> tuple[int, ...]:
    color = _info(path).color
    return (color.matrix, color.primaries, color.transfer)


_TEN_BIT_COLOR = {"name": "bt2020", "color": (9, 1, 9, 18)}

CHECKS: dict[str, Check] = {
    "variable frame times, to the tick": (lambda _, clips: clips("vfr_mkv"), _same_times),
    "audio in sync": (lambda _, clips: clips("late_start"), lambda s, t: _moved(s, t) <= 1),
    "8-bit full range": (_recipe, lambda s, t: _info(t).color.range == 2),
    "BT.2020, HLG": (_recipe, lambda s, t: _color(t) == (9, 9, 18)),
    "10 bits": (_recipe, lambda s, t: _info(t).format.bit_depth == 10),
    "HDR10 metadata": (_hdr, lambda s, t: _info(t).passthrough.hdr.get("content_light") == (1000, 400)),
    "interlaced": (lambda folder, _: write_interlaced(folder / "in.mkv", "bff"), lambda s, t: stored_order(t) == "bff"),
    "transparency": (_recipe, lambda s, t: "a" in {c for p in _info(t).format.layout for c in p}),
    "rotation": (lambda _, clips: clips("rotated"), lambda s, t: _info(t).rotation == _info(s).rotation),
    "sample aspect ratio": (
        lambda _, clips: clips("sar_4_3"),
        lambda s, t: abs((_info(t).sample_aspect_ratio or 0) - Fraction(4, 3)) < Fraction(1, 64),
    ),
    "audio tracks (AAC)": (lambda _, clips: clips("two_languages"), lambda s, t: _counts(t) == _counts(s)),
    "languages": (lambda _, clips: clips("two_languages"), lambda s, t: _same_languages(s, t)),
    "chapters": (lambda _, clips: clips("two_languages"), lambda s, t: _has_chapters(t)),
    "text subtitles": (_recipe, lambda s, t: len(_streams(t, "subtitle")) == 1),
    "attachments": (_recipe, lambda s, t: len(_streams(t, "attachment")) == 1),
    "cover picture": (_cover, lambda s, t: _covers(t) == 1),
    "title": (_recipe, lambda s, t: _info(t).passthrough.metadata.get("title") == "Name"),
}  # fmt: skip
"""Row of the table to the making of its input, and to what tells whether the output has kept it."""

_MADE = {
    "8-bit full range": {"color": (1, 2, 1, 1)},
    "BT.2020, HLG": _TEN_BIT_COLOR,
    "10 bits": {"pix_fmt": "yuv420p10le"},
    "transparency": {"codec": "ffv1", "options": {}, "pix_fmt": "yuva420p", "gop": 1},
    "text subtitles": {"subtitles": True},
    "attachments": {"attachment": True},
    "title": {"metadata": {"title": "Name"}},
}


def _cells() -> list[tuple[str, str, str]]:
    """Row, container and word of each cell of the table."""
    table = _TABLE.read_text(encoding="utf-8").split("\n\n")[2]
    lines = table.splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(row[0], name, word) for row in rows for name, word in zip(head[1:], row[1:], strict=True)]


def outcome(row: str, extension: str, folder: Path, clips: Clips, caplog: pytest.LogCaptureFixture) -> str:
    """``kept``, ``warned`` (changed or left out), ``logged`` (with -v), ``error``, or ``SILENTLY LOST``."""
    make, is_kept = CHECKS[row]
    source = _recipe(clips, **_MADE[row])(folder, clips) if row in _MADE else make(folder, clips)
    caplog.clear()
    try:
        target = through(str(source), folder / f"out.{extension}")
    except (SinkOpenError, FormatError):
        return "error"
    if is_kept(str(source), target):
        return "kept"
    if any(record.levelno >= logging.WARNING for record in caplog.records):
        return "warned"
    return "logged" if any("left out" in record.getMessage() for record in caplog.records) else "SILENTLY LOST"


@pytest.mark.parametrize(("row", "container", "word"), _cells())
def test_cell(
    clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture, row: str, container: str, word: str
) -> None:
    caplog.set_level(logging.INFO)
    assert outcome(row, container, tmp_path, clips, caplog) == word


def test_the_table_has_every_row() -> None:
    assert {row for row, _, _ in _cells()} == CHECKS.keys()
