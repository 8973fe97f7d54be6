"""Model files: safetensors whose metadata says what they are. Nothing is pickled, nothing is guessed."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .disk import write_whole
from .errors import UnknownModelError, WeightsError

if TYPE_CHECKING:
    import torch

    from .model import DenoiseNetwork

FORMAT = "2"
"""1: RGB, before luma and chroma had levels and gains of their own."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Where a model comes from and what it can do."""

    name: str
    tier: str
    version: str = "1"
    noise: str = ""
    """The noise it was trained on."""
    training: dict[str, Any] = field(default_factory=dict)
    """The training configuration, steps and hours."""
    metrics: dict[str, Any] = field(default_factory=dict)
    licence: str = "MIT"


def _folders() -> list[Path]:
    package = Path(__file__).parent
    # In the wheel the models lie inside the package, in a checkout beside it.
    return [folder for folder in (package / "models", package.parent / "models") if folder.is_dir()]


def _shipped() -> dict[str, Path]:
    """Newest file of each shipped model; files are called ``<name>-<version>.safetensors``."""
    found: dict[str, tuple[int, Path]] = {}
    for folder in _folders():
        for path in folder.glob("*.safetensors"):
            name, _, version = path.stem.rpartition("-")
            number = int(version) if version.isdigit() else 0
            if name and number > found.get(name, (-1, path))[0]:
                found[name] = (number, path)
    return {name: path for name, (_, path) in sorted(found.items())}


def list_models() -> list[str]:
    """Names of the models that come with vidnoise.

    >>> import vidnoise
    >>> "standard" in vidnoise.list_models()
    True
    """
    return list(_shipped())


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a model.

    Raises:
        UnknownModelError: no shipped model has that name, and no such file exists.
    """
    text = os.fspath(name_or_path)
    shipped = _shipped()
    if text in shipped:
        return shipped[text]
    path = Path(text)
    if path.suffix == ".safetensors":
        if path.is_file():
            return path
        raise UnknownModelError(f"model file does not exist: {path}")
    near = difflib.get_close_matches(text, shipped, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownModelError(
        f"unknown model {text!r}{hint} (there are: {', '.join(shipped)}, or give a .safetensors file)"
    )


def read_card(path: Path) -> tuple[ModelCard, dict[str, Any]]:
    """Card and network settings of a model file, without loading its weights.

    Raises:
        WeightsError: the file is damaged, or not a model of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as ex:
        raise WeightsError(f"{path} is not a readable safetensors file: {ex}") from ex
    if metadata.get("vidnoise_format") != FORMAT:
        found = metadata.get("vidnoise_format", "none")
        raise WeightsError(f"{path}: model format {found}, this version of vidnoise reads format {FORMAT}")
    try:
        return ModelCard(**json.loads(metadata["card"])), json.loads(metadata["config"])
    except (KeyError, TypeError, ValueError) as ex:
        raise WeightsError(f"{path}: damaged model card: {ex}") from ex


def load_model(
    name_or_path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[DenoiseNetwork, ModelCard]:
    """Load a network in evaluation mode.

    Args:
        name_or_path: one of :func:`list_models`, or a ``.safetensors`` file from training.
        device: where the weights go.

    Raises:
        UnknownModelError: there is no such model.
        WeightsError: the file is damaged or of another version.

    >>> import vidnoise
    >>> network, card = vidnoise.load_model("fast")
    >>> card.tier
    'fast'
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .model import DenoiseNetwork, ModelConfig

    path = find_model(name_or_path)
    card, config = read_card(path)
    try:
        network = DenoiseNetwork(ModelConfig.from_dict(config))
        network.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError, ValueError, TypeError) as ex:
        raise WeightsError(f"{path}: {ex}") from ex
    return network.place(device).eval().requires_grad_(False), card


def save_model(network: DenoiseNetwork, card: ModelCard, path: str | os.PathLike[str]) -> None:
    """Write weights, settings and card to one file; the old one stays until the new one is whole.

    Weights are stored in float16, which halves the file and changes pictures by a thousandth of a dB at most.
    """
    from dataclasses import asdict

    from safetensors.torch import save

    metadata = {
        "vidnoise_format": FORMAT, "config": json.dumps(network.config.to_dict()), "card": json.dumps(asdict(card)),
    }  # fmt: skip
    content = save({k: v.half().contiguous() for k, v in network.state_dict().items()}, metadata=metadata)
    write_whole(os.fspath(path), content, overwrite=True)
