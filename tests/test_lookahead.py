"""Looking ahead: a scene's first frames wait for each other, and are as clean as those that follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import vidnoise
from test_denoiser import frames, values
from test_model import TINY
from vidnoise.cli import main
from vidnoise.denoiser import Denoiser
from vidnoise.errors import DeviceError, UsageError
from vidnoise.evaluation.metrics import psnr
from vidnoise.evaluation.protocol import looking_ahead, network_method
from vidnoise.fields import FieldDenoiser
from vidnoise.frame import Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.streams import StreamBatch


@pytest.fixture
def network() -> DenoiseNetwork:
    torch.manual_seed(0)
    return DenoiseNetwork(TINY).eval().requires_grad_(False)


def session(network: DenoiseNetwork, **options: object) -> Denoiser:
    return Denoiser(network, device="cpu", precision="fp32", **{"sigma": 13, **options})  # type: ignore[arg-type]


def test_only_the_first_frames_wait_and_all_come_back_in_order(network: DenoiseNetwork) -> None:
    denoiser = session(network, lookahead=3)
    assert denoiser.latency_frames == 3
    came = [[f.index for f in denoiser.push(frame)] for frame in frames(6)]
    assert came == [[], [], [], [0, 1, 2, 3], [4], [5]]
    assert denoiser.flush() == []


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_a_stream_that_ends_early_is_complete(network: DenoiseNetwork, n: int) -> None:
    denoiser = session(network, lookahead=3)
    assert [f for frame in frames(n) for f in denoiser.push(frame)] == []
    assert [f.pts for f in denoiser.flush()] == list(range(n))


def test_it_is_a_pass_backwards_and_then_one_forwards(network: DenoiseNetwork) -> None:
    stream = frames(6)
    there_and_back = list(session(network)([*reversed(stream[1:4]), *stream]))[3:]
    found = list(session(network, lookahead=3)(iter(stream)))
    for expected, own in zip(there_and_back, found, strict=True):
        torch.testing.assert_close(values(own), values(expected), rtol=0, atol=1e-6)


def scenes(kind: str) -> tuple[list[Frame], list[Frame]]:
    first, second = frames(6), frames(5, *((48, 32) if kind == "size" else ()), seed=9)
    if kind == "cut":
        first = [replace(f, planes=tuple(p * 0.2 for p in f.planes)) for f in first]
    if kind == "discontinuity":
        second[0] = replace(second[0], discontinuity=True)
    return first, second


@pytest.mark.parametrize("length", [2, 6])
@pytest.mark.parametrize("kind", ["cut", "discontinuity", "size"])
def test_every_scene_begins_for_itself(network: DenoiseNetwork, kind: str, length: int) -> None:
    first, second = scenes(kind)
    first = first[:length]  # 2: the scene is over before it is seen in full
    denoiser = session(network, lookahead=3)
    together = list(denoiser([*first, *second]))
    assert denoiser.n_cuts == (kind == "cut")
    apart = [*session(network, lookahead=3)(first), *session(network, lookahead=3)(second)]
    assert [f.pts for f in together] == [f.pts for f in [*first, *second]]
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(values(a), values(b), rtol=0, atol=1e-6)


def test_a_reset_loses_no_frame(network: DenoiseNetwork) -> None:
    denoiser, stream = session(network, lookahead=3), frames(7)
    out = [f for frame in stream[:2] for f in denoiser.push(frame)]
    denoiser.reset()
    out += [*(f for frame in stream[2:] for f in denoiser.push(frame)), *denoiser.flush()]
    assert [f.index for f in out] == list(range(7))
    fresh = list(session(network, lookahead=3)(stream[2:]))
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
        for n in (0, 8)
    )
    assert plain[0] < plain[8:].mean() - 1.5  # what it is for
    assert ahead[0] > plain[0] + 1.5
    assert ahead[0] > ahead[8:].mean() - 0.5
    assert ahead[8:].mean() > plain[8:].mean() - 0.3
    # What `vidnoise evaluate` judges:
    method = looking_ahead(network_method(vidnoise.load_model("fast")[0], blind=True), 8)
    torch.testing.assert_close(psnr(method(noisy, 25 / 255).clamp(0, 1), clean), ahead, rtol=0, atol=0.05)


def test_strength_zero_is_still_the_identity(network: DenoiseNetwork) -> None:
    stream = frames(5)
    for before, after in zip(stream, session(network, strength=0.0, lookahead=2)(stream), strict=True):
        assert torch.equal(values(before), values(after))


def test_where_it_does_not_go(network: DenoiseNetwork) -> None:
    with pytest.raises(UsageError, match="between 0 and 32 frames, got 33"):
        session(network, lookahead=33)
    with pytest.raises(UsageError, match="does not go with max_memory"):
        Denoiser("fast", device="cpu", lookahead=2, max_memory=500)
    with pytest.raises(UsageError, match="cannot look ahead"):
        StreamBatch("fast", device="cpu").open(lookahead=2)


@pytest.mark.parametrize(("lookahead", "advice"), [(0, "try --max-memory"), (1, "try a smaller --lookahead")])
def test_advice_when_memory_runs_out(
    network: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch, lookahead: int, advice: str
) -> None:
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("none")

    denoiser = session(network, lookahead=lookahead)
    monkeypatch.setattr(denoiser.backend, "step", no_memory)
    with pytest.raises(DeviceError, match=advice):
        list(denoiser(frames(2)))


@pytest.mark.parametrize("n", [4, 12])
def test_a_file_keeps_its_frames_and_their_times(tmp_path: Path, n: int) -> None:
    source = "lavfi:testsrc2=size=96x64:rate=25:duration=0.4"
    assert main([source, "-o", str(tmp_path / "a.mkv"), "--model", "fast", "--lookahead", str(n), "-q"]) == 0
    assert main([source, "-o", str(tmp_path / "b.mkv"), "--model", "fast", "-q"]) == 0
    times = []
    for name in "ab":
        with av.open(str(tmp_path / f"{name}.mkv")) as container:
            times.append([frame.time for frame in container.decode(video=0)])
    assert len(times[0]) == 10
    assert times[0] == times[1]


def test_a_stream_that_turns_out_to_be_interlaced_looks_ahead_until_then(network: DenoiseNetwork) -> None:
    stream = [replace(f, interlaced=i >= 2) for i, f in enumerate(frames(5))]
    found, expected = (
        [values(f) for f in FieldDenoiser(session(network, lookahead=n), lambda network: session(network))(part)]
        for n, part in ((4, stream), (0, stream[2:]))
    )
    assert len(found) == 5
    for a, b in zip(found[2:], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    ahead = [values(f) for f in session(network, lookahead=4)(stream[:2])]
    torch.testing.assert_close(found[0], ahead[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("option", "said"),
    [("--interlaced=tff", "is denoised by field, which cannot look ahead yet"), ("--live", "cannot look ahead")],
)
def test_inputs_that_cannot_look_ahead_are_refused(
    clips, tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    output = tmp_path / "out.mkv"
    code = main([str(clips("cfr").path), "-o", str(output), "--lookahead", "4", "--model", "fast", option])
    assert code == 2
    assert said in capfd.readouterr().err
    assert not output.exists()
