"""A clip that is denoised in this process, to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest

import vidnoise
from support.cuts import three_scenes


class Denoised(NamedTuple):
    """A clip and what becomes of it in one process."""

    source: Path
    options: dict[str, Any]
    contents: list[Any]
    precision: str


def contents(path: Path) -> list[Any]:
    """Times and samples of all frames, then the packets of the audio."""
    with av.open(str(path)) as container:
        pictures: list[Any] = [(frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        return pictures + [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Denoised:
    folder = tmp_path_factory.mktemp("alone")
    source = three_scenes(folder / "scenes.mkv")
    options = {"model": tiny_model, "backend": "eager", "codec": "ffv1", "threads": 2}
    stats = vidnoise.denoise_file(source, folder / "alone.mkv", device="cpu", **options)
    assert (stats.n_cuts, stats.frames_out) == (2, 78)
    found = contents(folder / "alone.mkv")
    assert not np.array_equal(found[30][1], contents(source)[30][1])
    return Denoised(source, options, found, stats.precision)
