"""``vidnoise bench``: what is measured, counted, written and compared."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vidnoise.backends import BACKENDS
from vidnoise.bench.cases import Case, config_of, make_cases, noisy_frames, parse_size
from vidnoise.bench.ceilings import Ceilings, Probe
from vidnoise.bench.end_to_end import make_clip, run_clip
from vidnoise.bench.ffdnet_size import FFDNET_SIZE, _network
from vidnoise.bench.filters import CLIP, FilterCase, choose_filters, filter_clip
from vidnoise.bench.graph import PARTS, Graph, Operation, _Counter, count_step, time_by_part
from vidnoise.bench.regression import compare
from vidnoise.bench.results import markdown, read_results, write_results
from vidnoise.bench.roofline import Peaks, bounds, make_roofline
from vidnoise.bench.roofline import markdown as roofline_page
from vidnoise.bench.rounds import Settings, measure
from vidnoise.bench.session import Session
from vidnoise.bench.worker import Worker, WorkerError
from vidnoise.cli import main
from vidnoise.errors import DeviceError, UnknownModelError, UsageError
from vidnoise.evaluation.cost import kilo_macs
from vidnoise.evaluation.peers import PEERS
from vidnoise.frame import Frame
from vidnoise.kernels.library import kernels_in_use
from vidnoise.model import TIERS
from vidnoise.session.denoiser import Denoiser

TINY = Case("fast", "cpu", "eager", "fp32", 48, 64)


# Cases


def test_sizes() -> None:
    assert parse_size("1080p") == (1080, 1920)
    assert parse_size("320x192") == (192, 320)
    for text in ("1081p", "320*192", "8x8", ""):
        with pytest.raises(UsageError, match="unknown size"):
            parse_size(text)


def test_cases_are_all_combinations_by_size() -> None:
    cases = make_cases(
        ["fast", "standard"], device="cpu", precisions=["fp32", "bf16"], sizes=["32x16", "64x48"], streams=[1, 2]
    )
    assert len(cases) == 16
    assert [c.height for c in cases] == [16] * 8 + [48] * 8
    assert {c.backend for c in make_cases(["fast"], device="cpu", backends=["all"])} == set(BACKENDS)
    ways = make_cases(["fast"], device="cpu", backends=["eager", "auto:fp32"], precisions=["auto", "bf16"])
    assert [(c.backend, c.precision) for c in ways] == [("eager", "auto"), ("eager", "bf16"), ("auto", "fp32")]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"models": ["slow"]}, UnknownModelError),
        ({"backends": ["egaer"]}, UsageError),
        ({"precisions": ["fp64"]}, UsageError),
        ({"backends": ["eager:fp64"]}, UsageError),
        ({"device": "tpu"}, DeviceError),
        ({"sizes": ["big"]}, UsageError),
        ({"streams": [0]}, UsageError),
        ({"lookaheads": [-1]}, UsageError),
        ({"lookaheads": [33]}, UsageError),
        ({"streams": [1], "lookaheads": [0, 8]}, UsageError),
    ],
)
def test_unknown_names_are_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make_cases(**{"models": ["fast"], "device": "cpu", **options})


def test_padding_counts_as_work() -> None:
    assert replace(TINY, height=1080, width=1920).padded_pixels == 1088 * 1920
    assert replace(TINY, height=1080, width=1920).megapixels == pytest.approx(2.0736)


# Measuring


def test_ceilings_are_plausible_and_summed_up() -> None:
    probe = Probe(torch.device("cpu"), torch.float32)
    probe.round()
    found = probe.ceilings.to_dict()
    assert 0.1 < found["gflops"] < 1e5
    assert 0.1 < found["gbps"] < 1e4
    assert Ceilings([1, 9, 2], [3, 1, 2]).to_dict() == {"gflops": 2, "gbps": 2, "gflops_best": 9, "gbps_best": 3}


@pytest.mark.parametrize("streams", [None, 1, 3])
def test_a_session_times_every_step_of_a_burst(streams: int | None) -> None:
    session = Session(replace(TINY, streams=streams))
    steps = session._count
    ms = session.burst(4, 60)
    assert len(ms) == 4
    assert session._count == steps + 5  # one is not counted
    assert all(0 < t < 60_000 for t in ms)
    assert len(session.burst(1000, 1e-9)) == 1
    facts = session.facts()
    assert (facts["backend_used"], facts["precision_used"]) == ("eager", "fp32")
    if sys.platform.startswith("linux"):
        assert facts["peak_mib"] > 0


def test_with_a_lookahead_a_step_is_a_block_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 frames, 3 are only looked at, and 6 come out at once."""
    session = Session(replace(TINY, lookahead=8))
    came: list[tuple[int | None, int]] = []
    push = Denoiser.push

    def observed(self: Denoiser, frame: Frame) -> list[Frame]:
        out = push(self, frame)
        came.append((frame.index, len(out)))
        return out

    monkeypatch.setattr(Denoiser, "push", observed)
    session._step(0)
    assert [index for index, _ in came] == [0, 1, 2, 3, 0, 1]
    assert sorted(n for _, n in came) == [0] * 5 + [6]
    session._between = lambda a, b: 30.0  # type: ignore[method-assign]
    assert session.burst(2, 60) == [5.0, 5.0]


@pytest.mark.parametrize("lookahead", [0, 8])
def test_a_whole_run_is_of_the_clip_alone(lookahead: int, tmp_path: Path) -> None:
    """The frames of the warm-up are not in it."""
    make_clip(tmp_path / "clip.mkv", 48, 64, 10)
    found = run_clip(replace(TINY, lookahead=lookahead), str(tmp_path / "clip.mkv"), 60, threads=1)
    assert found["frames"] == 10


def test_the_share_of_a_stream_is_what_is_reported() -> None:
    """With three streams a step takes longer, and a frame does not."""
    session = Session(replace(TINY, streams=3))
    session._between = lambda a, b: 30.0  # type: ignore[method-assign]
    assert session.burst(2, 60) == [10.0, 10.0]


@pytest.mark.slow
def test_a_worker_says_why_it_failed_and_is_gone() -> None:
    worker = Worker(1, 60)
    with pytest.raises(WorkerError, match="fp16 is for CUDA"):
        worker.call("setup", replace(TINY, precision="fp16"))
    assert not worker._process.is_alive()


def test_a_worker_that_hangs_is_given_up() -> None:
    worker = Worker(1, 0.01)
    with pytest.raises(WorkerError, match=r"setup took more than 0\.01 s"):
        worker.call("setup", TINY)
    assert not worker._process.is_alive()


def test_a_worker_that_dies_is_told_from_one_that_fails() -> None:
    worker = Worker(1, 60)
    worker._process.kill()
    with pytest.raises(WorkerError, match=r"ended during burst \(exit status -9: out of memory"):
        worker.call("burst", 1, 1)


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    workers: list[Worker] = []
    call = Worker.call

    def interrupted(self: Worker, what: str, *args: Any) -> Any:
        workers.append(self)
        if len(workers) == 2:  # while the second is set up, the first being ready
            monkeypatch.setattr(self._connection, "poll", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        return call(self, what, *args)

    monkeypatch.setattr(Worker, "call", interrupted)
    cases = make_cases(["fast"], device="cpu", backends=["eager"], precisions=["fp32", "bf16"], sizes=["64x48"])
    with pytest.raises(KeyboardInterrupt):
        measure(cases, Settings(threads=1), lambda _: None)
    assert len(workers) == 2
    assert not any(worker._process.is_alive() for worker in workers)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """A real run of one case that works and one that cannot."""
    cases = make_cases(["fast"], device="cpu", backends=["eager"], precisions=["fp32", "fp16"], sizes=["64x48"])
    said: list[str] = []
    found = measure(
        cases, Settings(frames=5, seconds=20, threads=1, note="A test."), said.append,
        peers=[PEERS["opencv-nlm"], replace(PEERS["hqdn3d"], name="lost", missing=lambda: "it is lost")],
    )  # fmt: skip
    assert any("fp16 is for CUDA" in line for line in said)
    return found


def test_what_works_is_measured_and_what_fails_is_kept_with_its_reason(results: dict[str, Any]) -> None:
    works, fails = results["cases"]
    assert works["status"] == "ok"
    assert works["frames"] == 5
    assert works["ms_p50"] <= works["ms_p95"]
    seconds = works["ms_p50"] / 1e3
    assert works["mpixel_per_second"] == pytest.approx(64 * 48 / 1e6 / seconds, rel=0.01, abs=0.001)
    gflops = 2e3 * kilo_macs(config_of("fast")) * 64 * 48 / seconds / 1e9
    assert works["gflops"] == pytest.approx(gflops, rel=0.01)
    assert works["arithmetic_share"] == pytest.approx(gflops / works["ceilings"]["gflops"], rel=0.01, abs=1e-4)
    assert works["memory_share_fused"] < works["memory_share_layered"] < works["memory_share_unfused"]
    assert (fails["status"], fails["precision"]) == ("failed", "fp16")
    assert "fp16 is for CUDA" in fails["reason"]
    nlm, lost = results["filters"]
    assert nlm["ms_p50"] > 0
    assert (lost["status"], lost["reason"]) == ("failed", "it is lost")


def test_results_are_written_as_json_and_tables(results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "new" / "speed.json"
    write_results(path, results)
    assert read_results(path) == json.loads(json.dumps(results))
    text = path.with_suffix(".md").read_text()
    assert text == markdown(results)
    assert "| fast, eager, fp32 |" in text
    assert "A test." in text
    assert "- fast, eager, fp16, 64x48: precision fp16" in text
    assert "- lost, 64x48: it is lost" in text


def test_several_sizes_begin_with_a_table_of_frames_per_second(results: dict[str, Any]) -> None:
    works = results["cases"][0]
    text = markdown(results | {"cases": [works | {"fps": 12.34}, works | {"width": 128, "fps": 1.5}]})
    nlm = results["filters"][0]["fps"]
    assert "| frames per second | 64x48 | 128x48 |\n|---|--:|--:|\n| fast, eager, fp32 | 12 | 1.50 |\n" in text
    assert f"| opencv-nlm | {nlm:.{2 if nlm < 10 else 0}f} | – |" in text


def test_a_network_of_the_size_of_ffdnet_is_timed() -> None:
    case = FilterCase(FFDNET_SIZE, 33, 47, 60)
    case.burst(filter_clip(33, 47))
    row = case.result()
    assert (row["status"], row["filter"], row["is_below"]) == ("ok", "ffdnet-size", False)
    # As its authors count it: 0.85 M parameters, on a quarter of the pixels.
    assert sum(p.numel() for p in _network().parameters()) == pytest.approx(0.85e6, rel=0.01)


def test_results_are_drawn(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from vidnoise.bench.plot import plot_results

    streams = [results["cases"][0] | {"streams": n, "fps": 10.0 * n} for n in (1, 2)]
    plot_results(results | {"cases": results["cases"] + streams}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_other_files_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("{", "[]", '{"kind": "other"}'):
        path.write_text(text)
        with pytest.raises(UsageError, match="not a results file"):
            read_results(path)


def test_a_filter_stops_when_its_time_is_spent() -> None:
    case = FilterCase(PEERS["opencv-nlm"], 16, 32, 1e-9)
    clip = filter_clip(16, 32)
    assert clip.shape == (CLIP, 3, 16, 32)
    for _ in range(3):
        case.burst(clip)
    assert case.result()["calls"] == 1


def test_a_filter_that_is_lost_in_starting_its_program_is_given_as_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def takes(seconds: float) -> Callable[[Any, float], Any]:
        def run(pictures: Any, _: float) -> Any:
            nonlocal now
            now += seconds
            return pictures

        return run

    peer = PEERS["opencv-nlm"]
    rows = []
    for idle, run in ((0.05, 0.0), (0.0, 0.1)):
        case = FilterCase(replace(peer, run=takes(run), idle=takes(idle)), 16, 32, 60)
        case.burst(filter_clip(16, 32))
        rows.append(case.result())
    assert [r["is_below"] for r in rows] == [True, False]
    assert rows[0]["ms_p50"] == pytest.approx(0.2 * 50 / CLIP)
    assert rows[1]["ms_p50"] == pytest.approx(100 / CLIP)


def test_filters_by_name() -> None:
    assert choose_filters("none") == []
    assert len(choose_filters("all")) == len(PEERS) + 1  # a network that is only timed
    assert [p.name for p in choose_filters("hqdn3d,opencv-nlm")] == ["hqdn3d", "opencv-nlm"]
    with pytest.raises(UsageError, match="unknown peer 'nlm'"):
        choose_filters("nlm")


@pytest.mark.slow
def test_measuring_needs_neither_av_nor_click() -> None:
    """A GPU machine that has torch, NumPy and OpenCV only can measure all but whole runs."""
    modules = "cases, ceilings, ffdnet_size, filters, graph, regression, results, roofline, rounds, session, worker"
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("av", "click", "rich", "matplotlib", "ffmpeg")))
from vidnoise.bench import {modules}
import vidnoise.session.stream_batch
session.Session(cases.Case({TINY.model!r}, "cpu", "eager", "fp32", 48, 64)).burst(1, 1)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=110)


# Comparing


def row(**changes: Any) -> dict[str, Any]:
    return {
        **TINY.to_dict(), "status": "ok", "backend_used": "eager", "precision_used": "fp32", "ms_p50": 10.0,
        "ceilings": {"gflops": 100.0, "gbps": 10.0}, **changes,
    }  # fmt: skip


def of(*rows: dict[str, Any], threads: int = 1) -> dict[str, Any]:
    return {"settings": {"threads": threads}, "cases": list(rows)}


def test_a_slower_case_is_found() -> None:
    (change,), lines = compare(of(row()), of(row(ms_p50=12.0)))
    assert change.ratio == pytest.approx(1.2)
    assert change.is_slower(1.15)
    assert not change.is_slower(1.25)
    assert lines == []


def test_a_slower_machine_is_no_regression() -> None:
    busy = {"gflops": 50.0, "gbps": 5.0}
    (change,), _ = compare(of(row()), of(row(ms_p50=20.0, ceilings=busy)))
    assert change.ratio == pytest.approx(1.0)
    (change,), _ = compare(of(row(ceilings=busy)), of(row()))  # and a quicker one hides none
    assert change.ratio == pytest.approx(2.0)


def test_what_fails_now_is_a_regression_and_what_has_no_partner_is_named() -> None:
    gone, new = row(model="gone"), row(model="new")
    failed = row(status="failed", reason="no memory", ms_p50=None)
    changes, lines = compare(of(row(), gone), of(failed, new, threads=2))
    assert [c.is_slower(100) for c in changes] == [True]
    assert changes[0].reason == "no memory"
    assert [line.split(":")[0] for line in lines] == [
        "measured with 1 and with 2 threads", "only in the old file", "measured in the new file only",
    ]  # fmt: skip


def test_the_command_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def file(name: str, ms: float, **changes: Any) -> str:
        path = tmp_path / name
        path.write_text(json.dumps({"kind": "vidnoise bench", **of(row(ms_p50=ms, **changes))}))
        return str(path)

    old, same, slow = file("old", 10), file("same", 10.5), file("slow", 20)
    assert main(["bench", "--compare", old, same]) == 0
    assert main(["bench", "--compare", old, slow]) == 1
    assert "| slower |" in capsys.readouterr().out
    assert main(["bench", "--compare", old, slow, "--tolerance", "2.1"]) == 0
    assert main(["bench", "--compare", old, file("other", 1, model="other")]) == 2
    assert "no case in common" in capsys.readouterr().err


# Counting


def counted(work: Any) -> list[Operation]:
    counter = _Counter(set(), 1)
    with torch.no_grad(), counter:
        work()
    return counter.operations


def test_operations_are_counted_by_the_rules() -> None:
    a, b = torch.rand(4, 8), torch.rand(1, 8).expand(4, 8)
    (add,) = counted(lambda: a + b)
    assert (add.flops, add.bytes) == (32, 4 * (32 + 8 + 32))  # what is expanded is read once
    assert counted(lambda: a.view(8, 4).t()[1:]) == []
    (moved,) = counted(lambda: torch.cat([a, a]))
    assert (moved.flops, moved.bytes) == (0, 4 * (32 + 64))  # one tensor, read once
    (mean,) = counted(lambda: a.mean(1))
    assert (mean.flops, mean.bytes) == (32, 4 * (32 + 4))
    (changed,) = counted(lambda: a.mul_(2))
    assert (changed.flops, changed.bytes) == (32, 4 * 64)
    picture, kernel = torch.rand(1, 2, 6, 6), torch.rand(3, 2, 3, 3)
    (convolution,) = counted(lambda: torch.nn.functional.conv2d(picture, kernel, padding=1))
    assert convolution.flops == 2 * 36 * 3 * 2 * 9
    assert convolution.is_convolution
    grid = torch.rand(1, 4, 4, 2)
    (warp,) = counted(lambda: torch.nn.functional.grid_sample(picture, grid, align_corners=False))
    assert (warp.flops, warp.is_large) == (8 * 2 * 16, True)


@pytest.mark.parametrize("tier", TIERS)
def test_the_graph_agrees_with_the_cost_counter(tier: str) -> None:
    single, half = (count_step(TIERS[tier], dtype) for dtype in (torch.float32, torch.bfloat16))
    assert single.convolution_flops == pytest.approx(2e3 * kilo_macs(TIERS[tier]), rel=1e-3)
    assert half.convolution_flops == pytest.approx(single.convolution_flops, rel=1e-3)
    assert half.weight_bytes * 2 == single.weight_bytes
    for graph in (single, half):
        assert graph.fused_bytes < graph.layered_bytes < graph.unfused_bytes
    assert half.layered_bytes < single.layered_bytes


def test_every_part_of_the_network_is_recognised() -> None:
    graph = count_step(TIERS["fast"])
    parts = graph.by_part()
    assert set(PARTS) - set(parts) == {"colour", "cuts"}  # which are no part of the network
    assert sum(op.flops for op in parts["rest"]) < 0.01 * graph.flops
    core = sum(op.flops for op in parts["core"])
    assert core > 0.5 * graph.flops


def test_the_profile_names_the_parts_of_a_whole_frame() -> None:
    denoiser = Denoiser("fast", device="cpu", precision="fp32", backend="eager")
    times = time_by_part(denoiser.push, noisy_frames(48, 64, 4), torch.device("cpu"))
    assert set(times) >= {"colour", "cuts", "noise level", "motion", "core"}
    assert all(0 < ms < 60_000 for ms in times.values())
    assert times["rest"] < 0.5 * sum(times.values())


def test_bounds_of_a_step_that_can_be_done_by_hand() -> None:
    operations = (
        Operation("core", "convolution", 1000.0, 20.0, True, True),
        Operation("rest", "add", 10.0, 120.0, False, False),
    )
    graph = Graph(operations, state_bytes=14.0, weight_bytes=0)
    assert graph.fused_bytes == 12 + 2 * 14
    found = bounds(graph, 100, Peaks(convolution=1e3, other=1e1, memory=1e2))
    assert found.fused == pytest.approx(100 * 2.0)  # 1 s of convolution and 1 s of the rest; memory takes 0.4 s
    assert found.layered == pytest.approx(100 * 1.4)  # the convolution's arithmetic, and picture and state
    assert found.unfused == pytest.approx(100 * (1.0 + 1.2))  # the addition is bound by memory
    with_weights = bounds(replace(graph, weight_bytes=200), 100, Peaks(1e3, 1e1, 1e2))
    assert with_weights.fused == pytest.approx(found.fused + 2)


@pytest.mark.skipif(kernels_in_use() is None, reason="no compiled kernels")
def test_compiled_kernels_pass_over_memory_less_often() -> None:
    plain, fused = (count_step(TIERS["fast"], fused=fused) for fused in (False, True))
    assert fused.convolution_flops == plain.convolution_flops
    assert fused.unfused_bytes < 0.4 * plain.unfused_bytes
    assert {"core_input", "warp_bands_2", "rgb_to_bands"} <= {op.name for op in fused.operations}


def test_the_roofline_page_has_tiers_parts_machines_and_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.bench.roofline.ROUNDS", 1)
    page = make_roofline(replace(TINY, precision="fp32"), lambda _: None)
    assert set(page["tiers"]) == set(TIERS)
    for shares in (row["shares"] for row in page["measured"].values()):
        assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    text = roofline_page(page)
    assert bool(kernels_in_use()) == ("→" in text)
    for word in ("| H100 SXM |", "| Jetson AGX Orin 64 GB |", "| noise level |", "datasheet", "| standard |"):
        assert word in text
    json.dumps(page)


# The command


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--models", "slow"], 6, "unknown model 'slow'"),
        (["--backends", "egaer"], 2, "did you mean 'eager'"),
        (["--device", "cuda:99"], 7, "not available"),
        (["--sizes", "big"], 2, "unknown size 'big'"),
        (["--peers", "nlm"], 2, "unknown peer 'nlm'"),
        (["--streams", "1,two"], 2, "not a list of numbers"),
        (["--models", ""], 2, "nothing to measure"),
        (["--roofline", "--models", "fast"], 2, "--models does not go with --roofline"),
        (["--roofline", "--end-to-end"], 2, "--end-to-end does not go with --roofline"),
        (["--roofline", "--sizes", "64x48,96x64"], 2, "a page for one of --sizes"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == code
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_nothing_measured_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--models", "fast", "--device", "cpu", "--backends", "onnxruntime", "--precisions", "bf16"]
    assert main(["bench", *arguments, "--sizes", "64x48", "--threads", "1"]) == 1
    assert "bf16" in capsys.readouterr().out  # the reason


@pytest.mark.slow
def test_the_command_measures_all_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "speed.json"
    arguments = ["--models", "fast", "--device", "cpu", "--backends", "eager", "--sizes", "64x48", "--streams", "1,2",
                 "--threads", "1", "--frames", "5", "--end-to-end", "--peers", "opencv-nlm"]  # fmt: skip
    assert main(["bench", *arguments, "-o", str(out)]) == 0
    found = read_results(out)
    assert [r["streams"] for r in found["cases"]] == [1, 2]
    (run,) = found["end_to_end"]
    assert run["frames"] == 5
    assert set(run["stage_ms"]) >= {"decode", "upload", "denoise", "download", "encode"}
    assert "| whole run |" in out.with_suffix(".md").read_text()
    assert out.with_suffix(".png").exists()
    assert main(["bench", "--compare", str(out), str(out)]) == 0
