"""Many files in one go: which are taken, what the outputs are called, and what becomes of those that fail."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.clips import Clip
from vidnoise.cli import interrupt, main
from vidnoise.cli.batch import is_batch, plan_batch
from vidnoise.errors import SinkOpenError, SourceOpenError, UsageError
from vidnoise.sinks import sink_kind
from vidnoise.sources import source_kind

Clips = Callable[[str], Clip]
Run = Callable[..., tuple[int, list[str], str]]

pytestmark = pytest.mark.usefixtures("batches_here")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys, monkeypatch) -> Run:
    """The command line; strength 0 with the smallest model, as only names and failures matter here."""

    def call(*args: object) -> tuple[int, list[str], str]:
        capsys.readouterr()
        code = main([*map(str, args), "--model", "fast", "--threads", "1", "--device", "cpu", "--duration", "0.1"])
        captured = capsys.readouterr()
        return code, captured.err.splitlines(), captured.out

    return call


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def outputs(*inputs: str, output: str, model: str = "fast") -> dict[str, str]:
    return {job.source: job.output for job in plan_batch(inputs, output, model=model).jobs}


# --- names ------------------------------------------------------------------------------------------------------------


def test_what_a_batch_is(here):
    make("a.mp4", "folder/b.mp4")
    assert not is_batch(["a.mp4"], "out.mp4")
    assert not is_batch(["a.mp4"], "{a}.mp4")
    assert is_batch(["a.mp4"], "folder")
    assert is_batch(["a.mp4"], "new/")
    assert is_batch(["a.mp4"], "{stem}-clean.mp4")
    assert is_batch(["a.mp4", "b.mp4"], "out")
    assert is_batch(["folder"], "out")


def test_sub_folders_are_kept_and_other_files_left_out(here):
    make("in/b.mkv", "in/a.MP4", "in/notes.txt", "in/deep/er/c.mov", "in/.hidden.mp4", "in/.git/d.mp4", "e.avi")
    make("in/f.mp4.parts/00000.packets", "in/f.mp4.part")
    batch = plan_batch(["e.avi", "in"], "out", model="fast")
    assert [(job.source, job.output) for job in batch.jobs] == [
        ("e.avi", "out/e.avi"), ("in/a.MP4", "out/a.MP4"), ("in/b.mkv", "out/b.mkv"),
        ("in/deep/er/c.mov", "out/deep/er/c.mov"),
    ]  # fmt: skip
    assert batch.left_out == ("in/notes.txt",)


def test_templates(here):
    make("in/a.mp4", "in/x/b.mkv")
    assert outputs("in", output="out/{sub}/{index:03}-{stem}-{model}{suffix}") == {
        "in/a.mp4": "out/001-a-fast.mp4", "in/x/b.mkv": "out/x/002-b-fast.mkv",
    }  # fmt: skip
    assert outputs("in", output="{parent}/{stem}.webm") == {"in/a.mp4": "in/a.webm", "in/x/b.mkv": "in/x/b.webm"}


def test_results_of_an_earlier_run_are_no_inputs(here):
    make("a.mp4", "clean/a.mp4", "a-clean.mp4")
    assert outputs(".", output="./clean") == {"a.mp4": "clean/a.mp4", "a-clean.mp4": "clean/a-clean.mp4"}
    assert outputs(".", output="{parent}/{stem}-clean{suffix}") == {
        "a.mp4": "a-clean.mp4", "clean/a.mp4": "clean/a-clean.mp4",
    }  # fmt: skip


def test_a_file_that_is_named_twice_is_done_once(here):
    make("in/a.mp4")
    assert outputs("in/a.mp4", "in", output="out") == {"in/a.mp4": "out/a.mp4"}


@pytest.mark.parametrize(
    ("inputs", "output", "error", "says"),
    [
        (["in/a.mp4", "in/x/a.mp4"], "out", UsageError, "would both become out/a.mp4"),
        (["in"], "out/{stem}{suffix}", UsageError, "would both become"),
        (["in"], "in", SinkOpenError, "itself"),
        (["in/a.mp4"], "{stem}{nose}", UsageError, "unknown field {nose}"),
        (["in/a.mp4"], "{stem", UsageError, "cannot be read"),
        (["in/a.mp4"], "{stem.upper}", UsageError, "unknown field"),
        (["in/a.mp4"], "{stem:03d}{suffix}", UsageError, "cannot be filled in"),
        (["in"], "out.mp4", UsageError, "names one file"),
        (["in", "in/notes"], "in/notes", UsageError, "is a file"),
        (["empty"], "out", SourceOpenError, "holds no video"),
        (["in", "-"], "out", UsageError, "only files and folders"),
        (["in", "rtsp://camera/1"], "out", UsageError, "only files and folders"),
        (["in"], "-", UsageError, "holds one video"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_runs(here, inputs, output, error, says):
    make("in/a.mp4", "in/x/a.mp4", "in/notes")
    Path("empty").mkdir()
    with pytest.raises(error, match=says):
        plan_batch(inputs, output, model="fast")


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_failure_stops_no_other_and_is_listed_at_the_end(clips: Clips, here, run: Run):
    make("in/broken.mp4")
    for name in ("a.mp4", "sub/z.mp4"):
        make(f"in/{name}")
        Path(f"in/{name}").write_bytes(clips("cfr").path.read_bytes())
    code, err, out = run("in", "-o", "out", "--json", "-")
    assert code == 3, err
    assert [line.split(" in ")[0] for line in err[:3]] == [
        "vidnoise: 1/3 out/a.mp4: 3 frames",
        "vidnoise: 2/3 failed: in/broken.mp4: is an empty file",
        "vidnoise: 3/3 out/sub/z.mp4: 3 frames",
    ]
    assert err[3:] == [
        "vidnoise: 2 files done", "vidnoise: 1 of 3 files failed:", "vidnoise:   in/broken.mp4: is an empty file",
    ]  # fmt: skip
    found = [json.loads(line) for line in out.splitlines()]
    assert [(f["input"], f.get("frames_out"), f.get("exit_code")) for f in found] == [
        ("in/a.mp4", 3, None), ("in/broken.mp4", None, 3), ("in/sub/z.mp4", 3, None),
    ]  # fmt: skip

    code, err, _ = run("in", "-o", "out")
    assert (code, len(err)) == (4, 1)
    assert "2 of 3 outputs are there already" in err[0]

    Path("out/a.mp4").unlink()
    code, err, _ = run("in", "-o", "out", "--resume", "-q")
    assert code == 3
    assert Path("out/a.mp4").exists()
    assert err == ["vidnoise: 1 of 3 files failed:", "vidnoise:   in/broken.mp4: is an empty file"]


def test_failures_of_several_kinds_give_1(clips: Clips, here, run: Run):
    make("empty.mp4")
    Path("a.xyz").write_bytes(clips("cfr").path.read_bytes())
    code, err, _ = run("empty.mp4", "a.xyz", "-o", "out/")
    assert code == 1, err
    assert "2 of 2 files failed" in err[-3]


def test_an_interruption_ends_the_batch(clips: Clips, here, run: Run, monkeypatch):
    @contextlib.contextmanager
    def once_a_is_done(on_first: Callable[[], None]) -> Iterator[Callable[[], bool]]:
        yield lambda: Path("out/a.mp4").exists()

    monkeypatch.setattr(interrupt, "stop_on_signal", once_a_is_done)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        Path(name).write_bytes(clips("cfr").path.read_bytes())
    code, err, _ = run("a.mp4", "b.mp4", "c.mp4", "-o", "out")
    assert code == 130, err
    assert err[1:] == [
        "vidnoise: 2/3 interrupted before the first frame; nothing was written", "vidnoise: 1 file was not begun",
    ]  # fmt: skip
    assert [path.name for path in Path("out").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("option", ["--tee", "--grain-table"])
def test_options_that_name_one_file_do_not_go_with_several(here, run: Run, option):
    make("a.mp4", "b.mp4")
    code, err, _ = run("a.mp4", "b.mp4", "-o", "out", option, "x.tbl")
    assert (code, len(err)) == (2, 1)
    assert "several inputs" in err[0]


def test_resume_and_overwriting_exclude_each_other(here, run: Run):
    code, err, _ = run("a.mp4", "-o", "out.mp4", "--resume", "-y")
    assert (code, len(err)) == (2, 1)


def test_segments_need_resume(here, run: Run):
    code, err, _ = run("a.mp4", "-o", "out.mp4", "--segment", 10)
    assert (code, len(err)) == (2, 1)
    assert "--resume" in err[0]


# --- names that are more than names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{stem:{foo}}", "{stem:{stem}}", "{index:999999999}", "{index:0999}.mkv", "{stem:>999999999}", "{stem!r}.mkv",
        "{index:%}", "{stem[0]}", "{stem:.3}{index.real}", "{}{stem}", "{0}{stem}",
    ],
)  # fmt: skip
def test_templates_hold_names_and_nothing_else(here, template):
    make("a.mp4")
    with pytest.raises(UsageError) as caught:
        plan_batch(["a.mp4"], template, model="fast")
    assert len(str(caught.value)) < 300


def test_names_that_look_like_addresses_are_files(here):
    make("in/screen:.mkv", "in/pipe:0.mp4", "in/-.mp4", "lavfi:x.mkv", "pipe:1")
    assert outputs("in", output="{stem}") == {
        "in/-.mp4": "./-", "in/pipe:0.mp4": "./pipe:0", "in/screen:.mkv": "./screen:",
    }  # fmt: skip
    assert outputs("lavfi:x.mkv", "pipe:1", output="out") == {
        "./lavfi:x.mkv": "out/lavfi:x.mkv", "./pipe:1": "out/pipe:1",
    }  # fmt: skip
    for name in ("./-", "./pipe:0", "./screen:", "./window:", "./srt://a"):
        assert (source_kind(name), sink_kind(name)) == ("file", "file") or "://" in name


@pytest.mark.parametrize("name", ["screen:", "pipe:0", "lavfi:testsrc2", "dshow:camera", "window:{stem}"])
def test_addresses_are_no_files_of_a_batch(here, name):
    make("a.mp4")
    with pytest.raises(UsageError):
        plan_batch(["a.mp4", name], "out", model="fast")
    with pytest.raises(UsageError):
        plan_batch(["a.mp4"], name + "{stem}", model="fast")


def test_control_ordinary_templates_are_filled_in(here):
    make("a.mp4")
    assert outputs("a.mp4", output="{index:03}-{stem}{{x}}{suffix}") == {"a.mp4": "001-a{x}.mp4"}
