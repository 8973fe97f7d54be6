"""Faults in the middle of a run: full disks, servers that die, statistics that nobody takes. See also test_live.py."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vidnoise.sinks import open_sink
from vidnoise.sources import open_source

resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX")

CLIP = "lavfi:testsrc2=size=64x48:rate=25:duration=0.4"
ENDLESS = "lavfi:testsrc2=size=64x48:rate=25"
FORMATS = {".mkv": ("--codec", "ffv1"), ".mp4": ("--codec", "h264", "--crf", "1")}

Run = Callable[..., tuple[int, list[str]]]


@contextlib.contextmanager
def disk_with_room_for(n_bytes: int) -> Iterator[None]:
    """As full as that for each file. Needs no rights, as mounting a small disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", FORMATS)
def test_a_disk_that_fills_up_at_any_moment_leaves_no_file(tmp_path: Path, run: Run, extension: str) -> None:
    """In the header, in the pictures, and with the very last byte, which libav itself would not notice.

    At the end, when all the work is done, what was written stays under its own name, and is no output.
    """
    out = tmp_path / f"out{extension}"
    assert run(CLIP, "-o", out, *FORMATS[extension], "-q") == (0, [])
    size = out.stat().st_size
    out.unlink()
    for room in (10, size // 2, size - 1):
        with disk_with_room_for(room):
            code, err = run(CLIP, "-o", out, *FORMATS[extension])
        assert (code, len(err)) == (4, 1)
        assert str(out) in err[0]
        assert "File too large" in err[0]
        left = list(tmp_path.iterdir())
        assert not left or (room > 10 and f"what was written stays as {left[0]}" in err[0])
        for part in left:
            part.unlink()
    assert left, "the last byte was the trailer's"


def test_the_old_file_survives_a_full_disk(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out.mkv"
    out.write_bytes(b"what was there before")
    with disk_with_room_for(8_000):
        assert run(CLIP, "-y", "-o", out, "--codec", "ffv1")[0] == 4
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"what was there before"]


def test_a_full_disk_ends_a_live_run_at_once(tmp_path: Path, run: Run) -> None:
    with disk_with_room_for(20_000):
        code, err = run(ENDLESS, "--live", "-o", tmp_path / "out.mkv", "--codec", "ffv1")
    assert code == 4
    assert "File too large" in err[-1]
    (part,) = tmp_path.iterdir()
    assert f"what was written stays as {part}; to finish it: ffmpeg -i {part}" in err[-1]
    assert len(list(open_source(part))) > 3, "a recording will not come again"


def test_a_growing_file_stays_on_a_full_disk(tmp_path: Path, run: Run) -> None:
    """It can be played as far as it goes."""
    out = tmp_path / "out.mkv"
    with disk_with_room_for(40_000):
        code, err = run(ENDLESS, "-o", out, "--grow", "--codec", "ffv1")
    assert (code, len(err)) == (4, 1)
    assert out.stat().st_size <= 40_000
    assert len(list(open_source(out))) > 3


# --- servers ----------------------------------------------------------------------------------------------------------


def test_a_file_server_that_dies_in_the_middle_leaves_no_half_file(tmp_path: Path, run: Run) -> None:
    source, sink = open_source(CLIP), open_sink(tmp_path / "in.mkv", codec="ffv1")
    sink.open(source.info)
    for frame in source:
        sink.write(frame)
    sink.close()
    data = (tmp_path / "in.mkv").read_bytes()

    class Dying(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dying) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            code, err = run(f"http://127.0.0.1:{server.server_address[1]}/in.mkv", "-o", tmp_path / "out.mkv")
        finally:
            server.shutdown()
            thread.join()
    assert (code, len(err)) == (3, 1)
    assert "reading failed" in err[0]
    assert not list(tmp_path.glob("out.*"))


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.pipeline.meter.LIVE_PROGRESS_SECONDS", 0.05)


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("kind", ["full disk", "no reader"])
def test_statistics_that_cannot_be_written_do_not_cost_the_video(
    tmp_path: Path, run: Run, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, stats = tmp_path / "out.mkv", "-"
    if kind == "full disk":
        if not os.path.exists(stats := "/dev/full"):
            pytest.skip("there is no /dev/full")
    else:
        reading, writing = os.pipe()
        os.close(reading)
        monkeypatch.setattr("sys.stdout", os.fdopen(writing, "w"))
    code, err = run(CLIP, "--live", "-o", out, "--codec", "ffv1", "--stats", stats)
    if kind == "no reader":
        monkeypatch.undo()
    assert code == 0
    assert sum("no more statistics, the video goes on" in line for line in err) == 1
    assert list(open_source(out))


@pytest.mark.usefixtures("_often")
def test_control_statistics_are_whole_lines(tmp_path: Path, run: Run) -> None:
    assert run(CLIP, "--live", "-o", tmp_path / "out.mkv", "--stats", tmp_path / "stats")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "stats").read_text().splitlines()]
    assert len(rows) > 2
    assert all(row["lag_ms"] is not None and row["memory_mb"] > 10 for row in rows)
