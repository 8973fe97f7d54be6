"""Model files: safetensors that describe themselves in their metadata. Nothing is unpickled."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from vidnoise.disk import write_whole
from vidnoise.errors import UnknownModelError, UsageError, WeightsError

if TYPE_CHECKING:
    import torch

    from vidnoise.model import DenoiseNetwork

FORMAT = "2"
"""Version of the file format. Version 1 was RGB, without separate noise levels and gains for luma and chroma."""


INT8 = "-int8"
"""What the name of a model has at its end in the name of its int8 weights, which are no model of their own."""


class Purpose(NamedTuple):
    """Purpose of a model, for users who choose one."""

    summary: str
    """The model in one line."""
    use_when: str
    """Completes "use it when ..."."""


PURPOSES = {
    "fast": Purpose("1.4 to 1.7 times as fast as standard on a CPU", "video is live, or a CPU has no time for more"),
    "standard": Purpose("the default: the best pictures for the work", "in doubt"),
    "quality": Purpose(
        "slightly better than standard in 2.2 to 2.5 times its time on a CPU", "there is a GPU, or time"
    ),
    "standard-awgn": Purpose(
        "the network of standard, for white Gaussian noise only", "the noise is synthetic, as in published tables"
    ),
}
"""Purposes of the shipped models by name."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Provenance and performance of a model."""

    name: str
    tier: str
    version: str = "1"
    noise: str = ""
    """Description of the noise that the model was trained on."""
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    """Training configuration, steps and hours."""
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    licence: str = "MIT"
    sha256: str = ""
    """Checksum of the stored weights (:func:`checksum`); empty in older files without one."""

    @property
    def purpose(self) -> Purpose | None:
        """Purpose of the model; None for models that are not shipped with vidnoise."""
        return PURPOSES.get(self.name)

    def __post_init__(self) -> None:
        for name in ("name", "tier", "version", "noise", "licence", "sha256"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is no text")
        for name in ("training", "metrics"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} is no table")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Model:
    """A network with its card, as returned by :func:`load_model`.

    It can be passed wherever the name of a model can; any number of sessions may share it.
    """

    network: DenoiseNetwork
    """The network, in evaluation mode."""
    card: ModelCard
    int8: str | None = None
    """Name of its int8 weights, if there are any."""

    @property
    def name(self) -> str:
        """Name on the model's card; ``custom`` for a network without one."""
        return self.card.name

    def __repr__(self) -> str:
        weights = list(self.network.parameters())
        size, device = sum(each.numel() for each in weights), weights[0].device if weights else "no device"
        return f"Model({self.name!r}, tier {self.card.tier}, version {self.card.version}, {size:,} weights on {device})"


ModelLike: TypeAlias = "str | os.PathLike[str] | Model | DenoiseNetwork"
"""A name from :func:`list_models`, a ``.safetensors`` file, what :func:`load_model` returned, or a network."""


def _folders() -> list[Path]:
    package = Path(__file__).parent
    # In a wheel, the models are inside the package; in a checkout, next to it.
    return [folder for folder in (package / "models", package.parent / "models") if folder.is_dir()]


def _shipped() -> dict[str, Path]:
    """Return the newest file of each shipped model; files are named ``<name>-<version>.safetensors``."""
    found: dict[str, tuple[int, Path]] = {}
    for folder in _folders():
        for path in folder.glob("*.safetensors"):
            name, _, version = path.stem.rpartition("-")
            number = int(version) if version.isdigit() else 0
            if name and number > found.get(name, (-1, path))[0]:
                found[name] = (number, path)
    return {name: path for name, (_, path) in sorted(found.items())}


def list_models() -> list[str]:
    """Return the names of the models shipped with vidnoise.

    >>> import vidnoise
    >>> "standard" in vidnoise.list_models()
    True
    """
    return [name for name in _shipped() if not name.endswith(INT8)]


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a model.

    Raises:
        UnknownModelError: No shipped model has this name, and there is no such file.
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
    """Read the card and the network settings of a model file, without loading its weights.

    Raises:
        WeightsError: The file is damaged, or not a model of vidnoise.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
            metadata = cast("dict[str, str]", file.metadata() or {})  # pyright: ignore[reportUnknownMemberType]
    except (SafetensorError, OSError) as ex:
        raise WeightsError(f"{path} is not a readable safetensors file: {ex}") from ex
    if metadata.get("vidnoise_format") != FORMAT:
        found = metadata.get("vidnoise_format", "none")
        raise WeightsError(f"{path}: model format {found}, this version of vidnoise reads format {FORMAT}")
    try:
        card, config = ModelCard(**json.loads(metadata["card"])), cast("object", json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError, RecursionError) as ex:
        raise WeightsError(f"{path}: damaged model card: {ex}") from ex
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: damaged model card: its settings are no table")
    return card, cast("dict[str, Any]", config)


def load_model(name_or_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Model:
    """Load a network in evaluation mode.

    Args:
        name_or_path: One of :func:`list_models`, or a ``.safetensors`` file from training.
        device: Device for the weights.

    Raises:
        UnknownModelError: There is no such model.
        WeightsError: The file is damaged or of another version.

    >>> import vidnoise
    >>> model = vidnoise.load_model("fast")
    >>> model.name, model.card.tier
    ('fast', 'fast')
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    from vidnoise.model import DenoiseNetwork, ModelConfig
    from vidnoise.model.quantisation import unpacked

    path = find_model(name_or_path)
    card, config = read_card(path)
    try:
        stored = load_file(path)
        weights = unpacked(stored)
        _check_numbers(weights, path)
        if card.sha256 and card.sha256 != checksum(stored):
            raise WeightsError(f"{path}: is damaged: its weights are not those that its card was written for")
        _check_sizes(config, weights, path)
        network = DenoiseNetwork(ModelConfig.from_dict(config))
        network.load_state_dict(weights, strict=True)
    except WeightsError:
        raise
    except (SafetensorError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, OSError) as ex:
        raise WeightsError(f"{path}: {ex}") from ex
    int8 = f"{os.fspath(name_or_path)}{INT8}"
    return Model(network.place(device).eval().requires_grad_(False), card, int8 if int8 in _shipped() else None)


def as_int8(model: Model, device: torch.device | str = "cpu") -> Model:
    """Return a model with int8 weights on ``device``: the given one if it has, or those that belong to it.

    Raises:
        UsageError: There are none.
        UnknownModelError, WeightsError: See :func:`load_model`.
    """
    if model.network.config.quantised:
        return as_model(model, device)
    if model.int8 is None:
        names = ", ".join(name.removesuffix(INT8) for name in _shipped() if name.endswith(INT8))
        raise UsageError(f"model {model.name} has no int8 weights (these have: {names or 'none'})", "precision")
    return load_model(model.int8, device)


def as_model(model: ModelLike, device: torch.device | str = "cpu") -> Model:
    """Return ``model`` on ``device``, loaded if it is a name or a file; a network without a card is called ``custom``.

    Raises:
        UsageError: ``model`` is nothing of these.
        UnknownModelError, WeightsError: See :func:`load_model`.
    """
    from vidnoise.model import DenoiseNetwork

    if isinstance(model, (str, os.PathLike)):
        return load_model(model, device)
    if isinstance(model, DenoiseNetwork):
        model = Model(model, ModelCard("custom", tier="custom"))
    if not isinstance(model, Model):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            f"model must be a name, a .safetensors file or what load_model returned, got a {type(model).__name__}",
            "model",
        )
    model.network.to(device)
    return model


def checksum(weights: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values, in order of names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_numbers(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Check that all weights are finite: others would make every picture black.

    Raises:
        WeightsError: A value is infinite or not a number.
    """
    for name, values in weights.items():
        if not values.is_floating_point() or not bool(values.isfinite().all()):
            raise WeightsError(f"{path}: {name} holds values that are no finite numbers")


def _check_sizes(config: dict[str, Any], weights: dict[str, torch.Tensor], path: Path) -> None:
    """Check settings against the weights before making a network of that size.

    A network has no more layers than the file has tensors, and no layer is wider than the largest of them.

    Raises:
        WeightsError: A setting is too large.
    """
    most = max([len(weights), *(size for values in weights.values() for size in values.shape)])
    for name, value in config.items():
        for size in cast("list[object]", value) if isinstance(value, list) else [value]:
            if isinstance(size, (list, dict, float)) or (isinstance(size, int) and not 0 <= size <= most):
                raise WeightsError(
                    f"{path}: {name} cannot be {reprlib.repr(cast('object', value))} in a file with these weights"
                )


def save_model(network: DenoiseNetwork, card: ModelCard, path: str | os.PathLike[str]) -> None:
    """Write weights, settings and card to one file, atomically.

    Weights are stored in float16, which halves the file and changes pictures by a thousandth of a dB at most; those
    that a quantised network rounds, as int8.
    """
    from dataclasses import asdict, replace

    from safetensors.torch import save

    from vidnoise.model.quantisation import packed

    weights = packed(network)
    card = replace(card, sha256=checksum(weights))
    metadata = {
        "vidnoise_format": FORMAT, "config": json.dumps(network.config.to_dict()), "card": json.dumps(asdict(card)),
    }  # fmt: skip
    write_whole(os.fspath(path), save(weights, metadata=metadata), overwrite=True)
