"""``vidnoise models``: the models shipped with vidnoise."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from vidnoise.text import safe

_FRAMES = 2
"""Frames that are timed for ``--measure``, after those that warm up."""


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--measure", is_flag=True, help="Measure frames per second at 1080p on this machine (backend eager).")
@click.option("--json", "as_json", is_flag=True, help="Print the full model cards as JSON.")
def models(names: tuple[str, ...], measure: bool, as_json: bool) -> None:
    """List the models: cost in thousand multiply-adds per pixel (kMAC/px), and what each is for."""
    from vidnoise.evaluation.cost import kilo_macs
    from vidnoise.model import ModelConfig
    from vidnoise.weights import find_model, list_models, read_card

    names = names or tuple(list_models())
    width = max((len(name) for name in names), default=0)
    found = {}
    for name in names:
        card, config = read_card(find_model(name))
        cost = kilo_macs(ModelConfig.from_dict(config))
        speed = _measured_fps(name) if measure else None
        about = card.purpose
        if as_json:
            found[name] = {
                **asdict(card), "kmac_per_pixel": round(cost, 1), "purpose": about and about.summary,
                "use_when": about and about.use_when, **({} if speed is None else {"fps_1080p": round(speed, 2)}),
            }  # fmt: skip
            continue
        text = f"{about.summary}; use it when {about.use_when}" if about else card.noise or "no description"
        fps = "" if speed is None else f"  {speed:6.2f} fps"
        mark = "  (default)" if name == "standard" else ""
        click.echo(safe(f"{name:<{width}}  {cost:5.1f} kMAC/px{fps}  {text}{mark}"))
    if as_json:
        click.echo(json.dumps(found, indent=1))


def _measured_fps(model: str) -> float:
    """Return the frames of 1920x1080 that a model denoises per second here."""
    from vidnoise.backends.device import resolve_device
    from vidnoise.bench.cases import SIZES, Case
    from vidnoise.bench.session import Session

    case = Case(model, str(resolve_device("auto")), "eager", "auto", *SIZES["1080p"])
    ms = Session(case).burst(_FRAMES, seconds=0)
    return 1e3 * len(ms) / sum(ms)
