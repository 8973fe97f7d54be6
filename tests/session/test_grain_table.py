"""The AV1 film-grain table: its format, its figures, and what a player makes of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from support.grain import noise
from support.streams import denoise, frames
from vidnoise.cli import main
from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.session.grain_table import WHITE, GrainParameters, GrainTable

HEIGHT, WIDTH = 288, 352
SIGMAS = (8.0, 4.0, 3.0)
"""Of Y', Cb and Cr where the brightness is 120; that of Y' grows with the brightness."""


def ramp() -> torch.Tensor:
    """Brightness from 40 to 210 across the picture."""
    return torch.linspace(40, 210, WIDTH).expand(HEIGHT, WIDTH).round()


def clean_frame(format: str = "yuv420p", scale: int = 1) -> Frame:
    row = PIXEL_FORMATS[format]
    dtype = torch.uint8 if scale == 1 else torch.uint16
    values = (ramp(), torch.full((HEIGHT, WIDTH), 120.0), torch.full((HEIGHT, WIDTH), 130.0))
    planes = []
    for i, plane in enumerate(values[: len(row.layout)]):
        height, width = row.plane_shape(i, HEIGHT, WIDTH)[:2]
        planes.append((plane[:height, :width] * scale).contiguous().to(dtype))
    return Frame(tuple(planes), row)


def noisy_frame(clean: Frame, seed: int, scale: int = 1) -> Frame:
    planes = []
    for i, (plane, sigma) in enumerate(zip(clean.planes, SIGMAS, strict=False)):
        strength = sigma * (ramp() / 120 if i == 0 else 1) * scale
        values = plane.float() + strength * noise(1, 3 if i == 0 else 1, 10 * seed + i, (1, *plane.shape))[0]
        planes.append(values.round().clamp(0, 256 * scale - 1).to(plane.dtype))
    return Frame(tuple(planes), clean.format)


def table_of(path: Path, format: str = "yuv420p", scale: int = 1, n_frames: int = 4) -> GrainTable:
    table = GrainTable(path)
    clean = clean_frame(format, scale)
    for i in range(n_frames):
        table.observe(noisy_frame(clean, i, scale), clean)
    return table


def strengths(parameters: GrainParameters, plane: int) -> list[tuple[int, float]]:
    """(brightness, standard deviation of the grain that a player adds) of a plane without a filter; 8-bit units."""
    unit = WHITE / 2 ** (parameters.scaling_shift + parameters.grain_scale_shift)
    return [(x, s * unit) for x, s in parameters.planes[plane].points]


def test_white_noise_needs_no_filter_and_keeps_its_strength(tmp_path):
    parameters = table_of(tmp_path / "t.tbl").parameters()
    for plane in (1, 2):
        own = np.array(parameters.planes[plane].coefficients) / 2**parameters.ar_coeff_shift
        assert np.abs(own).max() < 0.06
        for _, sigma in strengths(parameters, plane):
            assert sigma == pytest.approx(SIGMAS[plane], rel=0.08)


def test_the_strength_follows_the_brightness(tmp_path):
    points = table_of(tmp_path / "t.tbl").parameters().planes[0].points
    assert len(points) >= 5
    ratio = [s / x for x, s in points]
    assert max(ratio) / min(ratio) < 1.15  # the noise is in proportion to the brightness


@pytest.mark.parametrize(("format", "scale"), [("yuv420p10le", 4), ("yuv444p", 1), ("gray", 1)])
def test_depths_and_layouts(tmp_path, format, scale):
    parameters = table_of(tmp_path / "t.tbl", format, scale).parameters()
    reference = table_of(tmp_path / "u.tbl").parameters()
    for (x, s), (x_ref, s_ref) in zip(parameters.planes[0].points, reference.planes[0].points, strict=True):
        assert abs(x - x_ref) <= 1
        exponent = reference.scaling_shift - parameters.scaling_shift
        assert s * 2.0**exponent == pytest.approx(s_ref, rel=0.08)
    if format == "gray":
        assert parameters.planes[1].points == []


def test_the_text_is_what_libaom_reads(tmp_path):
    table = table_of(tmp_path / "t.tbl")
    table.write()
    lines = (tmp_path / "t.tbl").read_text().splitlines()
    assert lines[0] == "filmgrn1"
    assert lines[1].split() == ["E", "0", str(2**63 - 1), "1", "7391", "1"]
    assert [line.split()[0] for line in lines[2:]] == ["p", "sY", "sCb", "sCr", "cY", "cCb", "cCr"]
    numbers = {line.split()[0]: [int(n) for n in line.split()[1:]] for line in lines[2:]}
    lag, ar_shift, scale_shift, scaling_shift = numbers["p"][:4]
    assert (len(numbers["p"]), lag, 6 <= ar_shift <= 9, 0 <= scale_shift <= 3) == (12, 3, True, True)
    assert 8 <= scaling_shift <= 11
    assert [len(numbers[name]) for name in ("cY", "cCb", "cCr")] == [24, 25, 25]
    for name, most in (("sY", 14), ("sCb", 10), ("sCr", 10)):
        count, points = numbers[name][0], numbers[name][1:]
        assert len(points) == 2 * count
        assert count <= most
        assert points[::2] == sorted(set(points[::2]))
        assert all(0 <= n <= 255 for n in points)
    assert all(-128 <= n <= 127 for name in ("cY", "cCb", "cCr") for n in numbers[name])


def test_where_nothing_is_removed_there_is_no_grain(tmp_path):
    table = GrainTable(tmp_path / "t.tbl")
    clean = clean_frame()
    table.observe(clean, clean)
    assert table.parameters().to_text().splitlines()[1].split()[3] == "0"
    assert GrainTable(tmp_path / "u.tbl").parameters().planes[0].points == []  # not even a frame


def test_what_is_refused(tmp_path, network: DenoiseNetwork):
    (tmp_path / "there.tbl").write_text("")
    for path, match in ((tmp_path / "there.tbl", "exists"), (tmp_path, "directory"), (tmp_path / "no" / "t", "no dir")):
        with pytest.raises(SinkOpenError, match=match):
            GrainTable(path)
    with pytest.raises(UsageError, match="grain twice"):
        denoise(network, frames(1), grain=1, grain_table=tmp_path / "t.tbl")


def test_command_line(tmp_path, capsys):
    source, table = "lavfi:testsrc2=size=96x64:rate=25:duration=0.2,noise=alls=12:allf=t", tmp_path / "t.tbl"
    command = [source, "-o", str(tmp_path / "a.mkv"), "--grain-table", str(table), "--model", "fast", "-q"]
    assert main(command) == 0
    assert table.read_text().startswith("filmgrn1\n")
    assert main([*command, "-n"]) == 4
    assert "exists" in capsys.readouterr().err
    assert main([*command, "-y"]) == 0


def _has_libaom() -> bool:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        return False
    listed = subprocess.run([ffmpeg, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=110).stdout
    return "libaom-av1" in listed


@pytest.mark.skipif(not _has_libaom(), reason="no AV1 encoder that reads grain tables (ffmpeg with libaom)")
def test_a_player_adds_what_was_removed(tmp_path):
    """Encoded clean with the table, decoded: as strong by brightness, as coarse, and new in each frame."""
    table = table_of(tmp_path / "t.tbl")
    table.write()
    clean = clean_frame()
    raw = b"".join(plane.numpy().tobytes() for plane in clean.planes) * 3
    command = (
        f"ffmpeg -v error -f rawvideo -pix_fmt yuv420p -s {WIDTH}x{HEIGHT} -r 25 -i - -c:v libaom-av1 -crf 5 "
        f"-cpu-used 8 -threads 1 -aom-params film-grain-table={tmp_path}/t.tbl {tmp_path}/out.mkv"
    )
    subprocess.run(command.split(), input=raw, check=True, timeout=100)
    with av.open(str(tmp_path / "out.mkv")) as container:
        shown = [torch.from_numpy(f.to_ndarray(format="yuv420p")).float() for f in container.decode(video=0)]
    grain = [(picture[:HEIGHT] - ramp()) / (ramp() * SIGMAS[0] / 120) for picture in shown]
    wanted = noise(1, 3, 0, (1, HEIGHT, WIDTH))[0]
    for i in range(0, WIDTH, WIDTH // 4):
        assert float(grain[1][:, i : i + WIDTH // 4].std()) == pytest.approx(1, rel=0.12)
    for dy, dx in ((0, 1), (1, 0), (0, 2)):
        assert lagged(grain[1], dy, dx) == pytest.approx(lagged(wanted, dy, dx), abs=0.1)
    assert abs(float((grain[0] * grain[1]).mean())) < 0.05
    colour = shown[1][HEIGHT : HEIGHT + HEIGHT // 4]
    assert float(colour.std()) == pytest.approx(SIGMAS[1], rel=0.12)


def lagged(x: torch.Tensor, dy: int, dx: int) -> float:
    x = x - x.mean()
    shifted = x[dy:, dx:] * x[: x.shape[0] - dy, : x.shape[1] - dx]
    return float(shifted.mean() / x.square().mean())
