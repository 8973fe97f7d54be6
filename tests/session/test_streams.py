"""Several streams through one network: what comes out is what each stream alone gives."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import vidnoise
from support import tolerances
from support.graphs import RecordedGraphs
from support.paths import ROOT
from support.streams import frames, moving_scene, values
from vidnoise.backends.cuda_graph import CudaGraph
from vidnoise.errors import DeviceError, FormatError, UsageError
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.model import Denoised, DenoiseNetwork, State
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.stream_batch import StreamBatch
from vidnoise.weights import load_model

RGB = PIXEL_FORMATS["gbrpf32le"]


@pytest.fixture
def network() -> DenoiseNetwork:
    """A trained one: what an untrained one makes of motion blows rounding errors up from frame to frame."""
    return load_model("fast").network


def batch_of(network: DenoiseNetwork) -> StreamBatch:
    return StreamBatch(network, device="cpu", precision="fp32", backend="eager")


def alone(network: DenoiseNetwork, stream: list[Frame], **options: object) -> list[torch.Tensor]:
    denoiser = Denoiser(network, device="cpu", precision="fp32", backend="eager", **options)  # type: ignore[arg-type]
    return [values(f) for f in denoiser(stream)]


def together(
    batch: StreamBatch, streams: list[list[Frame | None]], options: list[dict[str, object]]
) -> list[list[torch.Tensor]]:
    """All streams round by round; where a stream has None, it pauses."""
    sessions = [batch.open(**o) for o in options]
    out: list[list[torch.Tensor]] = [[] for _ in streams]
    for round_ in zip(*streams, strict=True):
        pushed = {s: f for s, f in zip(sessions, round_, strict=True) if f is not None}
        clean = batch.push(pushed)
        assert list(clean) == list(pushed)
        for i, session in enumerate(sessions):
            if session in clean:
                out[i] += map(values, clean[session])
    for i, session in enumerate(sessions):
        out[i] += map(values, batch.close(session))
    return out


def assert_same(batched: list[torch.Tensor], single: list[torch.Tensor]) -> None:
    assert len(batched) == len(single)
    for a, b in zip(batched, single, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerances.BATCHED_STREAMS)


def scene(seeds: list[int], n: int = 3) -> list[Frame]:
    """A shot of ``n`` frames for each seed, with hard cuts between them."""
    pictures = [p[:, :64, :96] for seed in seeds for p in moving_scene(seed, n, 2)]
    return [Frame(tuple(p), RGB, index=i) for i, p in enumerate(pictures)]


def test_streams_of_one_kind_are_as_alone_and_take_one_step(network: DenoiseNetwork) -> None:
    streams = [frames(5, seed=s) for s in (1, 2, 3)]
    batch = batch_of(network)
    steps = count_steps(batch)
    for a, stream in zip(together(batch, streams, [{}] * 3), streams, strict=True):
        assert_same(a, alone(network, stream))
    assert steps == [3] * 5


def count_steps(batch: StreamBatch) -> list[int]:
    """The number of streams in each step that the batch takes from now on."""
    sizes: list[int] = []
    step = batch.backend.step

    def counting(noisy: torch.Tensor, *rest: object) -> Denoised:
        sizes.append(len(noisy))
        return step(noisy, *rest)  # type: ignore[arg-type]

    batch.backend.step = counting  # type: ignore[method-assign]
    return sizes


def count_states(batch: StreamBatch) -> list[int]:
    """The number of streams of each state that the batch asks for from now on."""
    made: list[int] = []
    initial_state = batch.backend.initial_state

    def counting(n: int, height: int, width: int) -> State:
        made.append(n)
        return initial_state(n, height, width)

    batch.backend.initial_state = counting  # type: ignore[method-assign]
    return made


def test_the_streams_differ(network: DenoiseNetwork) -> None:
    """Or else the comparisons here would prove nothing: a neighbour's past changes what comes out."""
    a, b = frames(3, seed=1), frames(3, seed=2)
    mixed = alone(network, [b[0], b[1], a[2]])[2]
    assert (mixed - alone(network, a)[2]).abs().max() > 10 * tolerances.BATCHED_STREAMS


def test_levels_and_strengths_of_their_own(network: DenoiseNetwork) -> None:
    options: list[dict[str, object]] = [
        {"sigma": 10}, {"sigma": 40, "strength": 1.7}, {}, {"sigma": 25, "luma": 0.3}, {"strength": 0.0},
    ]  # fmt: skip
    streams = [frames(4, seed=s) for s in range(len(options))]
    batch = batch_of(network)
    steps = count_steps(batch)
    for a, stream, o in zip(together(batch, streams, options), streams, options, strict=True):
        assert_same(a, alone(network, stream, **o))
    assert steps == [3, 2] * 4  # told and unknown apart


def test_each_session_reports_its_own_level(network: DenoiseNetwork) -> None:
    batch = batch_of(network)
    a, b, c = batch.open(sigma=10), batch.open(sigma=40), batch.open()
    batch.push({s: frames(1, seed=i)[0] for i, s in enumerate((a, b, c))})
    assert a.estimated_sigma == pytest.approx(10, abs=0.1)
    assert b.estimated_sigma == pytest.approx(40, abs=0.1)
    single = Denoiser(network, device="cpu", precision="fp32", backend="eager")
    single.push(frames(1, seed=2)[0])
    assert c.estimated_sigma == pytest.approx(single.estimated_sigma, rel=1e-4)


def test_cuts_of_one_stream_leave_the_others_alone(network: DenoiseNetwork) -> None:
    streams = [scene([1, 2]), scene([3], 6), scene([4, 5, 6], 2)]
    batch = batch_of(network)
    sessions = [batch.open(sigma=25) for _ in streams]
    out: list[list[torch.Tensor]] = [[] for _ in streams]
    for round_ in zip(*streams, strict=True):
        for i, clean in enumerate(batch.push(dict(zip(sessions, round_, strict=True))).values()):
            out[i] += map(values, clean)
    assert [s.n_cuts for s in sessions] == [1, 0, 2]
    for a, stream in zip(out, streams, strict=True):
        assert_same(a, alone(network, stream, sigma=25))


def test_resets_and_discontinuities(network: DenoiseNetwork) -> None:
    a, b = frames(6, seed=1), frames(6, seed=2)
    batch = batch_of(network)
    first, second = batch.open(), batch.open()
    out = []
    for i in range(6):
        if i == 3:
            first.reset()
        jump = replace(b[i], discontinuity=i == 4)
        out.append([values(f) for (f,) in batch.push({first: a[i], second: jump}).values()])
    assert_same([o[0] for o in out], alone(network, a[:3]) + alone(network, a[3:]))
    assert_same([o[1] for o in out], alone(network, b[:4]) + alone(network, b[4:]))


def test_streams_that_join_late_end_early_and_pause(network: DenoiseNetwork) -> None:
    a, b, c = (frames(7, seed=s) for s in (1, 2, 3))
    streams: list[list[Frame | None]] = [
        [*a],
        [None, None, *b[:3], None, None],  # comes late, goes early
        [c[0], c[1], None, None, c[2], None, c[3]],  # pauses
    ]
    whole, short, pausing = together(batch_of(network), streams, [{}] * 3)
    assert_same(whole, alone(network, a))
    assert_same(short, alone(network, b[:3]))
    assert_same(pausing, alone(network, c[:4]))


def test_sizes_go_apart_and_may_change(network: DenoiseNetwork) -> None:
    small, large = frames(5, 32, 48, seed=1), frames(5, 33, 47, seed=2)  # the second is padded to 48x48
    changing = [*frames(2, 32, 48, seed=3), *frames(3, 33, 47, seed=4)]
    batch = batch_of(network)
    steps = count_steps(batch)
    out = together(batch, [small, large, changing], [{}] * 3)
    for a, stream in zip(out, (small, large, changing), strict=True):
        assert_same(a, alone(network, stream))
    assert steps == [2, 1, 2, 1, 1, 2, 1, 2, 1, 2]


def test_formats_may_differ_within_a_step(network: DenoiseNetwork) -> None:
    yuv = PIXEL_FORMATS["yuv420p"]
    shapes = [yuv.plane_shape(k, 32, 48) for k in range(3)]
    generator = torch.Generator().manual_seed(0)
    scene = [F.interpolate(torch.rand(1, 1, 4, 6, generator=generator), size=s, mode="bicubic")[0, 0] for s in shapes]
    stream = [
        Frame(tuple((60 + 120 * p + 10 * torch.rand(p.shape, generator=generator)).to(torch.uint8) for p in scene), yuv,
              index=i) for i in range(3)
    ]  # fmt: skip
    batch = batch_of(network)
    steps = count_steps(batch)
    first, second = batch.open(), batch.open()
    out = [batch.push({first: x, second: y}) for x, y in zip(stream, frames(3), strict=True)]
    assert steps == [2, 2, 2]
    single = Denoiser(network, device="cpu", precision="fp32", backend="eager")
    for clean, frame in zip(out, stream, strict=True):
        for a, b in zip(clean[first][0].planes, single.push(frame)[0].planes, strict=True):
            assert (a.int() - b.int()).abs().max() <= 1  # rounded to codes after a difference in the last bits
    assert_same([values(o[second][0]) for o in out], alone(network, frames(3)))


def test_nothing_is_copied_while_the_streams_stay_the_same(network: DenoiseNetwork) -> None:
    batch = batch_of(network)
    made = count_states(batch)
    together(batch, [frames(6, seed=1), frames(6, seed=2)], [{}] * 2)
    assert made == [2]


PAUSES: list[list[int]] = [[0, 1, 2, 3, 4, 5], [0, 1, 3, 5], [1, 2, 3, 4, 5]]
"""Rounds in which each of three streams has a frame: the second pauses twice, the third comes late."""


def pausing(streams: list[list[Frame]]) -> list[list[Frame | None]]:
    return [[s.pop(0) if i in rounds else None for i in range(6)]
            for s, rounds in zip([list(s) for s in streams], PAUSES, strict=True)]  # fmt: skip


def test_a_stream_that_pauses_costs_no_new_state_each_time(network: DenoiseNetwork) -> None:
    streams = [frames(len(rounds), seed=s) for s, rounds in enumerate(PAUSES)]
    batch = batch_of(network)
    made = count_states(batch)
    for a, stream in zip(together(batch, pausing(streams), [{}] * 3), streams, strict=True):
        assert_same(a, alone(network, stream))
    assert made == [2, 3]


def test_streams_share_recorded_graphs(network: DenoiseNetwork) -> None:
    """Static buffers are what a mistake with rows and spare states would show on."""
    streams = [frames(len(rounds), seed=s) for s, rounds in enumerate(PAUSES)]
    graphs = RecordedGraphs()
    backend = CudaGraph(network, device=torch.device("cpu"), dtype=torch.float32, graphs=graphs)
    batch = StreamBatch(network, device="cpu", precision="fp32", backend=backend)
    for a, stream in zip(together(batch, pausing(streams), [{}] * 3), streams, strict=True):
        assert_same(a, alone(network, stream))
    assert graphs.n_recorded == 2  # for two streams and for three
    assert graphs.n_replayed == 6


def test_a_closed_stream_frees_its_place(network: DenoiseNetwork, tmp_path) -> None:
    batch = batch_of(network)
    first, second = batch.open(grain_table=str(tmp_path / "a.tbl")), batch.open()
    batch.push({first: frames(1)[0], second: frames(1)[0]})
    batch.close(first)
    assert (tmp_path / "a.tbl").exists()
    assert len(batch._joints) == 1
    batch.close(second)
    assert not batch._joints


def test_out_of_memory_is_told_and_the_streams_go_on(network: DenoiseNetwork) -> None:
    a, b = frames(3, seed=1), frames(3, seed=2)
    batch = batch_of(network)
    first, second = batch.open(detect_cuts=False), batch.open(detect_cuts=False)
    out = [batch.push({first: a[0], second: b[0]})]
    step = batch.backend.step

    def failing(*_: object) -> Denoised:
        raise torch.OutOfMemoryError("no")

    batch.backend.step = failing  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="2 streams of 48x32"):
        batch.push({first: a[1], second: b[1]})
    batch.backend.step = step  # type: ignore[method-assign]
    out += [batch.push({first: a[i], second: b[i]}) for i in (1, 2)]
    assert_same([values(o[first][0]) for o in out], alone(network, a))
    assert_same([values(o[second][0]) for o in out], alone(network, b))


def test_mistakes_are_refused(network: DenoiseNetwork) -> None:
    batch = batch_of(network)
    with pytest.raises(UsageError, match="share"):
        batch.open(device="cpu")
    with pytest.raises(UsageError, match="sigma"):
        batch.open(sigma=300)
    with pytest.raises(UsageError, match="not opened by this"):
        batch.push({Denoiser(network, device="cpu"): frames(1)[0]})
    with pytest.raises(FormatError, match="Frames"):
        batch.push({batch.open(): torch.zeros(3)})  # type: ignore[dict-item]
    assert batch.push({}) == {}


def test_streams_that_look_ahead_beside_others(network: DenoiseNetwork) -> None:
    streams = [frames(7, seed=s) for s in (1, 2, 3)]
    options: list[dict[str, object]] = [{"lookahead": 3}, {}, {"lookahead": 2, "sigma": 20}]
    for a, stream, o in zip(together(batch_of(network), streams, options), streams, options, strict=True):
        assert_same(a, alone(network, stream, **o))


def test_levels_go_to_the_device_when_they_change(network: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, numbers that go there are waited for."""
    batch = StreamBatch(network, device="cpu", precision="fp32", backend="eager")
    sessions = [batch.open(sigma=20, strength=1.5), batch.open(sigma=25)]
    stream = frames(3)
    batch.push(dict.fromkeys(sessions, stream[0]))
    made: list[Any] = []
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *given, **options: made.append(given) or tensor(*given, **options))
    batch.push(dict.fromkeys(sessions, stream[1]))
    assert not made
    sessions[1].sigma = 30
    batch.push(dict.fromkeys(sessions, stream[2]))
    (((levels,),),) = made
    assert levels == pytest.approx([30 / 255] * 6)


@pytest.mark.needs_cuda
def test_streams_on_a_gpu_are_as_alone_and_come_back(network: DenoiseNetwork) -> None:
    streams = [frames(4, seed=s) for s in (1, 2, 3)]
    batch = StreamBatch(network, device="cuda", precision="fp32", backend="eager")
    out = together(batch, streams, [{"sigma": 13}] * 3)
    assert out[0][0].device.type == "cpu"
    for a, stream in zip(out, streams, strict=True):
        single = Denoiser(network, sigma=13, device="cuda", precision="fp32", backend="eager")
        there = [replace(f, planes=tuple(p.cuda() for p in f.planes)) for f in stream]
        for x, y in zip(a, single(there), strict=True):
            torch.testing.assert_close(x, values(y).cpu(), rtol=0, atol=tolerances.BATCHED_STREAMS_CUDA)


def test_the_example_of_the_documents_runs(clips, tmp_path, monkeypatch) -> None:
    """docs/SERVER.md as it stands, on two clips of different length."""
    text = (ROOT / "docs" / "SERVER.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    cfr, vfr = clips("cfr"), clips("vfr")
    for clip, name in ((cfr, "door.mp4"), (vfr, "yard.mp4")):
        shutil.copy(clip.path, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/SERVER.md", "exec"), {})
    for clip, name in ((cfr, "door-clean.mp4"), (vfr, "yard-clean.mp4")):
        before, after = (list(vidnoise.open_source(str(p))) for p in (clip.path, tmp_path / name))
        assert [float(f.pts * f.time_base) for f in after] == [float(f.pts * f.time_base) for f in before]
        assert not torch.equal(after[-1].planes[0], before[-1].planes[0])
