"""Nothing is written over anything: own names, a lock, links and modes kept, devices as they are, one rule for all."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.clips import Clip
from support.sinks import frame_of, info_of, write_all
from vidnoise import disk
from vidnoise.errors import EncodeError, SinkOpenError
from vidnoise.locking import Lock
from vidnoise.resume.segments import Parts
from vidnoise.sinks import check_places, open_sink
from vidnoise.sources import open_source

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="links, modes and nodes are POSIX"),
    pytest.mark.usefixtures("no_network_for_nothing"),
]

CLIP = "lavfi:testsrc2=size=64x48:rate=25:duration=0.2"
Run = Callable[..., tuple[int, list[str]]]


# --- names ------------------------------------------------------------------------------------------------------------


def test_files_with_the_names_of_drafts_are_left_alone(tmp_path: Path, run: Run) -> None:
    mine = [tmp_path / "out.mkv.part", tmp_path / "table.part", tmp_path / "s.json.part"]
    for path in mine:
        path.write_bytes(b"half a download")
    code, _ = run(CLIP, "-o", tmp_path / "out.mkv", "--grain-table", tmp_path / "table", "--json", tmp_path / "s.json")
    assert code == 0
    assert all(path.read_bytes() == b"half a download" for path in mine)
    assert sorted(p.name for p in tmp_path.iterdir() if p not in mine) == ["out.mkv", "s.json", "table"]


def test_a_planted_link_is_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where someone guesses the name that a draft will have."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    tokens = iter(["guess", "other"])
    monkeypatch.setattr("secrets.token_hex", lambda n: next(tokens))
    (tmp_path / "out.mkv.guess.part").symlink_to(victim)
    write_all(open_sink(tmp_path / "out.mkv"), info_of())
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "out.mkv.guess.part").is_symlink()
    assert len(list(open_source(tmp_path / "out.mkv"))) == 5


@pytest.mark.parametrize("options", [(), ("--resume",)])
@pytest.mark.parametrize("stem", ["v" * 251, "ü" * 125])
def test_the_longest_names_that_the_disk_takes(tmp_path: Path, clips: Callable[[str], Clip], run: Run, stem: str,
                                               options: tuple[str, ...]) -> None:  # fmt: skip
    out = tmp_path / f"{stem}.mkv"
    assert run(clips("cfr"), "-o", out, *options)[0] == 0
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_long_names_that_begin_alike_have_segments_of_their_own(tmp_path: Path) -> None:
    first, second = (Parts(str(tmp_path / ("v" * 250 + end))).path for end in ("1.mkv", "2.mkv"))
    assert first != second
    assert len(os.path.basename(first)) <= 255
    assert Parts(str(tmp_path / "a.mkv")).path == str(tmp_path / "a.mkv.parts")


# --- two runs ---------------------------------------------------------------------------------------------------------


def test_a_second_run_on_one_output_is_refused_with_one_line(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out.mkv"
    first = open_sink(out)
    first.open(info_of())
    first.write(frame_of(info_of(), 0))
    for options in ((), ("-y",), ("--resume",)):
        source = tmp_path / "in.mkv"
        if not source.exists():
            write_all(open_sink(source), info_of())
        code, err = run(source, "-o", out, *options, "-q")
        assert (code, err) == (4, [f"vidnoise: {out}: another run of vidnoise is writing it"])
    first.close()
    assert len(list(open_source(out))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]
    assert run(CLIP, "-o", out, "-y")[0] == 0


def test_the_lock_of_a_killed_run_holds_nobody_up(tmp_path: Path) -> None:
    code = f"from vidnoise.locking import Lock; import os; Lock({str(tmp_path / 'out.mkv')!r}); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert list(tmp_path.glob(".vidnoise-*.lock"))
    write_all(open_sink(tmp_path / "out.mkv"), info_of())
    assert [p.name for p in tmp_path.iterdir()] == ["out.mkv"]


def test_many_at_once_one_wins(tmp_path: Path) -> None:
    won: list[Lock] = []
    refused: list[SinkOpenError] = []

    def take() -> None:
        try:
            won.append(Lock(str(tmp_path / "out.mkv")))
        except SinkOpenError as ex:
            refused.append(ex)

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 11)
    won[0].release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_draft_that_was_exchanged_is_not_published(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "out.mkv"
    sink = open_sink(target, overwrite=overwrite)
    sink.open(info_of())
    sink.write(frame_of(info_of(), 0))
    (draft,) = tmp_path.glob("*.part")
    draft.unlink()
    draft.write_bytes(b"someone else's")
    with pytest.raises(EncodeError, match="its temporary file was taken away or replaced"):
        sink.close()
    assert not target.exists()
    assert draft.read_bytes() == b"someone else's"


# --- what -y keeps ----------------------------------------------------------------------------------------------------


def test_overwriting_keeps_mode_and_owner(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out.mkv"
    out.write_bytes(b"old")
    out.chmod(0o604)
    owner = (1234, 5678) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(out, *owner)
    assert run(CLIP, "-y", "-o", out)[0] == 0
    found = out.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o604, *owner)
    assert len(list(open_source(out))) == 5


def test_a_private_file_is_never_readable_for_others_meanwhile(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    out.write_bytes(b"secret")
    out.chmod(0o600)
    draft = disk.Draft(str(out))
    assert stat.S_IMODE(os.stat(draft.part_path).st_mode) == 0o600
    draft.discard()
    assert out.read_bytes() == b"secret"


def test_overwriting_writes_through_links(tmp_path: Path, run: Run) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "real.mkv").write_bytes(b"old")
    link = tmp_path / "out.mkv"
    link.symlink_to(store / "real.mkv")
    assert run(CLIP, "-o", link)[0] == 4
    assert run(CLIP, "-y", "-o", link)[0] == 0
    assert link.is_symlink()
    assert len(list(open_source(store / "real.mkv"))) == 5
    dangling = tmp_path / "new.mkv"
    dangling.symlink_to(store / "new.mkv")
    code, err = run(CLIP, "-o", dangling, "-q")
    assert (code, len(err)) == (4, 1)
    assert "exists already" in err[0]
    assert run(CLIP, "-y", "-o", dangling)[0] == 0
    assert dangling.is_symlink()
    assert sorted(p.name for p in store.iterdir()) == ["new.mkv", "real.mkv"]


# --- devices and FIFOs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-y",)])
def test_a_fifo_stays_and_its_reader_gets_the_video(tmp_path: Path, run: Run, options: tuple[str, ...]) -> None:
    fifo, got = tmp_path / "fifo.mkv", tmp_path / "got.mkv"
    os.mkfifo(fifo)
    with open(got, "wb") as file, subprocess.Popen(["cat", fifo], stdout=file) as reader:
        code, _ = run(CLIP, "-o", fifo, *options, "--codec", "ffv1")
        assert reader.wait(30) == 0
    assert code == 0
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert len(list(open_source(got))) == 5
    assert not list(tmp_path.glob(".*"))


def test_a_device_stays_a_device(tmp_path: Path, run: Run) -> None:
    """A node of our own, with the numbers of /dev/null."""
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        node.open("wb").close()
    except OSError:
        pytest.skip("making device nodes, or opening them here, needs rights that this machine does not give")
    code, err = run(CLIP, "-o", node, "-f", "mkv", "-y", "--json", node, "--grain-table", node, "--stats", node)
    assert (code, len(err)) == (0, 1)
    assert stat.S_ISCHR(node.stat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["null"]


def test_waiting_for_a_fifos_reader_can_be_ended(tmp_path: Path) -> None:
    import vidnoise

    os.mkfifo(tmp_path / "fifo")
    asked = iter(range(100))
    stats = vidnoise.denoise_file(
        CLIP, tmp_path / "fifo", model="fast", device="cpu", threads=1, should_stop=lambda: next(asked) > 3
    )
    assert stats.interrupted
    assert stats.frames_out == 0


# --- one rule for all that is written ---------------------------------------------------------------------------------

SECOND_OUTPUTS = ["--json", "--stats", "--grain-table", "--tee"]


@pytest.mark.parametrize("option", SECOND_OUTPUTS)
def test_no_second_output_is_written_over_anything(tmp_path: Path, run: Run, option: str) -> None:
    source, other = tmp_path / "in.mkv", tmp_path / "other.mkv"
    write_all(open_sink(source), info_of())
    before = source.read_bytes()
    other.write_bytes(b"mine")
    link, hard = tmp_path / "link.mkv", tmp_path / "hard.mkv"
    link.symlink_to(source)
    hard.hardlink_to(source)
    out = tmp_path / "out.mkv"
    cases = [("-n", other, "exists already"), ("-y", source, "is the input"), ("-y", link, "is the input")]
    for yes, path, says in [*cases, ("-y", hard, "is the input"), ("-y", out, "is ")]:
        code, err = run(source, "-o", out, yes, option, path, "-q")
        assert (code in (2, 4), len(err)) == (True, 1), (path, err)
        assert says in err[0]
        assert not out.exists()
    assert (source.read_bytes(), other.read_bytes()) == (before, b"mine")
    assert run(source, "-o", out, "-y", option, other)[0] == 0
    assert other.read_bytes() != b"mine"


def test_a_name_with_a_zero_in_it(tmp_path: Path) -> None:
    import vidnoise

    with pytest.raises(SinkOpenError, match="no name of a file holds a zero"):
        vidnoise.denoise_file(CLIP, f"{tmp_path}/a\0b.mkv", model="fast", device="cpu")


def test_two_reports_in_one_file_are_refused(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "s.json"
    code, err = run(CLIP, "-o", tmp_path / "out.mkv", "--json", path, "--stats", path)
    assert (code, len(err)) == (4, 1)
    assert "is the output" in err[0]


def test_segments_of_hls_are_written_over_nothing(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "in-00000.ts"
    write_all(open_sink(source), info_of())
    before = source.read_bytes()
    for yes in ("-n", "-y"):
        code, err = run(source, "-o", tmp_path / "in.m3u8", yes, "-q")
        assert (code, len(err)) == (4, 1)
        assert "has the name of a segment" in err[0]
    assert source.read_bytes() == before
    mine = tmp_path / "out-00000.ts"
    mine.write_bytes(b"mine")
    code, err = run(CLIP, "-o", tmp_path / "out.m3u8", "-q")
    assert (code, "exists already" in err[0], mine.read_bytes()) == (4, True, b"mine")
    with pytest.raises(SinkOpenError, match="has the name of a segment"):
        check_places([str(tmp_path / "out.m3u8"), str(tmp_path / "out-00001.ts")], reads=[])
    assert run(CLIP, "-o", tmp_path / "out.m3u8", "-y")[0] == 0
    assert len(list(open_source(tmp_path / "out.m3u8"))) == 5


def test_going_on_replaces_its_own_report_only(tmp_path: Path, clips: Callable[[str], Clip], run: Run) -> None:
    """The same command goes on after an interruption, --json and all; a file of the user's stays."""
    report, out = tmp_path / "s.json", tmp_path / "out.mkv"
    report.write_text('{"mine": 1}')
    code, err = run(clips("cfr"), "-o", out, "--resume", "--json", report, "-q")
    assert (code, "exists already" in err[0], report.read_text()) == (4, True, '{"mine": 1}')
    report.unlink()
    for skipped in (False, True):
        assert run(clips("cfr"), "-o", out, "--resume", "--json", report)[0] == 0
        assert json.loads(report.read_text()).get("skipped", False) is skipped


@pytest.mark.usefixtures("batches_here")
def test_reports_of_a_batch_that_cannot_be_written_do_not_end_it(
    tmp_path: Path, clips: Callable[[str], Clip], run: Run
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    out = tmp_path / "out"
    code, err = run(clips("cfr"), clips("vfr"), "-o", f"{out}/", "--json", "/dev/full")
    assert code == 4
    assert sum("/dev/full: cannot be written: No space left on device; the videos go on" in line for line in err) == 1
    assert len(list(out.iterdir())) == 2


def test_an_empty_output_is_not_taken_for_a_finished_one(
    tmp_path: Path, clips: Callable[[str], Clip], run: Run
) -> None:
    """What a power cut may leave of a file of earlier versions."""
    out = tmp_path / "out.mkv"
    out.touch()
    code, err = run(clips("cfr"), "-o", out, "-q")
    assert (code, "exists already" in err[0], out.stat().st_size) == (4, True, 0)
    assert run(clips("cfr"), "-o", out, "--resume")[0] == 0
    assert len(list(open_source(out))) == 10
