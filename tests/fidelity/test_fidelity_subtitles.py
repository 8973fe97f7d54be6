"""Text subtitles that a container does not hold are turned into those that it does."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import pytest

from support.live_peers import need
from support.roundtrip import through

_SRT = """1
00:00:00,040 --> 00:00:00,120
<i>Hello</i> & more

2
00:00:00,200 --> 00:00:00,320
Zeile eins
Zeile zwei: é
"""
_LINES = ["<i>Hello</i> & more", "Zeile eins\nZeile zwei: é"]


def read(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    """Begin, end and text as SRT, by libav's own decoder and encoder."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        decoder = stream.codec_context
        encoder = av.CodecContext.create("subrip", "w")
        for packet in container.demux(stream):
            subtitle = decoder.decode2(packet) if packet.size else None
            if subtitle is None or not len(subtitle):
                continue
            if not encoder.is_open:
                encoder.time_base, encoder.subtitle_header = Fraction(1, 1000), decoder.subtitle_header
            text = bytes(encoder.encode_subtitle(subtitle)).decode()
            time_base = Fraction(packet.time_base)
            found.append((packet.pts * time_base, (packet.pts + packet.duration) * time_base, text))
    return found


def clip(tmp_path: Path, extension: str, codec: str) -> Path:
    need("ffmpeg")
    (tmp_path / "in.srt").write_text(_SRT, encoding="utf-8")
    target = tmp_path / f"in{extension}"
    make = "ffmpeg -v error -f lavfi -i testsrc2=size=64x48:rate=25:duration=0.4 -i"
    rest = f"-map 0 -map 1 -c:v libx264 -c:s {codec} -metadata:s:s:0 language=fra"
    subprocess.run([*make.split(), str(tmp_path / "in.srt"), *rest.split(), str(target)], check=True)
    return target


@pytest.mark.parametrize(
    ("source", "codec", "target", "becomes"),
    [(".mkv", "srt", ".mp4", "mov_text"), (".mkv", "srt", ".mov", "mov_text"), (".mp4", "mov_text", ".mkv", "subrip"),
     (".mkv", "ass", ".mp4", "mov_text"), (".mkv", "srt", ".webm", "webvtt")],
)  # fmt: skip
def test_text_and_times_stay(
    tmp_path: Path, source: str, codec: str, target: str, becomes: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = through(clip(tmp_path, source, codec), tmp_path / f"out{target}")
    times = [(Fraction(40, 1000), Fraction(120, 1000)), (Fraction(200, 1000), Fraction(320, 1000))]
    assert read(path) == [(*t, text) for t, text in zip(times, _LINES, strict=True)]
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        assert (stream.codec_context.codec.canonical_name, stream.language) == (becomes, "fra")
    assert f"becomes {becomes}: its text and times are kept" in caplog.text
    assert ("styles and positions are lost" in caplog.text) == (codec == "ass")


def test_no_conversion_where_none_is_needed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = through(clip(tmp_path, ".mp4", "mov_text"), tmp_path / "out.mp4")
    assert [text for _, _, text in read(target)] == _LINES
    assert "becomes" not in caplog.text


def test_a_container_for_no_text_drops_it_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    through(clip(tmp_path, ".mkv", "srt"), tmp_path / "out.ts")
    assert "subtitle stream #1 (subrip, fra) is left out" in caplog.text
