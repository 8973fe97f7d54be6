"""``vidnoise evaluate``: quality and cost by the protocol, ours beside the classic filters."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ..evaluation.peers import Peer
    from ..evaluation.results import Results


SEARCH_FRAMES = 6
"""Frames of each clip (or still pictures) on which a classic filter's best strength is searched."""

LOOKAHEADS = (0, 8)
"""What is measured where nothing else is asked for: causal, and as files are denoised by default."""

SIGMAS = {"video": (10.0, 30.0, 50.0), "stills": (15.0, 25.0, 50.0)}
"""Noise levels where none are asked for: those of most published tables."""


@click.command()
@click.argument("clips", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", "models", multiple=True, help="Model to evaluate, or none; may be repeated.  [all shipped]")
@click.option(
    "--peers",
    default="all",
    show_default=True,
    help="Comma-separated: hqdn3d, atadenoise, vaguedenoiser, owdenoise, fftdnoiz, nlmeans, bm3d-ffmpeg (these by "
    "ffmpeg), opencv-nlm, opencv-nlm-multi, bm3d-pypi; all that can run here, or none.",
)
@click.option(
    "--sigma",
    "sigmas",
    multiple=True,
    type=click.FloatRange(0, 255),
    help="Noise level in 8-bit units; may be repeated.  [10, 30, 50; of still pictures 15, 25, 50]",
)
@click.option("--frames", type=click.IntRange(2), default=20, show_default=True, help="Frames of each clip.")
@click.option("--blind", is_flag=True, help="Estimate sigma instead of telling it.")
@click.option("--frame-wise", is_flag=True, help="Each model a second time, its state forgotten at every frame.")
@click.option(
    "--lookahead", "lookaheads", type=click.IntRange(0, 32), multiple=True,
    help="Frames that each may wait for; 0 is causal; may be repeated.  [default: 0 and 8]",
)  # fmt: skip
@click.option("--stills", is_flag=True, help="CLIPS has PNG pictures, gray or colour, instead of clips.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads, of filters too.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file of figures from elsewhere, listed as given (benchmarks/references.toml).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON result; a Markdown table and a plot go beside it. What it already has is kept and not measured again.",
)
@click.option("--again", is_flag=True, help="Measure again what the output already has.")
def evaluate(
    clips: Path,
    models: tuple[str, ...],
    peers: str,
    sigmas: tuple[float, ...],
    frames: int,
    blind: bool,
    frame_wise: bool,
    lookaheads: tuple[int, ...],
    stills: bool,
    device: str,
    threads: int | None,
    reference: Path | None,
    output: Path | None,
    again: bool,
) -> None:
    """Measure PSNR, SSIM, temporal error and time on the clean CLIPS folder under Gaussian noise.

    Classic filters get the strength that is best for them on these very clips at each sigma.
    """
    import cv2
    import torch
    from rich.console import Console

    from ..denoiser import resolve_device
    from ..evaluation.cost import kilo_macs
    from ..evaluation.peers import choose
    from ..evaluation.protocol import clean_clips, clean_stills, find_clips, network_method
    from ..evaluation.protocol import evaluate as run_protocol
    from ..evaluation.results import markdown, read_references, read_results
    from ..weights import find_model, list_models, load_model

    if threads:
        torch.set_num_threads(threads)
    cv2.setNumThreads(torch.get_num_threads())
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    target = resolve_device(device)
    protocol = {
        "kind": "stills" if stills else "video",
        "clips": sorted(find_clips(clips, stills=stills)),
        "frames": 1 if stills else frames,
        "blind": blind,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(target) if target.type == "cuda" else str(target),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
    levels = sorted(set(sigmas or SIGMAS[protocol["kind"]]))
    results = read_results(output, protocol)
    if reference:
        results["given"] = read_references(reference, protocol)
    chosen, left_out = choose(peers, protocol["frames"])
    for line in left_out:
        console.print(line)
    bench = _Bench(results, output, console, levels, again)

    def material(limit: int | None = None) -> Any:
        return clean_stills(clips, limit) if stills else clean_clips(clips, min(limit or frames, frames))

    for name in () if models == ("none",) else models or list_models():
        network, card = load_model(name, target)
        weights = hashlib.sha256(find_model(name).read_bytes()).hexdigest()[:16]
        ways = [(True, 0)] if stills else [(False, n) for n in lookaheads or LOOKAHEADS]
        for alone, ahead in [*ways, *([(True, 0)] if frame_wise and not stills else [])]:
            tags = [*(["blind"] if blind else []), *(["frame by frame"] if alone and not stills else [])]
            tags += [f"lookahead {ahead}"] if ahead else []
            cost = kilo_macs(network.config, frame_wise=alone, both_ways=ahead > 0)
            facts = {"kmac_per_pixel": cost, "weights": weights}
            method = network_method(network, blind=blind, frame_wise=alone, lookahead=ahead, device=target)
            bench.measure(
                card.name + (f" ({', '.join(tags)})" if tags else ""),
                facts | ({"frame_wise": True} if alone and not stills else {}),
                lambda sigma, method=method: run_protocol(method, material(), sigma),
            )
    for peer in chosen:
        bench.measure_peer(peer, material, may_fail=peers == "all")
    bench.write()
    if output:
        console.print(f"written: {output} and {output.with_suffix('.md')}")
        _plot(results, output.with_suffix(".png"), console)
    else:
        click.echo(markdown(results))


class _Bench:
    """Measures what the results do not have yet, and writes them after each method and sigma."""

    def __init__(
        self, results: Results, output: Path | None, console: Console, sigmas: list[float], again: bool
    ) -> None:
        self.results, self.output, self.console, self.sigmas, self.again = results, output, console, sigmas, again

    def measure(self, label: str, facts: dict[str, Any], run: Callable[[float], dict[str, Any]]) -> None:
        """``run`` at every sigma; ``facts`` are what is known of the method as a whole."""
        methods = self.results["methods"]
        earlier = methods.get(label, {})
        if earlier.get("weights", facts.get("weights")) != facts.get("weights"):
            self.console.print(f"{label}: the weights have changed since; what was measured is dropped")
            earlier = {}
        done = earlier.get("sigmas", {})
        for sigma in self.sigmas:
            key = f"{sigma:g}"
            if key in done and not self.again:
                self.console.print(f"{label}, sigma {key}: kept from {self.output}")
                continue
            done[key] = run(sigma)
            methods[label] = earlier | facts | {"sigmas": dict(sorted(done.items(), key=lambda item: float(item[0])))}
            self.write()
            mean = done[key]["mean"]
            self.console.print(
                f"{label}, sigma {key}: {mean['psnr']:.2f} dB, {mean['ms_per_megapixel']:.0f} ms a megapixel"
                + (f", strength {done[key]['strength']:g}" if "strength" in done[key] else "")
                + (" (at the edge of those tried)" if done[key].get("strength_at_edge") else "")
            )

    def measure_peer(self, peer: Peer, material: Callable[..., Any], *, may_fail: bool) -> None:
        """A filter at its best strength; with ``may_fail`` an error is reported, and the others go on."""
        from ..errors import UsageError
        from ..evaluation.peers import search
        from ..evaluation.protocol import evaluate as run_protocol

        def run(sigma: float) -> dict[str, Any]:
            strength, at_edge = search(peer, material(SEARCH_FRAMES), sigma)
            rows = run_protocol(peer.method(strength), material(), sigma, idle=peer.idle_method())
            return {**rows, "strength": strength, "strength_at_edge": at_edge}

        try:
            self.measure(peer.name, {}, run)
        except UsageError as ex:
            if not may_fail:
                raise
            self.console.print(f"{peer.name} is left out: {ex}")

    def write(self) -> None:
        """All results so far: a long comparison that is stopped loses only the sigma it was at."""
        from ..evaluation.results import write_results

        if self.output:
            write_results(self.output, self.results)


def _plot(results: Results, picture: Path, console: Console) -> None:
    from ..evaluation.plot import plot_results

    try:
        plot_results(results, picture)
    except ImportError as ex:
        console.print(f"no plot: matplotlib is not usable ({ex}): pip install 'vidnoise[train]'")
    else:
        console.print(f"written: {picture}")
