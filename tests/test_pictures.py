"""Pictures of every kind, through denoise, Denoiser and StreamBatch; sigma by frame and by place; what may be set."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import vidnoise
from support.graphs import RecordedGraphs
from support.pictures import KINDS_OF_PICTURES, arrays, av_frame, our_frame, tensor
from vidnoise import Denoiser, StreamBatch
from vidnoise.backends.cuda_graph import CudaGraph
from vidnoise.backends.exported import Exported
from vidnoise.errors import FormatError, UsageError
from vidnoise.export.graph import KINDS, NetworkGraph

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def options(tiny_model: str) -> dict[str, Any]:
    return {"model": vidnoise.load_model(tiny_model), "device": "cpu", "precision": "fp32", "backend": "eager"}


def pushed(pictures: list[Any], **options: Any) -> list[Any]:
    denoiser = Denoiser(**options)
    return [clean for picture in pictures for clean in denoiser.push(picture)] + denoiser.flush()


def batched(pictures: list[Any], *, lookahead: int = 0, sigma: Any = None, **options: Any) -> list[Any]:
    batch = StreamBatch(**options)
    session, _ = batch.open(lookahead=lookahead, sigma=sigma), batch.open()
    return [clean for picture in pictures for clean in batch.push({session: picture})[session]] + batch.close(session)


def denoised(pictures: list[Any], **options: Any) -> list[Any]:
    return list(vidnoise.denoise(pictures, **options))


WAYS = {"denoise": denoised, "push": pushed, "batch": batched}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS_OF_PICTURES)
@pytest.mark.parametrize("lookahead", [0, 2])
def test_every_kind_comes_back_as_it_was_and_alike(
    options: dict[str, Any], way: str, kind: str, lookahead: int
) -> None:
    make, back = KINDS_OF_PICTURES[kind]
    given = [make(a) for a in arrays()]
    clean = WAYS[way](given, lookahead=lookahead, **options)
    expected = denoised(arrays(), lookahead=lookahead, **options)
    assert [type(c) for c in clean] == [type(g) for g in given]
    for picture, array, noisy in zip(clean, expected, arrays(), strict=True):
        assert np.array_equal(back(picture), array)
        assert not np.array_equal(array, noisy)


def test_what_a_picture_says_beside_its_samples_stays(options: dict[str, Any]) -> None:
    (clean,) = pushed([av_frame(arrays(1)[0])], **options)
    assert (clean.pts, clean.time_base) == (7, Fraction(1, 25))
    image = Image.fromarray(arrays(1)[0])
    image.info["icc_profile"] = b"profile"
    (clean,) = pushed([image], **options)
    assert clean.info == {"icc_profile": b"profile"}


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_pil_modes_stay(options: dict[str, Any], mode: str) -> None:
    array = arrays(1, (32, 48))[0]
    image = {"RGB": lambda: Image.fromarray(arrays(1)[0]), "L": lambda: Image.fromarray(array),
             "I;16": lambda: Image.fromarray(array.astype(np.uint16) * 257)}[mode]()  # fmt: skip
    assert image.mode == mode
    (clean,) = pushed([image], **options)
    (same,) = pushed([image], strength=0, **options)
    assert (clean.mode, clean.size) == (mode, image.size)
    assert np.array_equal(np.asarray(same), np.asarray(image))


@pytest.mark.parametrize("mode", ["RGBA", "P", "F", "CMYK"])
def test_other_pil_modes_are_refused_with_the_way_out(options: dict[str, Any], mode: str) -> None:
    with pytest.raises(FormatError, match=rf"mode {mode}.*convert\(\"RGB\"\)"):
        pushed([Image.new(mode, (48, 32))], **options)


@pytest.mark.slow
def test_pil_is_not_imported_for_others() -> None:
    code = (
        "import sys, numpy, vidnoise; list(vidnoise.denoise([numpy.zeros((16, 16, 3), 'uint8')], model='fast'));"
        "assert 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


# --- what only looks like a video -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "one",
    [
        np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.uint8), np.zeros((32, 48, 4), np.uint8),
        np.zeros((32, 48, 1), np.uint8), torch.zeros(3, 32, 48), torch.zeros(32, 48), Image.new("RGB", (48, 32)),
        av_frame(np.zeros((32, 48, 3), np.uint8)), our_frame(np.zeros((32, 48, 3), np.uint8)), None,
    ],
    ids=lambda one: f"{type(one).__name__} {getattr(one, 'shape', '')}",
)  # fmt: skip
def test_one_picture_is_no_video(options: dict[str, Any], one: Any) -> None:
    with pytest.raises(FormatError, match=r"denoise\(\[frame\]\), or denoise_image\(frame\)"):
        vidnoise.denoise(one, **options)
    with pytest.raises(FormatError, match="where a video is wanted"):
        list(Denoiser(**options)(one))


@pytest.mark.parametrize("name", ["a.mp4", b"a.mp4"])
def test_the_name_of_a_file_is_no_video(options: dict[str, Any], name: Any) -> None:
    with pytest.raises(FormatError, match=r"denoise_file\(src, dst\)"):
        vidnoise.denoise(name, **options)


def test_arrays_of_frames_are_videos(options: dict[str, Any]) -> None:
    stack = np.stack(arrays())
    for a, b in zip(vidnoise.denoise(stack, **options), denoised(arrays(), **options), strict=True):
        assert np.array_equal(a, b)
    gray = np.stack(arrays(shape=(32, 48)))
    assert [c.shape for c in vidnoise.denoise(gray, **options)] == [(32, 48)] * 3
    planar = torch.stack([tensor(a) for a in arrays()])
    assert [tuple(c.shape) for c in vidnoise.denoise(planar, **options)] == [(3, 32, 48)] * 3


@pytest.mark.parametrize("make", [np.float32, lambda a: torch.from_numpy(a.astype(np.float32)).permute(2, 0, 1)])
@pytest.mark.parametrize("white", [255, 65535])
def test_floats_whose_white_is_not_one_are_refused(options: dict[str, Any], make: Any, white: int) -> None:
    with pytest.raises(FormatError, match="white at 1: divide"):
        pushed([make(arrays(1)[0] * (white / 255))], **options)


def test_floats_somewhat_above_one_are_highlights(options: dict[str, Any]) -> None:
    hdr = [np.float32(a / 255 * 4) for a in arrays()]
    hdr[0][0, 0] = np.inf
    assert hdr[1].max() > 2
    clean = pushed(hdr, **options)
    assert clean[1].max() > 2
    # Judged once: a spark in a later picture is no other scale.
    hdr[2][5, 5] = 20
    pushed(hdr, **options)


# --- the order of channels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("sigma", [None, 15])
def test_bgr_is_as_converted_by_hand(options: dict[str, Any], way: str, dtype: Any, sigma: float | None) -> None:
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    rgb = [(a.astype(float) * scale).astype(dtype) for a in arrays()]
    bgr = [np.ascontiguousarray(a[..., ::-1]) for a in rgb]
    by_hand = [a[..., ::-1] for a in WAYS[way](rgb, sigma=sigma, **options)]
    for a, b in zip(WAYS[way](bgr, sigma=sigma, order="bgr", **options), by_hand, strict=True):
        assert np.array_equal(a, b)
        assert a.flags.c_contiguous
    assert not np.array_equal(WAYS[way](bgr, sigma=sigma, **options)[-1], by_hand[-1])  # luma is weighed otherwise


def test_bgr_tensors_and_pictures_that_say_their_order(options: dict[str, Any]) -> None:
    bgr = [tensor(a).flip(0) for a in arrays()]
    for a, b in zip(pushed(bgr, order="bgr", **options), pushed(arrays(), **options), strict=True):
        assert torch.equal(a.flip(0), tensor(b))
    (a,), (b,) = (pushed([Image.fromarray(arrays(1)[0])], order=order, **options) for order in ("rgb", "bgr"))
    assert np.array_equal(a, b)


def test_another_order_is_refused(options: dict[str, Any]) -> None:
    for make in (lambda **more: vidnoise.denoise([], **more), Denoiser, StreamBatch):
        with pytest.raises(UsageError, match="order must be rgb or bgr, got 'BGR'") as caught:
            make(order="BGR", **options)
        assert caught.value.option == "order"


# --- the noise level, told by frame and by place ----------------------------------------------------------------------


def test_sigma_of_each_frame(options: dict[str, Any]) -> None:
    levels = [5, 20, 40]
    by_push, by_setting = Denoiser(**options), Denoiser(**options)
    for array, sigma in zip(arrays(), levels, strict=True):
        (a,) = by_push.push(array, sigma=sigma)
        by_setting.sigma = sigma
        (b,) = by_setting.push(array)
        assert np.array_equal(a, b)
        assert by_push.estimated_sigma == by_setting.estimated_sigma == by_setting.sigma == sigma
    assert by_push.sigma is None
    assert not np.array_equal(a, pushed(arrays(), sigma=5, **options)[-1])


@pytest.mark.parametrize("lookahead", [0, 2])
def test_what_was_measured_before_sigma_was_told_is_forgotten(options: dict[str, Any], lookahead: int) -> None:
    """It is of long ago: measured afterwards is as measured from the start of a stream."""
    dark, bright = arrays(2, seed=1), [255 - a for a in arrays(2, seed=2)]
    levels = []
    for sigma in (None, 20):
        denoiser = Denoiser(lookahead=lookahead, detect_cuts=False, **options)
        denoiser.push(dark[0], sigma=sigma)
        denoiser.push(dark[1], sigma=20)
        denoiser.push(bright[0])
        denoiser.flush()
        levels.append(denoiser.estimated_sigma)
    assert levels[0] == levels[1]


def step_map() -> np.ndarray:
    """Little noise at the left, much at the right."""
    sigma = np.full((32, 48), 5, np.float32)
    sigma[:, 24:] = 40
    return sigma


def backends(network: Any) -> dict[str, Any]:
    class Plain(Exported):
        """Runs graphs without exporting them."""

        name = "plain"

        def _run(self, kind: str, size: Any, inputs: dict[str, torch.Tensor]) -> Any:
            return NetworkGraph(self._network, kind)(*(inputs[name] for name in KINDS[kind].inputs))

    device = torch.device("cpu")
    graph = CudaGraph(network, device=device, dtype=torch.float32, graphs=RecordedGraphs())
    return {"eager": "eager", "exported": Plain(network, device), "cuda-graph": graph}


@pytest.mark.parametrize("backend", ["eager", "exported", "cuda-graph"])
@pytest.mark.parametrize("lookahead", [0, 2])
def test_a_map_of_one_value_is_that_value(options: dict[str, Any], backend: str, lookahead: int) -> None:
    model = vidnoise.load_model("fast")  # a trained one: rounding alone moves what an untrained one takes for motion
    options = {**options, "model": model, "backend": backends(model.network)[backend]}
    uniform = pushed(arrays(5), sigma=np.full((32, 48), 20, np.uint8), lookahead=lookahead, **options)
    number = pushed(arrays(5), sigma=20, lookahead=lookahead, **options)
    for a, b in zip(uniform, number, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize("make", [lambda a: a, torch.from_numpy, lambda a: a.astype(np.float64)])
def test_a_map_says_it_by_place(options: dict[str, Any], make: Any) -> None:
    """Each side as with its own number, away from the border, on a first picture."""
    noisy = arrays(1, (64, 192))
    sigma = np.repeat([[5.0] * 96 + [40.0] * 96], 64, axis=0).astype(np.float32)
    (mixed,) = pushed(noisy, sigma=make(sigma), **options)
    (low,), (high,) = pushed(noisy, sigma=5, **options), pushed(noisy, sigma=40, **options)
    assert np.array_equal(mixed[:, :40], low[:, :40])
    assert np.array_equal(mixed[:, -40:], high[:, -40:])
    assert not np.array_equal(low[:, :40], high[:, :40])


def test_maps_in_every_way_and_format(options: dict[str, Any]) -> None:
    by_option = pushed(arrays(), sigma=step_map(), **options)
    denoiser = Denoiser(**options)
    for array, expected in zip(arrays(), by_option, strict=True):
        assert np.array_equal(denoiser.push(array, sigma=step_map())[0], expected)
    assert denoiser.estimated_sigma == pytest.approx(22.5)
    for a, b in zip(denoised(arrays(), sigma=step_map(), **options), by_option, strict=True):
        assert np.array_equal(a, b)
    batch = StreamBatch(**options)
    told, mapped, blind = batch.open(sigma=20), batch.open(sigma=step_map()), batch.open()
    for array, expected in zip(arrays(), by_option, strict=True):
        clean = batch.push({told: array, mapped: array, blind: array})
        assert np.abs(clean[mapped][0].astype(int) - expected).max() <= 1
    video = av_frame(arrays(1, (33, 47, 3))[0]).reformat(format="yuv420p")
    assert pushed([video], sigma=np.full((33, 47), 9.0), **options)[0].format.name == "yuv420p"


def test_a_map_that_was_set_is_a_copy(options: dict[str, Any]) -> None:
    sigma = step_map()
    denoiser = Denoiser(sigma=sigma, **options)
    sigma[:] = 0
    assert np.array_equal(denoiser.push(arrays(1)[0])[0], pushed(arrays(1), sigma=step_map(), **options)[0])


@pytest.mark.parametrize(
    ("sigma", "says"),
    [
        (-1, "between 0 and 255"), (np.full((32, 48), 256.0), "got 256 to 256"), (np.full((32, 48), np.nan), "between"),
        (np.zeros((0, 48)), "empty"), (np.ones((48, 32)), "is a map of 32x48, but the frame is 48x32"),
        (np.ones((32, 48, 3)), r"\(H, W\) map, got \(32, 48, 3\)"),
    ],
)  # fmt: skip
def test_a_sigma_that_cannot_be_is_refused(options: dict[str, Any], sigma: Any, says: str) -> None:
    denoiser = Denoiser(**options)
    with pytest.raises(UsageError, match=says) as caught:
        denoiser.push(arrays(1)[0], sigma=sigma)
    assert caught.value.option == "sigma"
    with pytest.raises(UsageError, match=says):
        pushed(arrays(1), sigma=sigma, **options)
    assert denoiser.push(arrays(1)[0])  # nothing is broken by it


def test_a_map_is_for_whole_frames_and_not_for_resuming(tmp_path: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="resume needs a sigma that is one number"):
        vidnoise.denoise_file("a.mp4", tmp_path / "b.mp4", resume=True, sigma=step_map())


# --- what may be set, and the end -------------------------------------------------------------------------------------


def test_settings_act_from_the_next_frame_on(options: dict[str, Any]) -> None:
    denoiser = Denoiser(sigma=20, **options)
    denoiser.push(arrays()[0])
    denoiser.strength = 0
    assert np.array_equal(denoiser.push(arrays()[1])[0], arrays()[1])
    denoiser.strength, denoiser.luma, denoiser.chroma = 1, 0, 0
    assert np.array_equal(denoiser.push(arrays()[1])[0], arrays()[1])
    for name in ("strength", "luma", "chroma", "sigma"):
        with pytest.raises(UsageError, match=name):
            setattr(denoiser, name, 300)
    denoiser.sigma, denoiser.detect_cuts = None, False
    assert (denoiser.sigma, denoiser.detect_cuts) == (None, False)


def test_what_cannot_be_set_is_refused(options: dict[str, Any]) -> None:
    denoiser, batch = Denoiser(**options), StreamBatch(**options)
    for name in ("device", "backend", "model", "latency_frames", "rotation", "preview"):
        with pytest.raises(AttributeError, match=f"the {name} of a Denoiser cannot be changed"):
            setattr(denoiser, name, None)
    for session, name in ((denoiser, "estimated_sigma"), (denoiser, "strenght"), (batch, "backend"), (batch, "sigma")):
        with pytest.raises(AttributeError, match=name):
            setattr(session, name, 1)


def test_a_closed_denoiser_says_so(options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with Denoiser(lookahead=2, **options) as denoiser:
        denoiser.push(arrays(1)[0])
        assert len(denoiser.flush()) == 1
    assert not caplog.records
    for use in (lambda: denoiser.push(arrays(1)[0]), denoiser.flush, denoiser.__enter__):
        with pytest.raises(UsageError, match="this Denoiser is closed"):
            use()
    denoiser.close()
    with Denoiser(lookahead=2, **options) as denoiser:
        denoiser.push(arrays(1)[0])
    assert "1 pictures inside" in caplog.text
    with pytest.raises(ZeroDivisionError), Denoiser(**options) as denoiser:
        _ = 1 / 0
    with pytest.raises(UsageError, match="closed"):
        denoiser.push(arrays(1)[0])


def test_a_closed_batch_closes_its_streams(options: dict[str, Any]) -> None:
    with StreamBatch(**options) as batch:
        first, second = batch.open(), batch.open()
        batch.push({first: arrays(1)[0], second: arrays(1)[0]})
        assert batch.close(first) == []
        for use in (lambda: batch.push({first: arrays(1)[0]}), lambda: batch.close(first)):
            with pytest.raises(UsageError, match="not opened by this StreamBatch, or is closed"):
                use()
        batch.push({second: arrays(1)[0]})
    for use in (batch.open, lambda: batch.push({second: arrays(1)[0]}), lambda: batch.push({}), batch.__enter__):
        with pytest.raises(UsageError, match="this StreamBatch is closed"):
            use()
    with pytest.raises(UsageError, match="this Denoiser is closed"):
        second.push(arrays(1)[0])
