"""Looking ahead: frames wait for those after them, and are denoised from both sides."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import vidnoise
from support import tolerances
from support.networks import TINY
from support.streams import frames, moving_scene, values
from vidnoise.backends import window as lookahead
from vidnoise.cli import main
from vidnoise.errors import DeviceError, UsageError
from vidnoise.evaluation.metrics import psnr
from vidnoise.evaluation.protocol import network_method
from vidnoise.frame import Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldDenoiser, fields, weave


@pytest.fixture
def network() -> DenoiseNetwork:
    torch.manual_seed(0)
    return DenoiseNetwork(TINY).eval().requires_grad_(False)


def session(network: DenoiseNetwork, **options: object) -> Denoiser:
    return Denoiser(network, device="cpu", precision="fp32", **{"sigma": 13, **options})  # type: ignore[arg-type]


def test_frames_wait_in_blocks_and_all_come_back_in_order(network: DenoiseNetwork) -> None:
    denoiser = session(network, lookahead=3)
    assert denoiser.latency_frames == 3
    came = [[f.index for f in denoiser.push(frame)] for frame in frames(8)]
    assert came == [[], [], [], [0, 1, 2], [], [], [3, 4, 5], []]
    assert [f.index for f in denoiser.flush()] == [6, 7]


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_a_stream_that_ends_early_is_complete(network: DenoiseNetwork, n: int) -> None:
    denoiser = session(network, lookahead=3)
    assert [f for frame in frames(n) for f in denoiser.push(frame)] == []
    assert [f.pts for f in denoiser.flush()] == list(range(n))


def test_a_frame_depends_on_those_after_it_as_far_as_it_is_said(network: DenoiseNetwork) -> None:
    stream = frames(8)
    other = [*stream[:7], replace(stream[7], planes=tuple(1 - p for p in stream[7].planes))]
    a, b = ([values(f) for f in session(network, lookahead=6, detect_cuts=False)(s)] for s in (stream, other))
    # 0 to 4 went out when 6 had come, two frames after the last of them; 5 and 6 when all had.
    assert [torch.equal(x, y) for x, y in zip(a, b, strict=True)] == [True] * 5 + [False] * 3
    causal = [values(f) for f in session(network, detect_cuts=False)(stream)]
    assert not any(torch.equal(x, y) for x, y in zip(a[:-1], causal[:-1], strict=True))


def test_after_a_drain_the_past_is_still_known(network: DenoiseNetwork) -> None:
    stream = frames(6)
    denoiser = session(network, lookahead=3)
    out = [f for frame in stream[:3] for f in denoiser.push(frame)] + denoiser.drain()
    out += [f for frame in stream[3:] for f in denoiser.push(frame)] + denoiser.flush()
    assert [f.index for f in out] == list(range(6))
    fresh = list(session(network, lookahead=3)(stream[3:]))
    assert not torch.equal(values(out[3]), values(fresh[0]))


def scenes(kind: str) -> tuple[list[Frame], list[Frame]]:
    first, second = frames(6), frames(5, *((48, 32) if kind == "size" else ()), seed=9)
    if kind == "cut":
        first = [replace(f, planes=tuple(p * 0.2 for p in f.planes)) for f in first]
    if kind == "discontinuity":
        second[0] = replace(second[0], discontinuity=True)
    return first, second


@pytest.mark.parametrize("length", [2, 6])
@pytest.mark.parametrize("kind", ["cut", "discontinuity", "size"])
def test_no_frame_is_seen_across_a_cut_from_either_side(network: DenoiseNetwork, kind: str, length: int) -> None:
    first, second = scenes(kind)
    first = first[:length]
    # Far enough for all frames to wait for all others: what is seen does not depend on where blocks begin.
    denoiser = session(network, lookahead=11)
    together = list(denoiser([*first, *second]))
    assert denoiser.n_cuts == (kind == "cut")
    apart = [*session(network, lookahead=11)(first), *session(network, lookahead=11)(second)]
    assert [f.pts for f in together] == [f.pts for f in [*first, *second]]
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(values(a), values(b), rtol=0, atol=1e-6)


def test_a_reset_loses_no_frame(network: DenoiseNetwork) -> None:
    denoiser, stream = session(network, lookahead=3), frames(7)
    out = [f for frame in stream[:2] for f in denoiser.push(frame)]
    denoiser.reset()
    out += [*(f for frame in stream[2:] for f in denoiser.push(frame)), *denoiser.flush()]
    assert [f.index for f in out] == list(range(7))
    assert denoiser.latency_frames == 3
    # All waited for the last one.
    whole = session(network, lookahead=6)
    out = [f for frame in stream[:2] for f in whole.push(frame)]
    whole.reset()
    out += [*(f for frame in stream[2:] for f in whole.push(frame)), *whole.flush()]
    fresh = list(session(network, lookahead=6)(stream[2:]))
    torch.testing.assert_close(values(out[2]), values(fresh[0]), rtol=0, atol=1e-6)


def test_frames_may_be_overwritten_after_they_were_pushed(network: DenoiseNetwork) -> None:
    expected = list(session(network, lookahead=2)(frames(4)))
    denoiser, out = session(network, lookahead=2), []
    for frame in frames(4):
        out += denoiser.push(frame)
        for plane in frame.planes:
            plane.fill_(7.0)
    for a, b in zip([*out, *denoiser.flush()], expected, strict=True):
        assert torch.equal(values(a), values(b))


def test_the_first_frame_is_as_clean_as_a_later_one() -> None:
    rng = np.random.default_rng(1)
    blobs = torch.from_numpy(rng.random((1, 3, 8, 10), np.float32))
    scene = torch.nn.functional.interpolate(blobs, size=(96, 144), mode="bicubic")[0].clamp(0, 1)
    clean = torch.stack([scene[:, :, t : t + 128] for t in range(12)])
    noisy = clean + 25 / 255 * torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
    plain, ahead = (
        psnr(torch.stack(list(vidnoise.denoise(noisy, model="fast", device="cpu", lookahead=n))).clamp(0, 1), clean)
        for n in (0, 11)
    )
    assert plain[0] < plain[8:].mean() - 1.5  # what it is for
    assert ahead[0] > plain[0] + 1.5
    assert ahead[0] > ahead[4:8].mean() - 1.2  # which are seen from both sides
    assert ahead.mean() > plain.mean() + 0.4
    assert (ahead[:-1] > plain[:-1]).all()
    assert ahead[-1] > plain[-1] - 0.5  # there is nothing after it
    # What `vidnoise evaluate` judges:
    method = network_method(vidnoise.load_model("fast").network, blind=True, lookahead=11)
    torch.testing.assert_close(psnr(method(noisy, 25 / 255).clamp(0, 1), clean), ahead, rtol=0, atol=0.05)


def test_it_hardly_matters_where_blocks_begin() -> None:
    """Of a longer stream, seen from its third frame on: the same frames, in other blocks, with less of a past."""
    noisy = torch.stack(moving_scene(1, 20, 1))[:, :, :64, :96]
    a, b = (list(vidnoise.denoise(part, model="fast", device="cpu", lookahead=6)) for part in (noisy, noisy[2:]))
    apart = torch.stack([(x - y).square().mean().sqrt() for x, y in zip(a[2:], b, strict=True)]) * 255
    assert apart[10:].max() < tolerances.OTHER_BLOCKS


def test_strength_zero_is_still_the_identity(network: DenoiseNetwork) -> None:
    stream = frames(5)
    for before, after in zip(stream, session(network, strength=0.0, lookahead=2)(stream), strict=True):
        assert torch.equal(values(before), values(after))


def test_where_it_does_not_go(network: DenoiseNetwork) -> None:
    with pytest.raises(UsageError, match="between 0 and 32 frames, got 33"):
        session(network, lookahead=33)


@pytest.mark.parametrize(("lookahead", "advice"), [(0, "try max_memory=MB"), (1, "try a smaller lookahead")])
def test_advice_when_memory_runs_out(
    network: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch, lookahead: int, advice: str
) -> None:
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("none")

    denoiser = session(network, lookahead=lookahead)
    monkeypatch.setattr(denoiser.backend, "smooth" if lookahead else "step", no_memory)
    with pytest.raises(DeviceError, match=advice):
        list(denoiser(frames(2)))


@pytest.mark.parametrize("n", [4, 12])
def test_a_file_keeps_its_frames_and_their_times(tmp_path: Path, n: int) -> None:
    source = "lavfi:testsrc2=size=96x64:rate=25:duration=0.4"
    assert main([source, "-o", str(tmp_path / "a.mkv"), "--model", "fast", "--lookahead", str(n), "-q"]) == 0
    assert main([source, "-o", str(tmp_path / "b.mkv"), "--model", "fast", "--lookahead", "0", "-q"]) == 0
    times = []
    for name in "ab":
        with av.open(str(tmp_path / f"{name}.mkv")) as container:
            times.append([frame.time for frame in container.decode(video=0)])
    assert len(times[0]) == 10
    assert times[0] == times[1]


def test_fields_look_ahead_each_on_its_own(network: DenoiseNetwork) -> None:
    """A stream that turns from whole frames to interlaced ones, and back."""
    stream = [replace(f, interlaced=2 <= i < 7) for i, f in enumerate(frames(9))]
    field = FieldDenoiser(session(network, lookahead=3), lambda network: session(network, lookahead=3))
    found = list(field(stream))
    assert [f.index for f in found] == list(range(9))
    tops, bottoms = zip(*(fields(f) for f in stream[2:7]), strict=True)
    clean = zip(*(session(network, lookahead=3)(part) for part in (tops, bottoms)), strict=True)
    for a, frame, (top, bottom) in zip(found[2:7], stream[2:7], clean, strict=True):
        torch.testing.assert_close(values(a), values(weave(frame, top, bottom)), rtol=0, atol=1e-6)
    alone = [values(f) for f in session(network, lookahead=3)(stream[:2])]
    torch.testing.assert_close(values(found[0]), alone[0], rtol=0, atol=1e-6)


def test_zones_and_masks_belong_to_their_frames(network: DenoiseNetwork) -> None:
    stream = frames(8)
    mask = np.zeros((32, 48), np.uint8)
    mask[:, :20] = 255
    zone = f"0-{float(4 * stream[0].time_base)}:0"
    found = list(session(network, lookahead=3, zones=zone, mask=mask)(stream))
    for i, (before, after) in enumerate(zip(stream, found, strict=True)):
        changed = (values(before) != values(after)).any(0)
        assert not changed[:, 20:].any()
        assert changed[:, :20].any() == (i >= 4)


def test_how_far_files_and_live_streams_look(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    monkeypatch.setattr(lookahead, "free_bytes", lambda _: 8 << 30)
    assert lookahead.choose_lookahead((1920, 1080), cpu) == lookahead.AUTO_LOOKAHEAD
    assert 0 < lookahead.choose_lookahead((7680, 4320), cpu) < lookahead.AUTO_LOOKAHEAD
    assert lookahead.choose_lookahead((30000, 20000), cpu) == 0
    assert lookahead.choose_lookahead((1920, 1080), cpu, max_memory=2000) == 4
    live = {"rate": Fraction(25), "max_latency_ms": 500}
    assert lookahead.choose_lookahead((640, 480), cpu, **live) == 0
    assert lookahead.choose_lookahead((640, 480), gpu, **live) == 3
    assert lookahead.choose_lookahead((640, 480), gpu, rate=Fraction(25), max_latency_ms=200) == 1
    assert lookahead.choose_lookahead((640, 480), gpu, rate=Fraction(25), max_latency_ms=100) == 0
    assert lookahead.free_bytes(cpu) > 1 << 20


@pytest.mark.parametrize("option", ["--lookahead=33", "--lookahead=far", "--lookahead=-1"])
def test_a_lookahead_that_is_none_is_refused(
    clips, tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str
) -> None:
    output = tmp_path / "out.mkv"
    assert main([str(clips("cfr").path), "-o", str(output), option]) == 2
    assert "must be auto, or between 0 and 32 frames" in capfd.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("option", ["--interlaced=tff", "--live"])
def test_inputs_of_every_kind_may_look_ahead(clips, tmp_path: Path, option: str) -> None:
    source, output = clips("cfr"), tmp_path / "out.mkv"
    assert main([str(source.path), "-o", str(output), "--lookahead", "2", "--model", "fast", "-q", option]) == 0
    with av.open(str(output)) as container, av.open(str(source.path)) as given:
        n_out, n_in = (len(list(c.decode(video=0))) for c in (container, given))
    assert 0 < n_out <= n_in
    assert n_out == n_in or option == "--live"  # which may drop some
