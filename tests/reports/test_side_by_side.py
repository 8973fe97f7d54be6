"""Pictures against each other from Python: measured, beside each other, and in a notebook."""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import vidnoise
from support.pictures import KINDS_OF_PICTURES, arrays
from support.vmaf import SCORE, give_vmaf, take_vmaf_away
from vidnoise.errors import FormatError, SourceError
from vidnoise.pictures import PictureAdapter
from vidnoise.reports.comparison import compare_files


def noisy(pictures: list[np.ndarray], amount: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [(p + rng.integers(-amount, amount + 1, p.shape)).clip(0, 255).astype(np.uint8) for p in pictures]


def write(path: Path, pictures: list[np.ndarray]) -> Path:
    """A lossless video of RGB pictures."""
    adapter = PictureAdapter()
    with vidnoise.open_sink(path, codec="ffv1") as sink:
        for index, picture in enumerate(pictures):
            frame = replace(adapter.frame(picture)[0], pts=index, time_base=Fraction(1, 25))
            if not index:
                sink.open(vidnoise.StreamInfo(frame.width, frame.height, frame.format, frame.time_base, Fraction(25)))
            sink.write(frame)
    return path


def test_compare_measures_what_the_command_does(tmp_path: Path) -> None:
    clean = arrays(3)
    a, b = noisy(clean, 4), noisy(clean, 20)
    paths = [str(write(tmp_path / f"{i}.mkv", p)) for i, p in enumerate((a, b, clean))]
    expected = compare_files(paths[0], paths[1], reference=paths[2]).quality
    for name, version, path in (("a", a, paths[0]), ("b", b, paths[1])):
        for found in (vidnoise.compare(version, clean), vidnoise.compare(path, paths[2])):
            assert found.frames == 3
            assert found.psnr == pytest.approx(expected[name].psnr)
            assert found.ssim == pytest.approx(expected[name].ssim)
            assert found.flicker == pytest.approx(expected[name].flicker)
    assert vidnoise.compare(a, clean).psnr > vidnoise.compare(b, clean).psnr + 5
    assert str(vidnoise.compare(a[0], clean[0])).startswith("1 frame  PSNR ")


def test_compare_measures_vmaf_if_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = arrays(3)
    read = give_vmaf(tmp_path, monkeypatch)
    assert vidnoise.compare(clean, clean).vmaf is None
    assert not list(read.glob("*.yuv"))
    found = vidnoise.compare(noisy(clean, 4), clean, vmaf=True)
    assert found.vmaf == SCORE
    assert str(found).endswith("VMAF 12.50")
    with pytest.raises(vidnoise.VidnoiseError, match="at least 32x32"):
        vidnoise.compare(clean[0][:16], clean[0][:16], vmaf=True)
    take_vmaf_away(monkeypatch)
    with pytest.raises(vidnoise.VidnoiseError, match=r"pip install 'vidnoise\[vmaf\]'"):
        vidnoise.compare(clean, clean, vmaf=True)


@pytest.mark.parametrize("kind", KINDS_OF_PICTURES)
def test_compare_takes_every_kind(kind: str) -> None:
    make, _ = KINDS_OF_PICTURES[kind]
    (clean,) = arrays(1)
    (version,) = noisy([clean], 9)
    mse = np.square(version / 255 - clean / 255).mean()
    for a, b in ((make(version), make(clean)), ([make(version)], iter([clean]))):
        assert vidnoise.compare(a, b).psnr == pytest.approx(-10 * np.log10(mse), abs=1e-3)
    assert vidnoise.compare(version[..., ::-1], clean[..., ::-1], order="bgr") == vidnoise.compare(version, clean)


def test_compare_says_what_it_left_out_or_cannot_do(caplog: pytest.LogCaptureFixture) -> None:
    assert vidnoise.compare(arrays(2), arrays(3)).frames == 2
    assert "a ended after 2 frames; the rest was not compared" in caplog.text
    with pytest.raises(FormatError, match="a is 48x32, but b is 64x32"):
        vidnoise.compare(arrays(1), arrays(1, (32, 64, 3)))
    with pytest.raises(FormatError, match="no frame"):
        vidnoise.compare([], [])
    with pytest.raises(SourceError, match="no such file"):
        vidnoise.compare("none.mp4", "none.mp4")
    assert vidnoise.compare(arrays(1, (8, 8, 3)), arrays(1, (8, 8, 3))).ssim is None


@pytest.mark.parametrize("kind", KINDS_OF_PICTURES)
def test_side_by_side_gives_the_kind_of_the_left_one(kind: str) -> None:
    make, back = KINDS_OF_PICTURES[kind]
    left, right = arrays(2)
    both = vidnoise.side_by_side(make(left), make(right))
    assert type(both) is type(make(left))
    picture = back(both)
    assert np.array_equal(picture[:, :48], left)
    assert np.array_equal(picture[:, -48:], right)
    assert (picture[:, 48:-48] == 255).all()


def test_side_by_side_of_two_kinds_orders_and_sizes() -> None:
    left, right = arrays(2)
    both = vidnoise.side_by_side(left[..., ::-1], KINDS_OF_PICTURES["pil"][0](right), order="bgr")
    assert np.array_equal(both[:, :48, ::-1], left)
    assert np.array_equal(both[:, -48:, ::-1], right)
    with pytest.raises(FormatError, match="differ in size"):
        vidnoise.side_by_side(left, right[:16])


class Found(HTMLParser):
    """The pictures and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[np.ndarray] = []
        self.alts: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        given = dict(attrs)
        kind, _, data = given["src"].partition(",")
        assert (tag, kind) == ("img", "data:image/png;base64")
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_COLOR)
        self.pictures.append(decoded[..., ::-1])
        self.alts.append(given["alt"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("kind", KINDS_OF_PICTURES)
def test_a_notebook_shows_both_pictures(kind: str) -> None:
    make, _ = KINDS_OF_PICTURES[kind]
    before, after = arrays(2)
    page = Found(vidnoise.show(make(before), make(after))._repr_html_())
    assert all(np.array_equal(a, b) for a, b in zip(page.pictures, (before, after), strict=True))
    assert page.texts == page.alts == ["before 48x32", "after 48x32"]


def test_a_notebook_shows_colours_labels_and_large_pictures() -> None:
    bgr = np.zeros((32, 48, 3), np.uint8)
    bgr[..., 0] = 255
    page = Found(vidnoise.show(bgr, torch.full((3, 8, 8), 0.5), order="bgr", labels=('<"noisy">', "b"))._repr_html_())
    assert page.pictures[0][0, 0].tolist() == [0, 0, 255]
    assert page.pictures[1][0, 0].tolist() == [128, 128, 128]
    assert page.texts == ['<"noisy"> 48x32', "b 8x8"]
    large = vidnoise.show(*[np.zeros((10, 2560, 3), np.uint8)] * 2)
    assert Found(large._repr_html_()).pictures[0].shape == (5, 1280, 3)
    assert repr(large) == "Display(before 2560x10, shown at 1280x5, after 2560x10, shown at 1280x5)"
    with pytest.raises(FormatError, match="frames may be"):
        vidnoise.show("a.png", "b.png")


@pytest.mark.slow
def test_showing_needs_no_notebook() -> None:
    code = (
        "import sys, numpy, vidnoise; a = numpy.zeros((16, 16, 3), 'uint8');"
        "assert '<img' in vidnoise.show(a, a)._repr_html_(); assert 'IPython' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
