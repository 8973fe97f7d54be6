"""Fill the measured parts of README.md and models/README.md from the files that commands wrote.

Text between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is replaced: NAME is a Markdown file of this
folder without its suffix, or ``cards`` for the table of the model files.

    python benchmarks/update_docs.py
"""

from __future__ import annotations

import re
from pathlib import Path

from vidnoise.model import TIERS, DenoiseNetwork
from vidnoise.weights import find_model, list_models, read_card

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "models/README.md")


def kilo_macs(tier: str) -> float:
    """Multiply-adds a pixel, in thousands, noise level and flow included."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = DenoiseNetwork(TIERS[tier]).requires_grad_(False)
    frame = torch.rand(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counter:
        network(frame, network.estimate_sigma(frame), network.initial_state(1, 64, 64))
    return counter.get_total_flops() / 2 / 64**2 / 1000


def cards() -> str:
    """One row a model file."""
    lines = ["| model | kMAC/px | parameters | started from | steps | core hours | noise |", "|---" * 7 + "|"]
    for name in list_models():
        card, _ = read_card(find_model(name))
        parameters = sum(p.numel() for p in DenoiseNetwork(TIERS[card.tier]).parameters())
        t = card.training
        lines.append(
            f"| `{name}` | {kilo_macs(card.tier):.1f} | {parameters / 1e6:.2f} M | {t.get('initial') or 'nothing'} "
            f"| {t['steps']:,} | {t['hours']} | {card.noise.replace('_', ' ')} |"
        )
    return "\n".join(lines)


def fill(text: str) -> str:
    """Replace every marked part."""

    def part(match: re.Match[str]) -> str:
        name = match[1]
        body = cards() if name == "cards" else (ROOT / "benchmarks" / f"{name}.md").read_text().strip()
        return f"<!-- begin {name} -->\n{body}\n<!-- end {name} -->"

    return re.sub(r"<!-- begin (\S+) -->.*?<!-- end \1 -->", part, text, flags=re.S)


def main() -> None:
    """Rewrite the documents."""
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(fill(path.read_text()))


if __name__ == "__main__":
    main()
