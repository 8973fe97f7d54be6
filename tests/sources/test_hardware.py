"""Decoding on a GPU: what is chosen, said and refused, and that no surface is let go too early. No GPU is needed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import av.error
import pytest
import torch

from vidnoise.api import denoise_file
from vidnoise.errors import DeviceError, FormatError, SinkOpenError, SourceOpenError, UsageError
from vidnoise.frame import PIXEL_FORMATS
from vidnoise.sources import hardware, open_source
from vidnoise.sources.hardware import MAX_PENDING, DevicePlanes, Hardware, is_on_gpu, sample_format, share_context

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


class FakeAccelerator:
    """Stands for av's HWAccel on a machine that has such a GPU, or has not."""

    there = True
    reason = "Operation not permitted"
    made: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, kind: str, device: str | None = None, **options: Any) -> None:
        self.options = {"kind": kind, "device": device, **options}

    def create(self, codec: Any) -> None:
        if not self.there:
            raise av.error.PermissionError(1, self.reason)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type[FakeAccelerator]:
    monkeypatch.setattr(hardware, "HWAccel", FakeAccelerator)
    monkeypatch.setattr(hardware, "share_context", lambda index: None)
    monkeypatch.setattr(FakeAccelerator, "there", True)
    return FakeAccelerator


@pytest.mark.parametrize(
    ("choice", "device", "expected"),
    [
        ("none", CUDA, None),
        ("auto", CPU, None),
        ("auto", CUDA, {"device": "1", "allow_software_fallback": True, "is_hw_owned": True}),
        ("cuda", CUDA, {"device": "1", "allow_software_fallback": False, "is_hw_owned": True}),
        ("cuda", CPU, {"device": "0", "allow_software_fallback": False, "is_hw_owned": False}),
    ],
)
def test_what_is_chosen(gpu: type[FakeAccelerator], choice: str, device: torch.device, expected: Any) -> None:
    found = Hardware(choice, device).accelerator()
    assert (found and found.options) == (expected and {"kind": "cuda", **expected})


def test_without_a_gpu_cuda_is_an_error_and_auto_says_so(
    gpu: type[FakeAccelerator], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu, "there", False)
    with pytest.raises(DeviceError, match=r'hwaccel="cuda": no NVIDIA GPU .* was found \(cuda:0\); use hwaccel="none"'):
        Hardware("cuda", CPU).accelerator()
    with caplog.at_level(logging.INFO):
        assert Hardware("auto", CUDA).accelerator() is None
    assert "decoding on the CPU: no NVIDIA GPU" in caplog.text


def test_a_gpu_that_does_not_decode_is_not_said_to_be_missing(
    gpu: type[FakeAccelerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "there", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(DeviceError, match=r"cuda:1 cannot be used for decoding \(.*Operation not permitted.*\); use"):
        Hardware("cuda", CUDA).accelerator()


class Driver:
    """CUDA's driver and FFmpeg's condition on it: the primary context blocks, or nobody has made it yet."""

    def __init__(self, *, n_devices: int = 2) -> None:
        self.flags = [0] * n_devices
        self.calls: list[str] = []

    def cuInit(self, flags: int) -> int:  # noqa: N802
        self.calls.append("init")
        return 0

    def cuDeviceGet(self, target: Any, index: int) -> int:  # noqa: N802
        if self.calls != ["init"] or index >= len(self.flags):
            return 101
        target._obj.value = index
        return 0

    def cuDevicePrimaryCtxSetFlags_v2(self, device: Any, flags: int) -> int:  # noqa: N802
        self.flags[device.value] = flags
        return 0


def test_the_context_that_pytorch_uses_is_told_to_block_before_ffmpeg_asks_for_it(
    gpu: type[FakeAccelerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver()

    def create(self: FakeAccelerator, codec: Any) -> None:
        if self.options.get("is_hw_owned") and driver.flags[int(self.options["device"] or 0)] != 4:
            raise av.error.OSError(95, "Operation not supported")

    monkeypatch.setattr(gpu, "create", create)
    with pytest.raises(DeviceError):
        Hardware("cuda", CUDA).accelerator()
    monkeypatch.setattr(hardware, "share_context", lambda index: share_context(index, driver))
    assert Hardware("cuda", CPU).accelerator() is not None
    assert driver.flags == [0, 0]  # pictures that come to main memory need no common context
    assert Hardware("cuda", CUDA).accelerator() is not None
    assert driver.flags == [0, 4]


def test_a_driver_that_refuses_or_is_not_there_leaves_the_word_to_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(n_devices=1)
    share_context(3, driver)
    assert driver.flags == [0]

    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    share_context(0)


@pytest.mark.needs_cuda
def test_ffmpeg_joins_the_context_that_pytorch_has_made() -> None:
    torch.zeros(1, device="cuda:0")
    assert Hardware("cuda", torch.device("cuda:0")).accelerator() is not None


def test_a_codec_that_gpus_do_not_decode() -> None:
    context = SimpleNamespace(is_hwaccel=False, codec=SimpleNamespace(canonical_name="ffv1"))
    with pytest.raises(SourceOpenError, match='ffv1 is not decoded by NVIDIA GPUs; use hwaccel="none"'):
        Hardware("cuda", CUDA).check(context, "a.mkv")
    Hardware("auto", CUDA).check(context, "a.mkv")


def test_an_unknown_choice() -> None:
    with pytest.raises(UsageError, match="hwaccel must be auto, none or cuda, got 'nvdec'"):
        open_source("a.mkv", hwaccel="nvdec")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_whole_way_without_a_gpu(clips, tmp_path) -> None:
    """Really asking libav."""
    with pytest.raises(DeviceError, match="no NVIDIA GPU"):
        denoise_file(clips("cfr"), tmp_path / "out.mp4", hwaccel="cuda", device="cpu", model="fast")
    assert not list(tmp_path.iterdir())
    stats = denoise_file(clips("cfr"), tmp_path / "out.mp4", hwaccel="auto", device="cpu", model="fast", duration=0.1)
    assert stats.frames_out == 3


class FakePicture:
    """A picture in a surface that is overwritten as soon as the picture is let go."""

    def __init__(self, surface: list[torch.Tensor], sw_format: str = "nv12") -> None:
        self.format, self.sw_format = SimpleNamespace(name="cuda"), SimpleNamespace(name=sw_format)
        self.planes = surface
        self.height, self.width = surface[0].shape

    def __del__(self) -> None:
        for plane in self.planes:
            plane.fill_(255)


class LateCopies:
    """Copies that happen when somebody waits for them, as on a busy GPU."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def mark(self, device: torch.device) -> Any:
        work, self.waiting = self.waiting, []
        return SimpleNamespace(synchronize=lambda: [do() for do in work])

    def as_tensor(self, plane: torch.Tensor) -> Any:
        def clone(memory_format: Any) -> torch.Tensor:
            target = torch.zeros_like(plane)
            self.waiting.append(lambda: target.copy_(plane))
            return target

        return SimpleNamespace(shape=plane.shape, clone=clone)


def test_a_surface_is_held_until_its_copy_has_ended() -> None:
    late = LateCopies()
    reader = DevicePlanes(late.as_tensor, late.mark)
    format = PIXEL_FORMATS["nv12"]
    surfaces = [
        [torch.zeros(4, 6, dtype=torch.uint8), torch.zeros(2, 3, 2, dtype=torch.uint8)] for _ in range(MAX_PENDING + 1)
    ]
    out = []
    for i in range(9):
        surface = surfaces[i % len(surfaces)]
        for plane in surface:
            plane.fill_(i)
        out.append(reader.read(FakePicture(surface), format, "a.mp4"))
    for i, planes in enumerate(out[:-MAX_PENDING]):  # the last ones' copies are still to come
        assert all(int(p.min()) == int(p.max()) == i for p in planes), i


def test_without_waiting_pictures_are_damaged() -> None:
    late = LateCopies()
    reader = DevicePlanes(late.as_tensor, lambda device: SimpleNamespace(synchronize=lambda: None))
    surface = [torch.full((4, 6), 7, dtype=torch.uint8), torch.full((2, 3, 2), 7, dtype=torch.uint8)]
    planes = reader.read(FakePicture(surface), PIXEL_FORMATS["nv12"], "a.mp4")
    reader._pending.clear()
    for copy in late.waiting:
        copy()
    assert int(planes[0].max()) == 255


def test_layouts_that_cannot_stay_on_the_gpu_are_refused() -> None:
    odd = FakePicture([torch.zeros(5, 7, dtype=torch.uint8), torch.zeros(2, 3, 2, dtype=torch.uint8)])
    with pytest.raises(FormatError, match='7x5 cannot stay on the GPU; use hwaccel="none"'):
        DevicePlanes(lambda p: p, lambda device: None).read(odd, PIXEL_FORMATS["nv12"], "a.mp4")

    def unknown(plane: Any) -> torch.Tensor:
        raise NotImplementedError("unsupported sw_format for DLPack export")

    with pytest.raises(FormatError, match="nv12 pictures cannot stay on the GPU"):
        DevicePlanes(unknown, lambda device: None).read(odd, PIXEL_FORMATS["nv12"], "a.mp4")


def test_the_format_of_samples_on_a_gpu() -> None:
    picture: Any = FakePicture([torch.zeros(4, 6), torch.zeros(2, 3, 2)], "p010le")
    assert is_on_gpu(picture)
    assert sample_format(picture) == "p010le"


@pytest.mark.needs_cuda
def test_pictures_decoded_on_the_gpu_are_those_of_the_cpu(clips) -> None:
    device = torch.device("cuda:0")
    source = open_source(str(clips("cfr")), hwaccel="cuda", device=device)
    on_gpu = list(source)
    on_cpu = list(open_source(str(clips("cfr"))))
    assert len(on_gpu) == len(on_cpu)
    for a, b in zip(on_gpu, on_cpu, strict=True):
        assert all(p.device == device for p in a.planes)
        assert torch.equal(a.planes[0].cpu(), b.planes[0])
        assert torch.equal(a.planes[1][..., 0].cpu(), b.planes[1])
        assert a.pts == b.pts


@pytest.mark.skipif(torch.cuda.is_available(), reason="there may be an encoder")
@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_an_encoder_without_its_gpu(clips, tmp_path, codec: str) -> None:
    with pytest.raises(SinkOpenError, match=f"{codec}.*it needs an NVIDIA GPU that encodes, and its driver"):
        denoise_file(clips("cfr"), tmp_path / "out.mp4", codec=codec, device="cpu", model="fast")
    assert not list(tmp_path.iterdir())


def test_a_resumable_run_takes_the_choice(clips, tmp_path) -> None:
    stats = denoise_file(
        clips("cfr"), tmp_path / "out.mp4", hwaccel="auto", device="cpu", model="fast", duration=0.1, resume=True
    )
    assert stats.frames_out == 3
