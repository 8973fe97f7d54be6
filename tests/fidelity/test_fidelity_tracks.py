"""The choice of tracks."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest

from support.clips import Clip, picture
from support.live_peers import with_tiny_model
from vidnoise.cli import main
from vidnoise.errors import UsageError
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]


def kept(path: object, tracks: str | None) -> list[str]:
    """Kind and language of the copied streams, ``audio deu``; the packets belong to them and to no others."""
    source = open_source(str(path), tracks=tracks)
    streams = source.info.passthrough.streams
    packets = [p for frame in source for p in frame.packets] + list(source.trailing_packets)
    with_packets = {s.index for s in streams if s.kind != "attachment"}
    assert {p.stream_index for p in packets} == with_packets
    return [f"{s.kind} {s.metadata.get('language', '-')}" for s in streams]


_ALL = ["audio deu", "audio eng", "subtitle fra", "attachment -"]


@pytest.mark.parametrize(
    ("tracks", "left"),
    [
        (None, _ALL),
        ("a", _ALL),
        ("a:1", _ALL[1:]),
        ("a:eng", _ALL[1:]),
        ("a:ger", [_ALL[0], *_ALL[2:]]),  # the other code of deu
        ("a:0, a:1", _ALL),
        ("-a:0", _ALL[1:]),
        ("-a", _ALL[2:]),
        ("-s,-t", _ALL[:2]),
        ("a:deu,s:fra,-t", ["audio deu", "subtitle fra"]),
        ("-d", _ALL),
        ("v:0,-a", _ALL[2:]),
    ],
)
def test_choice(clips: Clips, tracks: str | None, left: list[str]) -> None:
    assert kept(clips("everything"), tracks) == left


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ("a:2", r"no track fits 'a:2'; there are audio 0 \(deu\), 1 \(eng\)"),
        ("s:jpn", r"no track fits 's:jpn'; there is subtitle 0 \(fra\)"),
        ("-a:5", r"no track fits '-a:5'"),
        ("d:0", r"there is no data track"),
        ("v:1", r"there is video 0 \(no language\)"),
        ("x", "'x' is none of"),
        ("a:1;s", "is none of"),
        ("", "is none of"),
        ("-v", "without video there is nothing to denoise"),
    ],
)
def test_choices_that_make_no_sense(clips: Clips, tracks: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(clips("everything"), tracks=tracks)


def test_another_video(clips: Clips, tmp_path: Path) -> None:
    source = tmp_path / "two.mkv"
    with av.open(str(source), "w") as container:
        streams = []
        for width in (64, 32):
            stream = container.add_stream("ffv1", rate=25, time_base=Fraction(1, 25))
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
            streams.append(stream)
        for i in range(3):
            for stream in streams:
                frame = picture(clips("cfr").recipe, i).reformat(width=stream.width)
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    assert (open_source(source).info.width, kept(source, None)) == (64, ["video -"])
    assert (open_source(source, tracks="v:1").info.width, kept(source, "v:1")) == (32, [])
    assert (open_source(source, tracks="-v:0").info.width, kept(source, "-v:0")) == (32, [])
    with pytest.raises(UsageError, match="no video"):
        open_source(source, tracks="-v:0,-v:1")


def test_on_the_command_line(clips: Clips, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.mkv"
    options = (*with_tiny_model(tmp_path), "--strength", "0", "--duration", "0.1")
    assert main([str(clips("everything")), "-o", str(target), "--tracks", "-a:0,-s", *options]) == 0
    with av.open(str(target)) as container:
        assert [s.type for s in container.streams] == ["video", "audio", "attachment"]
        assert container.streams.audio[0].language == "eng"
    assert main([str(clips("everything")), "-o", str(target), "-y", "--tracks", "a:9", *options]) == 2
    assert "no track fits 'a:9'" in capsys.readouterr().err
