"""``vidnoise evaluate``: quality by the protocol, ours beside the classic filters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


SEARCH_FRAMES = 6
"""Frames of each clip on which a classic filter's best strength is searched."""


@click.command()
@click.argument("clips", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", "models", multiple=True, help="Model to evaluate; may be repeated.  [all that are shipped]")
@click.option(
    "--peers", default="all", show_default=True, help="Comma-separated: hqdn3d,nlmeans,opencv-nlm; all, or none."
)
@click.option(
    "--sigma", "sigmas", multiple=True, type=click.FloatRange(0, 255), default=(10, 30, 50), show_default=True
)
@click.option("--frames", type=click.IntRange(2), default=20, show_default=True, help="Frames of each clip.")
@click.option("--blind", is_flag=True, help="Estimate sigma instead of telling it.")
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON result; a Markdown table goes beside it. Earlier results in it for other methods are kept.",
)
def evaluate(
    clips: Path,
    models: tuple[str, ...],
    peers: str,
    sigmas: tuple[float, ...],
    frames: int,
    blind: bool,
    device: str,
    threads: int | None,
    output: Path | None,
) -> None:
    """Measure PSNR, SSIM and temporal error on the clean CLIPS folder under Gaussian noise.

    Classic filters get the strength that is best for them on these very clips at each sigma.
    """
    import torch
    from rich.console import Console

    from ..denoiser import resolve_device
    from ..errors import UsageError
    from ..evaluation.peers import PEERS
    from ..evaluation.protocol import evaluate as run_protocol
    from ..evaluation.protocol import network_method
    from ..weights import list_models, load_model

    if threads:
        torch.set_num_threads(threads)
    console = Console(stderr=True, highlight=False)
    chosen = {"all": list(PEERS), "none": []}.get(peers, peers.split(","))
    if unknown := [p for p in chosen if p not in PEERS]:
        raise UsageError(f"unknown peer {unknown[0]!r}; there are: {', '.join(PEERS)}")
    results: dict[str, Any] = json.loads(output.read_text()) if output and output.is_file() else {}

    def keep(label: str, result: dict[str, Any]) -> None:
        """Written at once: a long comparison that is stopped loses only the method it was at."""
        results[label] = result
        _report(console, label, result)
        if output:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(results, indent=1) + "\n")
            output.with_suffix(".md").write_text(markdown(results))

    target = resolve_device(device)
    for name in models or list_models():
        network, card = load_model(name, target)
        label = card.name + (" (blind)" if blind else "")
        keep(label, run_protocol(network_method(network, blind=blind, device=target), clips, sigmas, frames))
    for name in chosen:
        peer = PEERS[name]
        scores = {}
        for sigma in sigmas:
            tries = {}
            for strength in peer.strengths(sigma):
                found = run_protocol(peer.method(strength), clips, (sigma,), min(SEARCH_FRAMES, frames))
                tries[strength] = found[f"{sigma:g}"]["mean"]["psnr"]
            best = max(tries, key=lambda s: tries[s])
            scores |= run_protocol(peer.method(best), clips, (sigma,), frames)
            scores[f"{sigma:g}"]["strength"] = best
        keep(name, scores)
    if output:
        console.print(f"written: {output} and {output.with_suffix('.md')}")
    else:
        click.echo(markdown(results))


def _report(console: Console, name: str, result: dict[str, Any]) -> None:
    console.print(f"{name}: " + "  ".join(f"sigma {s}: {r['mean']['psnr']:.2f} dB" for s, r in result.items()))


def markdown(results: dict[str, Any]) -> str:
    """The table: PSNR in dB / SSIM / temporal error, one column a sigma, best at the strongest noise first."""
    sigmas = sorted({s for r in results.values() for s in r}, key=float)
    lines = ["PSNR (dB) / SSIM / temporal error, mean over clips.", ""]
    lines += ["| method | " + " | ".join(f"sigma {s}" for s in sigmas) + " |", "|---" * (len(sigmas) + 1) + "|"]

    def best_first(item: tuple[str, dict[str, Any]]) -> list[float]:
        return [-item[1][s]["mean"]["psnr"] for s in reversed(sigmas) if s in item[1]]

    for name, result in sorted(results.items(), key=best_first):
        means = [result.get(s, {}).get("mean") for s in sigmas]
        cells = [f"{m['psnr']:.2f} / {m['ssim']:.3f} / {m['temporal_error']:.1f}" if m else "–" for m in means]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
