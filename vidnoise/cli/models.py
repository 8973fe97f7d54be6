"""``vidnoise models``: the models shipped with vidnoise."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from vidnoise.text import safe


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print the full model cards as JSON.")
def models(names: tuple[str, ...], as_json: bool) -> None:
    """List the models."""
    from vidnoise.weights import find_model, list_models, read_card

    cards = {name: read_card(find_model(name))[0] for name in names or list_models()}
    if as_json:
        click.echo(json.dumps({name: asdict(card) for name, card in cards.items()}, indent=1))
        return
    width = max(len(name) for name in cards) if cards else 0
    for name, card in cards.items():
        mark = "  (default)" if name == "standard" else ""
        click.echo(safe(f"{name:<{width}}  {card.noise or 'no description'}{mark}"))
