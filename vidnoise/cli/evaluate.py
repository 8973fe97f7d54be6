"""``vidnoise evaluate``: quality and cost of the models, compared with classic filters."""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from vidnoise.cli.options import device_option, limits
from vidnoise.errors import UsageError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from vidnoise.evaluation.scenarios import Shot
    from vidnoise.evaluation.tables import Results


SEARCH_FRAMES = 6
"""Number of frames of each clip, or of still pictures, used to find the best strength of a classic filter."""

LOOKAHEADS = (0, 8)
"""Default lookaheads: causal, and the default for files."""

SIGMAS = {"video": (10.0, 30.0, 50.0), "stills": (15.0, 25.0, 50.0)}
"""Default noise levels: those of most published tables."""


class Options(NamedTuple):
    """The values of the command-line options."""

    clips: Path
    protocol: str
    models: tuple[str, ...]
    peers: str
    sigmas: tuple[float, ...]
    scenarios: tuple[str, ...]
    frames: int
    blind: bool
    frame_wise: bool
    lookaheads: tuple[int, ...]
    stills: bool
    vmaf: bool
    device: str
    threads: int | None
    reference: Path | None
    output: Path | None
    again: bool


@click.command()
@click.argument("clips", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--protocol",
    type=click.Choice(["awgn", "real", "photos"]),
    default="awgn",
    show_default=True,
    help="awgn: white Gaussian noise of known sigma. real: realistic noise of video (planes, sensors, tapes, grain, "
    "codecs), blind. photos: pairs of photographs and their ground truth, *_real.JPG and *_mean.JPG, blind.",
)
@click.option("--model", "models", multiple=True, help="Model to evaluate, or none; may be repeated.  [all shipped]")
@click.option(
    "--peers",
    default="all",
    show_default=True,
    help="Comma-separated: hqdn3d, atadenoise, vaguedenoiser, owdenoise, fftdnoiz, nlmeans, bm3d-ffmpeg (run by "
    "ffmpeg), opencv-nlm, opencv-nlm-multi, bm3d-pypi; for real and photos: hqdn3d, nlmeans, bm3d-ffmpeg; all for "
    "those that can run here; or none.",
)
@click.option(
    "--sigma",
    "sigmas",
    multiple=True,
    type=limits("sigma"),
    help="Noise level in 8-bit units; may be repeated.  [10, 30, 50; for still pictures 15, 25, 50]",
)
@click.option("--scenario", "scenarios", multiple=True, help="Scenario of --protocol real; may be repeated.  [all]")
@click.option("--frames", type=click.IntRange(2), default=20, show_default=True, help="Frames of each clip.")
@click.option("--blind", is_flag=True, help="Let the models estimate sigma instead of giving it.")
@click.option("--frame-wise", is_flag=True, help="Also evaluate each model without memory of earlier frames.")
@click.option(
    "--lookahead", "lookaheads", type=limits("lookahead"), multiple=True,
    help="Number of following frames to use; 0 is causal; may be repeated.  [default: 0 and 8]",
)  # fmt: skip
@click.option("--stills", is_flag=True, help="CLIPS contains PNG pictures, gray or colour, instead of clips.")
@click.option("--vmaf", is_flag=True, help="Also measure VMAF, by an ffmpeg that has libvmaf.")
@device_option
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads, also for filters.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file with published figures to list (benchmarks/references.toml).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON results; Markdown tables and, for awgn, a plot are written next to it. What it already contains is not "
    "measured again.",
)
@click.option("--again", is_flag=True, help="Measure again what the output already contains.")
def evaluate(**options: Any) -> None:
    """Measure PSNR and flicker on a folder of clean CLIPS, with Gaussian or realistic noise.

    Classic filters get the strength that works best on these very clips, for each sigma or scenario.
    """
    import torch
    from rich.console import Console

    from vidnoise.backends.device import resolve_device
    from vidnoise.cli.console import can_plot
    from vidnoise.evaluation.tables import markdown
    from vidnoise.evaluation.vmaf import check_available
    from vidnoise.opencv import cv2

    given = Options(**options)
    if given.vmaf:
        check_available()
    if given.threads:
        torch.set_num_threads(given.threads)
    cv2.setNumThreads(torch.get_num_threads())
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    device = resolve_device(given.device)
    run = _gaussian if given.protocol == "awgn" else _real
    plots = given.output is not None and given.protocol == "awgn" and can_plot(console)
    results = run(given, device, console)
    if given.output:
        console.print(f"written: {given.output} and {given.output.with_suffix('.md')}")
        if plots:
            from vidnoise.evaluation.plot import plot_results

            plot_results(results, given.output.with_suffix(".png"))
            console.print(f"written: {given.output.with_suffix('.png')}")
    else:
        click.echo(markdown(results))


def _gaussian(given: Options, device: torch.device, console: Console) -> Results:
    """Run the protocol ``awgn`` on clips or stills."""
    import torch

    from vidnoise.cli.measuring import Measuring
    from vidnoise.evaluation.cost import kilo_macs
    from vidnoise.evaluation.peers import PEERS, choose, search
    from vidnoise.evaluation.protocol import clean_clips, clean_stills, find_clips, network_method
    from vidnoise.evaluation.protocol import evaluate as run_protocol
    from vidnoise.evaluation.results import read_references, read_results
    from vidnoise.weights import load_model

    if given.scenarios:
        raise UsageError("--scenario goes with --protocol real")
    frames = 1 if given.stills else given.frames
    protocol = {
        "kind": "stills" if given.stills else "video",
        "clips": sorted(find_clips(given.clips, stills=given.stills)),
        "frames": frames,
        "blind": given.blind,
        "threads": torch.get_num_threads(),
        "device": _device_name(device),
        **_today(),
    }
    results = read_results(given.output, protocol)
    if given.reference:
        results["given"] = read_references(given.reference, protocol)
    chosen, left_out = choose(given.peers, frames, PEERS)
    for line in left_out:
        console.print(line)
    levels = sorted(set(given.sigmas or SIGMAS[protocol["kind"]]))
    measuring = Measuring(results, given.output, console, given.again, "sigmas", float, _newest_metric(given))

    def material(limit: int | None = None) -> Any:
        if given.stills:
            return clean_stills(given.clips, limit)
        return clean_clips(given.clips, min(limit or frames, frames))

    for name in _models(given):
        model = load_model(name, device)
        ways = [(True, 0)] if given.stills else [(False, n) for n in given.lookaheads or LOOKAHEADS]
        for alone, ahead in [*ways, *([(True, 0)] if given.frame_wise and not given.stills else [])]:
            tags = [*(["blind"] if given.blind else []), *(["frame by frame"] if alone and not given.stills else [])]
            tags += [f"lookahead {ahead}"] if ahead else []
            cost = kilo_macs(model.network.config, frame_wise=alone, both_ways=ahead > 0)
            facts: dict[str, Any] = {"kmac_per_pixel": cost, "weights": _weights(name)}
            facts |= {"frame_wise": True} if alone and not given.stills else {}
            method = network_method(model.network, blind=given.blind, frame_wise=alone, lookahead=ahead, device=device)
            label = model.name + (f" ({', '.join(tags)})" if tags else "")
            for sigma in levels:
                run = functools.partial(run_protocol, method, material(), sigma, with_vmaf=given.vmaf)
                measuring.measure(label, facts, f"{sigma:g}", run)
    for peer in chosen:

        def at_best_strength(sigma: float, peer: Any = peer) -> dict[str, Any]:
            strength, at_edge = search(peer, material(SEARCH_FRAMES), sigma)
            method, idle = peer.method(strength), peer.idle_method()
            rows = run_protocol(method, material(), sigma, idle=idle, with_vmaf=given.vmaf)
            return {**rows, "strength": strength, "strength_at_edge": at_edge}

        for sigma in levels:
            run = functools.partial(at_best_strength, sigma)
            if not measuring.measure_peer(peer.name, f"{sigma:g}", run, may_fail=given.peers == "all"):
                break
    measuring.write()
    return results


def _real(given: Options, device: torch.device, console: Console) -> Results:
    """Run the protocols ``real`` and ``photos`` by scenario; material is only made for what is missing."""
    from vidnoise.cli.measuring import Measuring
    from vidnoise.evaluation.cost import kilo_macs
    from vidnoise.evaluation.ffmpeg import missing_filter
    from vidnoise.evaluation.peers import choose
    from vidnoise.evaluation.plane_filters import PLANE_FILTERS
    from vidnoise.evaluation.protocol import find_clips
    from vidnoise.evaluation.real import denoising, evaluate_filter, find_photos, photo_pairs, shots
    from vidnoise.evaluation.real import evaluate as run_protocol
    from vidnoise.evaluation.results import read_results
    from vidnoise.evaluation.scenarios import SCENARIOS
    from vidnoise.weights import load_model

    photos = given.protocol == "photos"
    for option, value in (
        ("sigma", given.sigmas), ("blind", given.blind), ("frame-wise", given.frame_wise), ("stills", given.stills),
        ("reference", given.reference), ("scenario", given.scenarios if photos else ()),
        ("lookahead", given.lookaheads if photos else ()),
    ):  # fmt: skip
        if value:
            raise UsageError(f"--{option} does not go with --protocol {given.protocol}")
    if unknown := [name for name in given.scenarios if name not in SCENARIOS]:
        raise UsageError(f"unknown scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}")
    if not photos and (reason := missing_filter("noise")):
        raise UsageError(f"--protocol real makes its noisy clips by ffmpeg, and {reason}")
    about = {"photos": "photographs"} if photos else {name: s.about for name, s in SCENARIOS.items()}
    protocol = {
        "kind": given.protocol,
        "clips": sorted(find_photos(given.clips) if photos else find_clips(given.clips)),
        "frames": 1 if photos else given.frames,
        "blind": True,
        # Results depend on them only by rounding.
        "threads": None,
        "device": None,
        "scenarios": about,
        **_today(),
    }
    results = read_results(given.output, protocol)
    chosen, left_out = choose(given.peers, protocol["frames"], PLANE_FILTERS)
    for line in left_out:
        console.print(line)
    order = list(about).index
    measuring = Measuring(results, given.output, console, given.again, "scenarios", order, _newest_metric(given))
    models = []
    for name in _models(given):
        model = load_model(name)
        for ahead in (0,) if photos else given.lookaheads or LOOKAHEADS:
            facts = {"kmac_per_pixel": kilo_macs(model.network.config, both_ways=ahead > 0), "weights": _weights(name)}
            label = f"{model.name} (lookahead {ahead})" if ahead else model.name
            models.append((name, ahead, label, facts))
    for case in about:
        if given.scenarios and case not in given.scenarios:
            continue
        strength = 1.0 if photos else SCENARIOS[case].strength

        @functools.cache
        def material(case: str = case) -> list[Shot]:
            return photo_pairs(given.clips) if photos else shots(SCENARIOS[case], given.clips, given.frames)

        def row(method: Any, material: Callable[[], list[Shot]] = material) -> Any:
            return lambda: run_protocol(method, material(), with_vmaf=given.vmaf)

        measuring.measure("noisy", {}, case, row(list))
        for name, ahead, label, facts in models:
            method = denoising(name, strength=strength, lookahead=ahead, device=device)
            measuring.measure(label, facts, case, row(method))
        for peer in chosen if photos or not SCENARIOS[case].source else ():

            def at_best_strengths(peer: Any = peer, material: Callable[[], list[Shot]] = material) -> dict[str, object]:
                return evaluate_filter(peer, material(), with_vmaf=given.vmaf)

            measuring.measure_peer(peer.name, case, at_best_strengths, may_fail=given.peers == "all")
    measuring.write()
    return results


def _newest_metric(given: Options) -> str:
    """Return the metric that earlier results are most likely to lack."""
    return "vmaf" if given.vmaf else "psnr"


def _models(given: Options) -> list[str]:
    from vidnoise.weights import list_models

    return [] if given.models == ("none",) else list(given.models or list_models())


def _weights(model: str) -> str:
    """Return a hash that identifies the weights of a model."""
    from vidnoise.weights import find_model

    return hashlib.sha256(find_model(model).read_bytes()).hexdigest()[:16]


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _today() -> dict[str, str]:
    import torch

    return {"torch": torch.__version__, "date": datetime.date.today().isoformat()}
