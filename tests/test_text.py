"""Addresses and names in what is shown: no secret leaves, nothing commands a terminal."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from support.clips import Clip
from vidnoise.cli import main
from vidnoise.errors import SinkOpenError, SourceOpenError, UsageError
from vidnoise.frame import PIXEL_FORMATS, StreamInfo
from vidnoise.sinks import open_sink
from vidnoise.sources import open_source
from vidnoise.text import printable, redacted, safe, shown

INFO = StreamInfo(64, 48, PIXEL_FORMATS["yuv420p"], Fraction(1, 25), Fraction(25))

ADDRESSES = {
    "rtsp://admin:Secret123@127.0.0.1:9/cam": "rtsp://admin:***@127.0.0.1:9/cam",
    "rtsp://admin:Sec@ret:1@host/cam": "rtsp://admin:***@host/cam",
    "rtsp://admin:Sec/ret@host/cam": "rtsp://admin:***@host/cam",
    "rtsp://admin:My Secret@host/cam": "rtsp://admin:***@host/cam",
    "https://Secret@host/a.ts": "https://***@host/a.ts",
    "rtmp://host:1935/live/SecretKey": "rtmp://host:1935/live/***",
    "rtmps://host/live/one/Secret?token=Secret2&timeout=5": "rtmps://host/live/***?token=***&timeout=5",
    "rtmp://host/live": "rtmp://host/live",
    "rtmp://host/live playpath=Secret pubPasswd=Secret": "rtmp://host/live ***",
    "srt://host:9?passphrase=Secret&mode=caller&streamid=publish:Secret": "srt://host:9?passphrase=***&mode=caller&streamid=***",
    "https://host/a.m3u8?Secret": "https://host/a.m3u8?***",
    "https://host/a.m3u8?a=Secret;b=Secret#access_token=Secret": "https://host/a.m3u8?a=***&b=***",
    "https://host/a.m3u8#access_token=Secret": "https://host/a.m3u8#access_token=***",
    "HTTP://u:Secret@host/": "HTTP://u:***@host/",
    "concat:http://u:Secret@h/a|http://u:Secret@h/b": "concat:http://u:***@h/b",
    "ftp://u:Secret@h/a": "ftp://u:***@h/a",
    "rtsp:/u:Secret@h/a": "rtsp:/u:***@h/a", "https:u:Secret@h": "https:u:***@h",
    # What is no secret stays.
    "udp://239.0.0.1:5000?pkt_size=1316": "udp://239.0.0.1:5000?pkt_size=1316",
    "https://host/@name/a.mp4": "https://host/@name/a.mp4",
    "http://host:80/a.ts": "http://host:80/a.ts",
    "/home/me/a?b=c&d@e:f.mp4": "/home/me/a?b=c&d@e:f.mp4",
    "pipe:0": "pipe:0", "-": "-", "lavfi:testsrc2=size=64x48": "lavfi:testsrc2=size=64x48",
}  # fmt: skip


@pytest.mark.parametrize(("address", "expected"), ADDRESSES.items())
def test_secrets_of_addresses_are_hidden(address: str, expected: str) -> None:
    assert shown(address) == expected
    assert shown(expected) == expected
    assert "Secret" not in redacted(f"vidnoise: {address}: cannot be opened: I/O error, use '{address}' (or not)")


def test_a_sentence_keeps_its_punctuation() -> None:
    assert redacted("rtmp://h/live/Key: lost; see (https://h/a?k=v), then") == (
        "rtmp://h/live/***: lost; see (https://h/a?k=***), then"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ä 漢字 😀\u00a0x", "plain ä 漢字 😀\u00a0x"),
        ("a\x1b[31mred", r"a\x1b[31mred"), ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b2J", r"\x9b2J"), ("\u202egpj.exe", r"\u202egpj.exe"), ("\u2028", r"\u2028"), ("\udcff.mp4", r"\xff.mp4"),
        ("\x07\x00", r"\x07\x00"),
    ],
)  # fmt: skip
def test_control_characters_are_escaped(text: str, expected: str) -> None:
    assert printable(text) == safe(text) == expected


# --- wherever an address or a name becomes text -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("rtsp://admin:Secret@127.0.0.1:9/cam", "out.mkv"), ("http://127.0.0.1:9/a.ts?token=Secret", "out.mkv"),
        ("nosuch://u:Secret@h/a", "out.mkv"), ("{clip}", "rtmp://127.0.0.1:9/live/Secret"),
        ("{clip}", "srt://127.0.0.1:9?passphrase=Secret"), ("{clip}", "nosuch://u:Secret@h/a"),
        ("{clip}", "rtsp://u:Secret@127.0.0.1:9/a"), ("rtsp://u:Secret@h/a", "folder/"), ("rtsp://u:Secret@h/a", None),
        ("rtspp://u:Secret@h/a", "{{stem}}.mkv"),
    ],
)  # fmt: skip
def test_no_secret_is_printed(
    clips: Callable[[str], Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, output: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    arguments = [source.format(clip=clips("cfr")), *(["-o", output] if output else []), "--model", "fast"]
    statistics = [] if output == "folder/" else ["--json", "all.json", "--stats", "lines.json"]
    code = main([*arguments, "--reconnect", "0", "--connect-timeout", "2", "-vv", *statistics])
    captured = capsys.readouterr()
    assert code in (2, 3, 4)
    found = captured.err + captured.out + "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert "Secret" not in found
    assert "vidnoise: " in captured.err


def test_no_secret_is_in_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vidnoise.cli.batch import Job
    from vidnoise.cli.files import JsonReport

    report = JsonReport(str(tmp_path / "a.json"), is_batch=False)
    report.add(Job("rtsp://u:Secret@h/a", "rtmp://h/live/Secret"), fps=1)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "input": "rtsp://u:***@h/a", "output": "rtmp://h/live/***", "fps": 1,
    }  # fmt: skip


@pytest.mark.parametrize("error", [UsageError, SourceOpenError, SinkOpenError])
def test_errors_hold_neither_secrets_nor_control_characters(error: type[Exception]) -> None:
    assert str(error("rtsp://u:Secret@h/a\x1b[2J: no")) == "rtsp://u:***@h/a\\x1b[2J: no"


def test_names_do_not_command_the_terminal(
    clips: Callable[[str], Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a\x1b]0;title\x07\u202e:dog:.mkv"
    Path(name).write_bytes(clips("everything").path.read_bytes())
    assert main([name, "-o", f"out{name}", "--strength", "0", "--model", "fast", "-v", "--threads", "1"]) == 0
    assert main(["info", name, "--no-noise"]) == 0
    assert main([f"missing{name}", "-o", "b.mkv"]) == 3
    captured = capsys.readouterr()
    shown_text = captured.err + captured.out
    assert r"outa\x1b]0;title\x07\u202e:dog:.mkv" in shown_text
    assert not {c for c in shown_text if not c.isprintable()} - {"\n"}


def test_languages_and_tags_do_not_command_the_terminal(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    from vidnoise.frame.passthrough import CopiedStream
    from vidnoise.sinks.tags import container_tags, stream_tags

    assert str(CopiedStream(1, "audio", "aac", None, {"language": "\x1b[2J"})) == r"audio stream #1 (aac, \x1b[2J)"
    with caplog.at_level(logging.WARNING):
        container_tags({"\x1b[2J": "x"}, "mpegts", "out.ts")
        stream_tags({"language": "\x1b[2J"}, "mov", "the sound")
    assert len(caplog.records) == 2
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_who_opens_still_gets_the_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hidden in messages is needed for opening."""
    asked: list[object] = []
    real = av.open

    def no_answer(address: object, *args: Any, **options: Any) -> Any:
        if not isinstance(address, str) or "://" not in address:
            return real(address, *args, **options)
        asked.append(address)
        raise OSError(5, "no answer")

    monkeypatch.setattr("av.open", no_answer)
    with pytest.raises(SourceOpenError, match=r"http://u:\*\*\*@h/a\?k=\*\*\*: cannot be opened: no answer"):
        open_source("http://u:pass@h/a?k=v")
    assert asked == ["http://u:pass@h/a?k=v"]
    with pytest.raises(SinkOpenError):
        open_sink("rtmp://h/live/key", codec="h264").open(INFO)
    assert "rtmp://h/live/key" in asked


@pytest.mark.parametrize(
    "text", ["a" * 400_000, "udp:a:" * 3_000, "a://" + ":" * 100_000 + "x", "rtsp:" + "u" * 400_000]
)
def test_long_texts_take_no_time(text: str) -> None:
    begin = time.process_time()
    safe(text)
    assert time.process_time() - begin < 3
