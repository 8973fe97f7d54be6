"""Picture files: samples and tags that are kept, what is said of those that are not, and what is refused."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

import vidnoise
from vidnoise.backends import tiled
from vidnoise.color import to_rgb
from vidnoise.errors import DecodeError, FormatError, SinkOpenError, SourceOpenError, UsageError
from vidnoise.sinks.still_format import choose_still_format
from vidnoise.stills.fields import Density, PictureTags
from vidnoise.stills.tags import read_tags, write_tags

Image = pytest.importorskip("PIL.Image")
cms = pytest.importorskip("PIL.ImageCms")

Run = Callable[..., tuple[int, list[str]]]

SIZE = (40, 56)
KINDS = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif", "webp": ".webp"}


def samples(channels: int = 3, dtype: Any = np.uint8, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth picture with a little noise, in an order of channels of its own."""
    rng = np.random.default_rng(channels)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    planes = [0.2 + 0.6 * ((rows * (i + 1) + columns * (4 - i)) % 97) / 97 for i in range(channels)]
    values = np.stack(planes, -1) * 0.9 + rng.normal(0, 0.02, (*size, channels))
    if np.issubdtype(dtype, np.integer):
        return np.squeeze((values * np.iinfo(dtype).max).clip(0, np.iinfo(dtype).max).astype(dtype))
    return np.squeeze(values.astype(dtype))


@functools.cache  # it has the time in it
def profile() -> bytes:
    """An ICC profile that is long enough to need more than one segment of a JPEG."""
    icc = cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()
    return icc + bytes(70_000)


def exif(orientation: int = 6) -> bytes:
    made = Image.Exif()
    made[274], made[271] = orientation, "Camera of tests"
    made.get_ifd(0x8769)[36867] = "2024:02:03 04:05:06"
    made.get_ifd(0x8825)[1] = "N"
    return made.tobytes()


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><test/></x:xmpmeta>'


def tagged(path: Path, picture: np.ndarray | None = None, **more: Any) -> Path:
    """A picture with EXIF, a profile, XMP and 240 dpi, by a program that is not ours."""
    options: dict[str, Any] = {"exif": exif(), "icc_profile": profile(), "dpi": (240, 240), **more}
    if path.suffix in (".jpg", ".webp", ".tif"):
        options["xmp"] = XMP
    if path.suffix == ".tif":  # of which Pillow takes EXIF as an object
        found = Image.Exif()
        found.load(exif())
        found[700] = options.pop("xmp")
        options["exif"] = found
    if path.suffix == ".jpg":
        options.setdefault("quality", 90)
    Image.fromarray(samples() if picture is None else picture).save(path, **options)
    return path


def tags_of(path: Path) -> PictureTags:
    return read_tags(path.read_bytes())


# --- samples ----------------------------------------------------------------------------------------------------------

HELD = [
    (".png", 1, np.uint8), (".png", 3, np.uint8), (".png", 4, np.uint8),
    (".png", 1, np.uint16), (".png", 4, np.uint16), (".tif", 1, np.uint8), (".tif", 3, np.uint16),
    (".bmp", 3, np.uint8),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "channels", "dtype"), HELD)
def test_strength_0_keeps_every_sample(run: Run, tmp_path: Path, suffix: str, channels: int, dtype: Any) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    assert cv2.imwrite(str(source), samples(channels, dtype))
    assert run(source, "-o", target)[0] == 0
    before, after = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (source, target))
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    assert np.array_equal(after, before)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_not_multiplied(run: Run, tmp_path: Path, suffix: str) -> None:
    Image.fromarray(samples(4)).save(tmp_path / f"in{suffix}")
    assert run(tmp_path / f"in{suffix}", "-o", tmp_path / f"out{suffix}")[0] == 0
    assert np.array_equal(np.array(Image.open(tmp_path / f"out{suffix}")), samples(4))


@pytest.mark.parametrize("mode", ["LA", "P", "1"])
def test_gray_with_alpha_and_palettes(run: Run, tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(samples(2)) if mode == "LA" else Image.fromarray(samples()).convert(mode)
    picture.save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", "-o", tmp_path / "out.png")[0] == 0
    clean = Image.open(tmp_path / "out.png")
    assert clean.mode == {"LA": "LA", "P": "RGB", "1": "L"}[mode]
    wanted = picture if mode == "LA" else picture.convert(clean.mode)
    assert np.array_equal(np.array(clean), np.array(wanted))


@pytest.mark.parametrize(("channels", "name"), [(1, "grayf32le"), (3, "gbrpf32le"), (4, "gbrapf32le")])
def test_exr_keeps_float_samples_beyond_white(tmp_path: Path, tiny_model: str, channels: int, name: str) -> None:
    bright = samples(channels, np.float32) * 4
    picture = av.VideoFrame(SIZE[1], SIZE[0], name)
    for plane, channel in zip(picture.planes, {1: [0], 3: [1, 2, 0], 4: [1, 2, 0, 3]}[channels], strict=True):
        rows = np.frombuffer(plane, np.float32).reshape(SIZE[0], -1)  # type: ignore[arg-type]
        rows[:, : SIZE[1]] = bright if channels == 1 else bright[..., channel]
    encoder = av.CodecContext.create("exr", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = SIZE[1], SIZE[0], name, 1
    (tmp_path / "in.exr").write_bytes(b"".join(bytes(p) for p in [*encoder.encode(picture), *encoder.encode(None)]))
    vidnoise.denoise_file(tmp_path / "in.exr", tmp_path / "out.exr", strength=0, model=tiny_model)
    clean = vidnoise.denoise_image(tmp_path / "out.exr", strength=0, model=tiny_model)
    assert clean.dtype == np.float32
    assert clean.max() > 2
    assert np.array_equal(clean, bright)


@pytest.mark.parametrize(("subsampling", "name"), [(0, "yuvj444p"), (1, "yuvj422p"), (2, "yuvj420p"), (None, "gray")])
def test_jpeg_keeps_its_own_subsampling(run: Run, tmp_path: Path, subsampling: int | None, name: str) -> None:
    options = {} if subsampling is None else {"subsampling": subsampling}
    Image.fromarray(samples(1 if subsampling is None else 3)).save(tmp_path / "in.jpg", quality=90, **options)
    assert run(tmp_path / "in.jpg", "-o", tmp_path / "out.jpg", "--quality", "100")[0] == 0
    before, after = (next(iter(vidnoise.open_source(tmp_path / n))) for n in ("in.jpg", "out.jpg"))
    assert after.format.name == before.format.name == name
    for plane, wanted in zip(after.planes, before.planes, strict=True):  # chroma is as it was stored, not interpolated
        assert (plane.float() - wanted.float()).abs().mean() < 0.6


def test_quality_is_what_it_is_elsewhere(run: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), samples())
    sizes = []
    for number, options in enumerate([("--quality", "60"), (), ("--quality", "100")]):
        assert run(tmp_path / "in.png", "-o", tmp_path / f"{number}.jpg", *options)[0] == 0
        sizes.append((tmp_path / f"{number}.jpg").stat().st_size)
    assert sizes == sorted(sizes)
    tables = [Image.open(tmp_path / f"{number}.jpg").quantization[0] for number in (1, 2)]
    buffer = io.BytesIO()
    Image.fromarray(samples()).save(buffer, "JPEG", quality=95)
    assert tables == [Image.open(buffer).quantization[0], [1] * 64]
    assert next(iter(vidnoise.open_source(tmp_path / "1.jpg"))).format.name == "yuvj444p"


def test_jpeg_becomes_the_rgb_that_viewers_show(run: Run, tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(samples(), (0, 0), 3)
    cv2.imwrite(str(tmp_path / "in.jpg"), smooth)
    assert run(tmp_path / "in.jpg", "-o", tmp_path / "out.png")[0] == 0
    shown, clean = (cv2.imread(str(tmp_path / name)).astype(int) for name in ("in.jpg", "out.png"))
    assert np.abs(shown - clean).max() <= 3  # decoders round differently


def test_lossless_and_lossy_webp(run: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), samples())
    Image.fromarray(samples()).save(tmp_path / "in.jpg", subsampling=2, quality=90)
    assert run(tmp_path / "in.png", "-o", tmp_path / "same.webp")[0] == 0
    assert np.array_equal(cv2.imread(str(tmp_path / "same.webp")), samples())
    assert run(tmp_path / "in.jpg", "-o", tmp_path / "lossy.webp")[0] == 0
    assert b"VP8 " in (tmp_path / "lossy.webp").read_bytes()[:64]


def test_what_is_noise_goes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = (rng.normal(128, 20, (96, 96, 3)).clip(0, 255)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), noisy)
    stats = vidnoise.denoise_file(tmp_path / "in.png", tmp_path / "out.png", model="fast")
    assert (stats.frames_in, stats.frames_out) == (1, 1)
    assert cv2.imread(str(tmp_path / "out.png")).std() < 0.5 * noisy.std()


# --- tags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_tags_survive(run: Run, tmp_path: Path, source: str, target: str) -> None:
    path, out = tagged(tmp_path / f"in{KINDS[source]}"), tmp_path / f"out{KINDS[target]}"
    code, said = run(path, "-o", out)
    assert code == 0
    clean = Image.open(out)
    found = clean.tag_v2 if target == "tiff" else clean.getexif()
    info = vidnoise.open_source(out).info
    assert (info.height, info.width) == SIZE  # not turned ...
    assert found[274] == 6  # ... and still to be turned
    assert found[271] == "Camera of tests"
    assert clean.getexif().get_ifd(0x8769)[36867] == "2024:02:03 04:05:06"
    assert clean.getexif().get_ifd(0x8825)[1] == "N"
    assert clean.info["icc_profile"] == profile()
    if source != "png":
        assert read_tags(out.read_bytes()).xmp == XMP
    if source != "webp" and target != "webp":
        assert clean.info["dpi"] == pytest.approx((240, 240), abs=0.01)
    losses = [line for line in said if "no place" in line]
    assert losses == ([] if target != "webp" or source == "webp" else losses)


def test_exif_is_copied_as_it_is(run: Run, tmp_path: Path) -> None:
    path = tagged(tmp_path / "in.jpg")
    before = tags_of(path)
    for name in ("out.jpg", "out.png", "out.webp"):
        assert run(path, "-o", tmp_path / name)[0] == 0
        after = tags_of(tmp_path / name)
        assert (after.exif, after.icc, after.xmp) == (before.exif, before.icc, before.xmp)


def test_png_keeps_its_own_chunks_and_others_are_told(run: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), samples())
    data = (tmp_path / "in.png").read_bytes()
    text = b"tEXtTitle\0A picture"
    more = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (text, b"gAMA" + struct.pack(">I", 45455))
    )
    (tmp_path / "in.png").write_bytes(data[:33] + more + data[33:])
    assert run(tmp_path / "in.png", "-o", tmp_path / "out.png")[0] == 0
    assert more in (tmp_path / "out.png").read_bytes()
    _, said = run(tmp_path / "in.png", "-o", tmp_path / "out.jpg")
    assert any("JPEG has no place for PNG's tEXt, PNG's gAMA" in line for line in said)


def test_what_a_format_cannot_hold_is_said_in_one_line(run: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), samples(4, np.uint16))
    code, said = run(tmp_path / "in.png", "-o", tmp_path / "out.jpg")
    assert code == 0
    (line,) = [line for line in said if "warning" in line]
    assert "JPEG cannot hold more than 8 bits and transparency" in line
    path = tagged(tmp_path / "tagged.jpg")
    _, said = run(path, "-o", tmp_path / "out.exr")
    (line,) = [line for line in said if "warning" in line]
    assert "EXR has no place for EXIF, the ICC profile, XMP, the resolution (DPI)" in line
    _, said = run(path, "-o", tmp_path / "out.mkv")
    assert any("has no place for EXIF, the ICC profile" in line for line in said)


def test_damaged_tags_do_not_stop_a_picture(run: Run, tmp_path: Path) -> None:
    data = tagged(tmp_path / "in.tif", icc_profile=b"").read_bytes()
    tags = read_tags(data[:40])
    assert tags.lost
    broken = PictureTags("jpeg", exif=b"II*\0\xff\xff\xff\xff", density=Density(72, 72, "inch"))
    written, lost = write_tags(data, "tiff", broken, (SIZE[1], SIZE[0]))
    assert lost == ["EXIF (which is damaged)"]
    assert read_tags(written).density == Density(72, 72, "inch")


def test_further_pages_are_told(run: Run, tmp_path: Path) -> None:
    page = Image.fromarray(samples())
    page.save(tmp_path / "in.tif", save_all=True, append_images=[page, page])
    _, said = run(tmp_path / "in.tif", "-o", tmp_path / "out.tif")
    assert any("all pictures but the first of 3" in line for line in said)


def test_the_rotation_of_a_video_becomes_that_of_its_pictures(run: Run, clips: Any, tmp_path: Path) -> None:
    clip = clips("rotated")
    assert run(clip.path, "-o", tmp_path / "f%02d.jpg")[0] == 0
    turned = vidnoise.open_source(clip.path).info.rotation
    assert turned
    assert vidnoise.open_source(tmp_path / "f01.jpg").info.rotation == turned


# --- what is refused --------------------------------------------------------------------------------------------------


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_a_cut_off_picture(tmp_path: Path, suffix: str) -> None:
    data = tagged(tmp_path / f"whole{suffix}", exif=b"", icc_profile=b"").read_bytes()
    _write(tmp_path / f"half{suffix}", data[: len(data) * 6 // 10])
    with pytest.raises(DecodeError, match="damaged or cut off"):
        vidnoise.open_source(tmp_path / f"half{suffix}")


def test_inputs_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for name, data, says in (
        ("text.jpg", b"hello", "is no picture"), ("empty.png", b"", "empty file"), ("gone.png", None, "no such file"),
        ("folder.png", None, "is a directory"),
    ):  # fmt: skip
        if data is not None:
            _write(tmp_path / name, data)
        with pytest.raises(SourceOpenError, match=says):
            vidnoise.open_source(tmp_path / name)
    Image.fromarray(samples()).convert("CMYK").save(tmp_path / "print.jpg")
    with pytest.raises(FormatError, match="CMYK"):
        vidnoise.open_source(tmp_path / "print.jpg")
    frames = [Image.fromarray(samples()), Image.fromarray(255 - samples())]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(SourceOpenError, match=r"animated WebP.*magick"):
        vidnoise.open_source(tmp_path / "moving.webp")


def test_too_large_pictures(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), samples())
    with pytest.raises(FormatError, match=r"56x40, which is more than 100 pixels; max_pixels=N"):
        vidnoise.open_source(tmp_path / "in.png", max_pixels=100)


def test_outputs_that_cannot_be(run: Run, clips: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), samples())
    code, said = run(tmp_path / "in.png", "-o", tmp_path / "in.png", "-y")
    assert (code, "is the input" in said[-1]) == (4, True)
    code, said = run(clips("cfr").path, "-o", tmp_path / "one.png")
    assert code == 2
    assert "holds one picture" in said[-1]
    assert "one-%04d.png" in said[-1]
    assert not (tmp_path / "one.png").exists()
    with pytest.raises(SinkOpenError, match="exists already"):
        vidnoise.open_sink(tmp_path / "in.png")
    with pytest.raises(UsageError, match="rate is for sequences"):
        vidnoise.open_source(clips("cfr").path, rate="24")
    with pytest.raises(UsageError, match="quality must be between 1 and 100"):
        vidnoise.open_sink(tmp_path / "x.jpg", quality=0)
    _, said = run(tmp_path / "in.png", "-o", tmp_path / "out.png", "--crf", "20")
    assert any("crf does not apply to pictures" in line for line in said)


def test_nothing_half_written(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), samples())
    source = vidnoise.open_source(tmp_path / "in.png")
    sink = vidnoise.open_sink(tmp_path / "out.png")
    sink.open(source.info)
    sink.write(next(iter(source)))
    sink.abort()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("batches_here")
def test_a_folder_is_separate_pictures(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos/more").mkdir(parents=True)
    for name, side in (("b.png", 40), ("a.jpg", 30), ("more/c.tif", 50)):
        cv2.imwrite(f"photos/{name}", samples(size=(side, side)))
    Path("photos/broken.png").write_bytes(b"hello")
    code, said = run("photos", "-o", "clean")
    assert code == 3
    assert "1 of 4 files failed" in said[-2]
    assert cv2.imread("clean/a.jpg").shape == (30, 30, 3)
    assert cv2.imread("clean/more/c.tif").shape == (50, 50, 3)
    Path("photos/broken.png").unlink()
    code, said = run("photos", "-o", "clean", "--resume")
    assert (code, said[-1]) == (0, "vidnoise: 0 files done, 3 were there already")
    code, said = run("photos/*.png", "photos/a.jpg", "-o", "again/{stem}.png")
    assert code == 0
    assert sorted(path.name for path in Path("again").iterdir()) == ["a.png", "b.png"]


# --- one picture in Python --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_pil_images(tiny_model: str, mode: str) -> None:
    gray16 = Image.fromarray(samples(1, np.uint16))
    image = gray16 if mode == "I;16" else Image.fromarray(samples()).convert(mode)
    image.info["dpi"] = (300, 300)
    clean = vidnoise.denoise_image(image, model=tiny_model, strength=0)
    assert (clean.mode, clean.size, clean.info["dpi"]) == (mode, image.size, (300, 300))
    assert np.array_equal(np.array(clean), np.array(image))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_and_paths(tmp_path: Path, tiny_model: str, channels: int, dtype: Any) -> None:
    array = samples(channels, dtype)
    clean = vidnoise.denoise_image(array, model=tiny_model, sigma=20)
    assert (clean.shape, clean.dtype) == (array.shape, array.dtype)
    assert not np.array_equal(clean, array)
    if channels == 4:
        assert np.array_equal(clean[..., 3], array[..., 3])
    if dtype is not np.float32:
        stored = array[..., [2, 1, 0, 3][:channels]] if channels > 1 else array
        cv2.imwrite(str(tmp_path / "in.png"), stored)
        assert np.array_equal(vidnoise.denoise_image(tmp_path / "in.png", model=tiny_model, sigma=20), clean)


def test_tensors_and_frames(tiny_model: str) -> None:
    tensor = torch.rand(3, 32, 48)
    clean = vidnoise.denoise_image(tensor, model=tiny_model)
    assert (clean.shape, clean.dtype) == (tensor.shape, tensor.dtype)
    picture = av.VideoFrame.from_ndarray(samples(), "rgb24")
    assert vidnoise.denoise_image(picture, model=tiny_model).format.name == "rgb24"


@pytest.mark.parametrize(
    ("image", "says"),
    [(Image.fromarray(samples()).convert("P"), r'mode P, of which .* use image.convert\("RGB"\)'),
     (np.zeros((4, 4, 2), np.float32), "gray with alpha not as float"), (np.zeros((4, 4), np.int64), "int64"),
     ("film.mp4", "one picture file"), (None, "NoneType.*or a path")],
)  # fmt: skip
def test_what_is_no_image(image: Any, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        vidnoise.denoise_image(image)


# --- memory -----------------------------------------------------------------------------------------------------------


def _tiles_differ_by(monkeypatch: pytest.MonkeyPatch, noisy: np.ndarray, megabytes: float) -> np.ndarray:
    options = {"model": "fast", "backend": "eager", "precision": "fp32"}  # others round the same pixel in two ways
    whole = vidnoise.denoise_image(noisy, **options)
    # Counting takes seconds for each size; test_tiles.py holds it against what is really taken.
    monkeypatch.setattr(tiled, "step_bytes", lambda network, n, height, width: 315 * n * height * width)
    monkeypatch.setattr(tiled, "motion_bytes", lambda network, n, height, width: 60 * n * height * width)
    used: list[tuple[int, int]] = []
    choose = tiled.choose_tile
    monkeypatch.setattr(tiled, "choose_tile", lambda *given: used.append(choose(*given)) or used[-1])
    monkeypatch.setattr(tiled, "free_bytes", lambda device: megabytes * 2**20)
    in_tiles = vidnoise.denoise_image(noisy, **options)
    assert used
    assert used[0][0] * used[0][1] < noisy.shape[0] * noisy.shape[1]
    return np.abs(in_tiles.astype(int) - whole)


def test_a_picture_that_does_not_fit_is_denoised_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = np.random.default_rng(0).normal(samples(size=(320, 576)), 12).clip(0, 255).astype(np.uint8)
    difference = _tiles_differ_by(monkeypatch, noisy, 100)
    assert difference.mean() < 0.02
    assert difference.max() <= 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_40_megapixels_stay_within_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    noisy = np.random.default_rng(0).integers(90, 166, (5000, 8000, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), noisy)
    room = 6 << 30
    monkeypatch.setattr(tiled, "free_bytes", lambda device: room)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    vidnoise.denoise_file(tmp_path / "in.png", tmp_path / "out.png", model="fast")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < room
    assert cv2.imread(str(tmp_path / "out.png")).std() < 0.7 * noisy.std()


def test_small_pictures_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "_tiles", lambda *given: pytest.fail("nothing is to be counted"))
    network = vidnoise.load_model("fast").network
    assert tiled.room_for_still(network, 512, 512, torch.device("cpu")) is None


def test_formats_are_chosen_without_loss_where_there_is_one(tmp_path: Path) -> None:
    Image.fromarray(samples()).save(tmp_path / "in.jpg", subsampling=2)
    source = vidnoise.open_source(tmp_path / "in.jpg")
    assert choose_still_format("jpeg", source.info).is_lossless
    png = choose_still_format("png", source.info)
    frame = next(iter(source))
    assert (png.samples.name, png.lost) == ("rgb24", [])
    (tmp_path / "out.png").write_bytes(png.file_of(frame))
    rgb = to_rgb(next(iter(vidnoise.open_source(tmp_path / "out.png"))))
    assert (rgb - to_rgb(frame).clamp(0, 1)).abs().max() < 0.51 / 255
