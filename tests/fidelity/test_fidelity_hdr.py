"""HDR: what is kept of HDR10 and HLG, and what is said of Dolby Vision, whose metadata is not."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from support.clips import CLIPS, remux, write
from support.hdr import hdr10
from support.live_peers import need
from support.roundtrip import through
from vidnoise.cli import main
from vidnoise.errors import FormatError
from vidnoise.sources import open_source


def _number(n: int) -> str:
    """Exponential-Golomb."""
    bits = f"{n + 1:b}"
    return "0" * (len(bits) - 1) + bits


def reference_processing_unit(profile: int, *, full_range: bool) -> bytes:
    """The least Dolby Vision metadata of one picture that is valid: a mapping that changes nothing.

    Args:
        profile: 0 in profile 5, 1 in profiles 7 and 8.
        full_range: Of the base layer; true in profile 5.
    """
    bits = f"{2:06b}{0x12:011b}{profile:04b}{0:04b}1" + "000" + _number(23) + "01" + f"{full_range:b}"
    bits += _number(2) + _number(2) + _number(4) + "0" + "000" + "01"  # 10, 10 and 12 bits; no enhancement layer
    bits += "00" + _number(0) * 3
    bits += (_number(0) + f"{0:010b}{1023:010b}") * 3 + _number(0) * 2
    bits += (_number(0) * 2 + "0" + "1" + "0" * 23 + "010" + "0" * 23) * 3
    bits += "0" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big")
    check = 0xFFFFFFFF
    for byte in body:
        check ^= byte << 24
        for _ in range(8):
            check = (check << 1 ^ (0x04C11DB7 if check >> 31 else 0)) & 0xFFFFFFFF
    return b"\x19" + body + struct.pack(">I", check) + b"\x80"


def dolby_vision(source: Path, target: Path, *, profile: int) -> Path:
    """Put Dolby Vision metadata (NAL units of type 62) into every picture of an HEVC file."""
    data = reference_processing_unit(0 if profile == 5 else 1, full_range=profile == 5)
    escaped = bytearray()
    for byte in data:
        if escaped[-2:] == b"\0\0" and byte <= 3:
            escaped.append(3)
        escaped.append(byte)
    unit = b"\x7c\x01" + bytes(escaped)
    return remux(source, target, lambda _, packet: packet + struct.pack(">I", len(unit)) + unit)


@pytest.mark.parametrize("extension", [".mp4", ".mkv"])
def test_the_base_layer_of_profile_8_is_kept_aloud(
    tmp_path: Path, extension: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = dolby_vision(hdr10(tmp_path / "hdr.mkv").path, tmp_path / f"in{extension}", profile=8)
    target = through(source, tmp_path / f"out{extension}", codec="hevc", preset="ultrafast")
    assert caplog.text.count("Dolby Vision profile 8: only its base layer is kept") == 1
    info = open_source(target).info
    assert info.passthrough.hdr["content_light"] == (1000, 400)
    assert (info.color.matrix, info.color.primaries, info.color.transfer) == (9, 9, 16)


def test_profile_5_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = dolby_vision(hdr10(tmp_path / "hdr.mkv").path, tmp_path / "in.mkv", profile=5)
    assert main([str(source), "-o", str(tmp_path / "out.mkv")]) == FormatError.exit_code
    said = capsys.readouterr().err
    assert "Dolby Vision profile 5 shows true colours only with metadata" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out.mkv").exists()


def test_dolby_vision_from_mkvmerge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need("mkvmerge")
    source = dolby_vision(hdr10(tmp_path / "hdr.mkv").path, tmp_path / "in.mp4", profile=8)
    subprocess.run(["mkvmerge", "-q", "-o", str(tmp_path / "in.mkv"), str(source)], check=True)
    assert open_source(tmp_path / "in.mkv").info.passthrough.hdr["content_light"] == (1000, 400)
    assert "Dolby Vision profile 8" in caplog.text


@pytest.mark.parametrize("codec", ["hevc", "h264", "av1", "ffv1", "prores"])
def test_hlg(tmp_path: Path, codec: str) -> None:
    recipe = replace(CLIPS["bt2020"], color=(9, 1, 9, 18), ticks=(0, 40, 80))
    clip = write(tmp_path / "in.mkv", recipe)
    target = through(clip, tmp_path / f"out{'.mov' if codec == 'prores' else '.mkv'}", codec=codec)
    info = open_source(target).info
    assert (info.color.matrix, info.color.range or 1, info.color.primaries, info.color.transfer) == (9, 1, 9, 18)
    assert info.format.bit_depth == 10
