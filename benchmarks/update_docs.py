"""Fill the measured parts of README.md and models/README.md from the files that commands wrote.

Text between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is replaced: NAME is a Markdown file of this
folder without its suffix, with ``:1`` behind it if only its first table is wanted, or ``cards`` for the table of the
model files.

    python benchmarks/update_docs.py
"""

from __future__ import annotations

import re
from pathlib import Path

from vidnoise.evaluation.cost import kilo_macs
from vidnoise.model import DenoiseNetwork, ModelConfig
from vidnoise.training.legs import legs_of, record
from vidnoise.weights import find_model, list_models, read_card

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "models/README.md", "docs/STREAMS.md")


def _origin(initial: str | dict[str, str] | None) -> str:
    """What a model's training started from, in words."""
    if initial is None or isinstance(initial, str):
        return initial or "nothing"
    modules: dict[str, list[str]] = {}
    for module, name in initial.items():
        modules.setdefault(Path(name).stem, []).append(module.replace("_", " "))
    return "; ".join(f"{name} ({', '.join(parts)})" for name, parts in modules.items())


def cards() -> str:
    """One row a model file."""
    lines = ["| model | kMAC/px | parameters | started from | steps | core hours | noise |", "|---" * 7 + "|"]
    for name in list_models():
        card, settings = read_card(find_model(name))
        config = ModelConfig.from_dict(settings)
        parameters = sum(p.numel() for p in DenoiseNetwork(config).parameters())
        legs, origin = record(legs_of(card)), _origin(card.training.get("initial"))
        lines.append(
            f"| `{name}` | {kilo_macs(config):.1f} | {parameters / 1e6:.2f} M | {origin} "
            f"| {legs['steps']:,} | {legs['core_hours']:g} | {card.noise.replace('_', ' ')} |"
        )
    return "\n".join(lines)


def first_table(text: str) -> str:
    """A Markdown text up to the end of its first table."""
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i, line in enumerate(lines) if i > begin and not line.startswith("|")), len(lines))
    return "\n".join(lines[:end])


def fill(text: str) -> str:
    """Replace every marked part."""

    def part(match: re.Match[str]) -> str:
        name = match[1]
        file, _, only_first = name.partition(":")
        body = cards() if name == "cards" else (ROOT / "benchmarks" / f"{file}.md").read_text().strip()
        body = first_table(body) if only_first else body
        return f"<!-- begin {name} -->\n{body}\n<!-- end {name} -->"

    return re.sub(r"<!-- begin (\S+) -->.*?<!-- end \1 -->", part, text, flags=re.S)


def main() -> None:
    """Rewrite the documents."""
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(fill(path.read_text()))


if __name__ == "__main__":
    main()
