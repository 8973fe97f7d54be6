"""What an input may not do: reach out to the network, ask for more memory than there is, hang a run by its settings."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from support.clips import CLIPS, Clip, join_ts, write
from vidnoise.allocator import memory_errors_explained
from vidnoise.cli import main
from vidnoise.errors import DeviceError, FormatError, SinkOpenError, SourceOpenError, UsageError
from vidnoise.resume.segments import EncodedPacket, Parts
from vidnoise.sources import open_source

CLIP = "lavfi:testsrc2=size=64x48:rate=25:duration=0.2"


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["#EXTM3U\n#EXTINF:1,\nhttp://{}/a.ts\n", "ffconcat version 1.0\nfile http://{}/a.ts\n"]
)
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_a_playlist_does_not_reach_the_network(tmp_path: Path, content: str, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        text = content.format(f"127.0.0.1:{server.getsockname()[1]}").encode()
        if way == "file":
            (tmp_path / "a.m3u8").write_bytes(text)
            uri = str(tmp_path / "a.m3u8")
        else:
            reading, writing = os.pipe()
            os.write(writing, text)
            os.close(writing)
            uri = f"pipe:{reading}"
        with pytest.raises(SourceOpenError):
            open_source(uri)
        if way == "pipe":
            os.close(reading)
        with pytest.raises(TimeoutError):
            server.accept()


def test_control_whoever_allows_it_reaches_the_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        reading, writing = os.pipe()
        os.write(writing, b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:%d/a.ts\n#EXT-X-ENDLIST\n" % server.getsockname()[1])
        os.close(writing)
        with pytest.raises(SourceOpenError):
            open_source(f"pipe:{reading}", input_options={"protocol_whitelist": "file,http,tcp"}, format="hls")
        os.close(reading)
        thread.join(5)
        if thread.is_alive():
            socket.create_connection(server.getsockname()).close()
            thread.join()
            pytest.fail("the test proves nothing: it was not asked")
        thread.join()


# --- memory -----------------------------------------------------------------------------------------------------------


def test_pictures_larger_than_allowed_are_refused(
    clips: Callable[[str], Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FormatError, match="is 64x48, which is more than 3071 pixels; max_pixels=N"):
        open_source(str(clips("cfr")), max_pixels=64 * 48 - 1)
    assert len(list(open_source(str(clips("cfr")), max_pixels=64 * 48))) == 10
    assert main([str(clips("cfr")), "-o", str(tmp_path / "a.mkv"), "--max-pixels", "100"]) == 5
    assert "--max-pixels N allows larger" in capsys.readouterr().err
    with pytest.raises(UsageError, match="max_pixels"):
        open_source(CLIP, max_pixels=0)


def test_a_header_that_asks_for_too_much_is_refused(tmp_path: Path) -> None:
    """A header of 50 bytes."""
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W32000 H32000 F25:1 C420jpeg\nFRAME\n")
    with pytest.raises((FormatError, SourceOpenError)):  # ours, or FFmpeg's where it is quicker
        open_source(str(tmp_path / "a.y4m"))


def test_a_picture_that_grows_beyond_the_limit_is_not_decoded(tmp_path: Path) -> None:
    recipe = replace(CLIPS["gops_ts"], audio=(), options={"preset": "ultrafast", "crf": "18"})
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for path, scale in zip(parts, (1, 2), strict=True):
        write(path, replace(recipe, width=64 * scale, height=48 * scale))
    source = open_source(str(join_ts(parts, tmp_path / "c.ts")), max_pixels=64 * 48)
    sizes = {(frame.width, frame.height) for frame in source}
    assert sizes == {(64, 48)}
    assert source.n_corrupt > 0


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you")])
def test_no_memory_names_the_option_that_helps(error: Exception) -> None:
    with pytest.raises(DeviceError, match="max_memory=MB"), memory_errors_explained():
        raise error
    with pytest.raises(RuntimeError, match="something else"), memory_errors_explained():
        raise RuntimeError("something else")


# --- the notes of --resume --------------------------------------------------------------------------------------------


def packet(pts: int) -> EncodedPacket:
    return EncodedPacket(pts, pts, 1, pts == 0, b"data")


def written(folder: Path) -> Parts:
    parts = Parts(str(folder / "a.mkv"))
    parts.load({"x": 1})
    parts.note("headers", "")
    file = parts.begin()
    for pts in range(3):
        file.add(packet(pts))
    parts.finish(file, [0, 1, 2], Fraction(1, 25))
    return parts


@pytest.mark.parametrize(
    "manifest",
    [b"[]", b"3", b"null", b"{", b"", b"[" * 100_000, b'{"format": 1}', b'{"format": 1, "settings": 3}', b"\xff\xfe",
     b'{"format": "1", "settings": {}}'],
    ids=lambda m: str(m[:20]),
)  # fmt: skip
def test_a_damaged_note_of_a_run_is_one_line(tmp_path: Path, manifest: bytes) -> None:
    parts = written(tmp_path)
    (Path(parts.path) / "manifest.json").write_bytes(manifest)
    with pytest.raises(SinkOpenError, match="delete it to begin anew") as caught:
        Parts(str(tmp_path / "a.mkv")).load({"x": 1})
    assert "\n" not in str(caught.value)
    assert (Path(parts.path) / "00000.packets").exists()


def test_settings_of_another_kind_are_told_in_one_line(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UsageError, match="was begun with other settings") as caught:
        Parts(str(tmp_path / "a.mkv")).load({"x": {"y": list(range(10_000))}})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "change",
    [
        {"frames": "abc"}, {"frames": [0, "1", 2]}, {"frames": [2, 1, 0]}, {"frames": []}, {"frames": [None]},
        {"time_base": "1e9999999"},
        {"time_base": "0"}, {"time_base": "1/0"}, {"time_base": "x"}, {"time_base": None}, {"time_base": "-1/25"},
        {"n_packets": 10**12}, {"n_packets": -1}, {"n_packets": "3"}, {"n_packets": 3.0}, {"delay": 10**9},
        {"delay": -1}, {"sha256": 3}, {"nose": 1}, {"n_bytes": 1e300},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_note_of_a_segment_makes_it_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    parts = written(tmp_path)
    (good,) = parts.segments
    note = Path(parts.path) / "00000.json"
    again = Parts(str(tmp_path / "a.mkv"))
    again.load({"x": 1})
    assert again.segments == [good]
    note.write_text(json.dumps({**asdict(good), **change}))
    again.load({"x": 1})
    assert again.segments == []


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"3", b"", b"\xff"], ids=lambda c: str(c[:10]))
def test_a_note_of_a_segment_that_is_none_makes_it_anew(tmp_path: Path, content: bytes) -> None:
    parts = written(tmp_path)
    (Path(parts.path) / "00000.json").write_bytes(content)
    again = Parts(str(tmp_path / "a.mkv"))
    again.load({"x": 1})
    assert again.segments == []


def test_packets_that_claim_to_be_larger_than_their_file_are_not_read(tmp_path: Path) -> None:
    parts = written(tmp_path)
    path = Path(parts.path) / "00000.packets"
    data = bytearray(path.read_bytes())
    data[24:28] = b"\xff\xff\xff\xff"  # the size of the first: 4 GiB
    path.write_bytes(data)
    with pytest.raises(OSError, match="is damaged"):
        list(parts.packets())


def test_control_whole_segments_are_read(tmp_path: Path) -> None:
    parts = written(tmp_path)
    assert [p for p, _ in parts.packets()] == [replace(packet(pts), dts=pts) for pts in range(3)]
