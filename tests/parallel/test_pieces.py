"""Pieces are denoised as the whole is: bit for bit behind cuts, nearly so behind a lead-in. Without any process."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from support.networks import TINY
from support.streams import moving_scene
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.parallel.denoiser import ParallelDenoiser
from vidnoise.parallel.pieces import Cutter, Piece
from vidnoise.parallel.worker import Clean, Outline, Setup, Worker, packed, unpacked
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldSessions
from vidnoise.weights import Model, ModelCard

GRAY = PIXEL_FORMATS["gray"]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(5)
    return Model(DenoiseNetwork(TINY).eval(), ModelCard("tiny", "fast"))


def scenes(*lengths: int, height: int = 48, speed: int = 2) -> list[Frame]:
    """Scenes of these lengths, 64 wide, one after the other at uneven times, panned by ``speed`` pixels a frame."""
    pictures = []
    for seed, n in enumerate(lengths):
        part = [p.mean(0)[:height, :64] for p in moving_scene(seed, n, speed)]
        pictures += [p if seed % 2 else 1 - p for p in part]
    planes = [(p.clamp(0, 1) * 255).round().to(torch.uint8) for p in pictures]
    return [
        Frame((p,), GRAY, pts=3 * i + i % 2, time_base=Fraction(1, 75), index=i) for i, p in enumerate(planes)
    ]  # fmt: skip


class Here:
    """A team that works in this process."""

    device, threads = "cpu", 1

    def __init__(self, setup: Setup, size: int = 2) -> None:
        self.size = size
        self.pieces: list[Piece] = []
        self._workers = [Worker(setup, "cpu", torch.get_num_threads()) for _ in range(size)]

    def submit(self, piece: Piece) -> Done:
        worker = self._workers[len(self.pieces) % self.size]
        self.pieces.append(piece)
        return Done(piece, worker.denoise(Outline.of(piece), map(unpacked, map(packed, piece.frames))))

    def close(self) -> None: ...


class Done:
    def __init__(self, piece: Piece, found: Iterator[Clean]) -> None:
        self.piece, self._found = piece, found

    def next(self, timeout: float) -> Clean | None:
        return next(self._found)


def both(
    model: Model, frames: list[Frame], cutter: dict[str, int] | None = None, **options: object
) -> tuple[list[Frame], list[Frame], list[Piece]]:
    """The frames as one process denoises them, and as several do, and the pieces."""
    given = {"device": "cpu", "backend": "eager", "precision": "fp32", "lookahead": 0, **options}
    make = functools.partial(Denoiser, **given)  # type: ignore[arg-type]
    _, session = FieldSessions(make, model).begin(grain_seed=0)
    whole = list(session(frames))
    team = Here(Setup(model, make, 0))
    cut = Cutter(given["lookahead"], detect_cuts=bool(given.get("detect_cuts", True)), **(cutter or {}))  # type: ignore[arg-type]
    parallel = ParallelDenoiser(lambda: team, cut, model_name="tiny")
    pieces = list(parallel(frames))
    assert parallel.n_cuts == session.n_cuts
    return whole, pieces, team.pieces


def differences(a: list[Frame], b: list[Frame]) -> list[int]:
    assert [frame.pts for frame in a] == [frame.pts for frame in b]
    return [int((x.planes[0].int() - y.planes[0].int()).abs().max()) for x, y in zip(a, b, strict=True)]


SHORT = {"longest": 18, "lead": 12, "shortest": 6}


@pytest.mark.parametrize("lookahead", [0, 3, 8])
@pytest.mark.parametrize("options", [{}, {"sigma": 20, "zones": "0.3-0.5:0.5"}], ids=["blind", "known"])
def test_pieces_that_begin_at_cuts_are_bit_exact(model: Model, lookahead: int, options: dict[str, object]) -> None:
    frames = scenes(8, 13, 11)
    whole, parallel, pieces = both(model, frames, SHORT, lookahead=lookahead, **options)
    assert [len(piece.wanted) for piece in pieces] == [8, 13, 11]
    assert max(differences(whole, parallel)) == 0
    assert max(differences(whole, frames)) > 0


@pytest.mark.parametrize(
    ("lookahead", "interlaced"),
    [(0, False), (5, True), *(pytest.param(*both, marks=pytest.mark.slow) for both in ((0, True), (5, False)))],
)
def test_within_a_scene_a_lead_in_brings_the_state_back(model: Model, lookahead: int, interlaced: bool) -> None:
    # In fields of so few lines, motion is ambiguous, and they do not always agree on cuts.
    frames = [replace(f, interlaced=interlaced) for f in scenes(60, height=64, speed=0 if interlaced else 2)]
    options = {"lookahead": lookahead, "detect_cuts": False}
    whole, parallel, pieces = both(model, frames, {"longest": 18, "lead": 18}, **options)
    assert len(pieces) >= 3
    assert sum(len(piece.wanted) for piece in pieces) == 60
    assert max(differences(whole, parallel)) <= 1
    # The control: without a lead-in, frames at the beginning of pieces differ visibly.
    _, parallel, _ = both(model, frames, {"longest": 18, "lead": 0}, **options)
    assert max(differences(whole, parallel)) > 1


def test_going_from_whole_frames_to_fields_and_back(model: Model) -> None:
    frames = [replace(f, interlaced=20 <= i < 41) for i, f in enumerate(scenes(30, 31, height=64))]
    whole, parallel, pieces = both(model, frames, {**SHORT, "lead": 18}, lookahead=5)
    assert [len(piece.wanted) for piece in pieces] == [20, 20, 21]
    assert max(differences(whole, parallel)) <= 2


def test_frames_come_back_with_what_belongs_to_them(model: Model) -> None:
    frames = [replace(f, packets=(f"packet {i}",), side_data=object()) for i, f in enumerate(scenes(7, 8))]  # type: ignore[arg-type]
    _, parallel, _ = both(model, frames, SHORT)
    for before, after in zip(frames, parallel, strict=True):
        assert (after.packets, after.index, after.duration) == (before.packets, before.index, before.duration)
        assert after.side_data is before.side_data


def test_no_piece_is_longer_than_it_may_be_and_cuts_in_short_ones_are_kept(model: Model) -> None:
    frames = scenes(*[3] * 10, 40)
    whole, parallel, pieces = both(model, frames, {"longest": 20, "lead": 6, "shortest": 10}, lookahead=3)
    assert all(10 <= len(piece.wanted) <= 23 for piece in pieces[:-1])
    assert max(differences(whole[:30], parallel[:30])) == 0


def test_a_stop_ends_the_stream_with_what_is_finished(model: Model) -> None:
    frames = scenes(30, 30, 30)
    make = functools.partial(Denoiser, device="cpu", backend="eager", lookahead=0)
    taken: list[Frame] = []
    given: list[Frame] = []

    def until_stopped() -> Iterator[Frame]:
        for frame in frames:
            taken.append(frame)
            yield frame

    team = Here(Setup(model, make, 0))
    parallel = ParallelDenoiser(lambda: team, Cutter(0), model_name="tiny", should_stop=lambda: len(given) >= 5)
    for frame in parallel(until_stopped()):
        given.append(frame)
    assert [frame.index for frame in given] == list(range(30))
    assert len(taken) == 32  # the first of the next piece, and one more, at which the run notices the stop
