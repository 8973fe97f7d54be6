"""Training configurations, from TOML or YAML files; those of the shipped models are under ``configs/``."""

from __future__ import annotations

import math
import re
import reprlib
import sys
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from vidnoise.errors import UsageError
from vidnoise.model import TIERS, ModelConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

CONFIGS = Path(__file__).parent / "configs"

ENCODED = "encoded"
"""The noise type whose clips are drawn from the pool of encoded clips."""


class Shape(NamedTuple):
    """Size of a batch: clips, frames, and height and width."""

    clips: int
    frames: int
    patch: int

    @property
    def pixels(self) -> int:
        return self.clips * self.frames * self.patch**2


@dataclass(frozen=True, slots=True)
class Stage:
    """One phase of training, with its own schedule."""

    name: str
    batch: int
    """Clips per step; under torchrun, per process."""
    frames: int
    """Frames per clip. 1 trains the spatial core alone."""
    patch: int
    """Height and width of the clips; a multiple of 16."""
    steps: int | None = None
    minutes: float | None = None
    """Length of the stage: steps, or wall-clock minutes of training."""
    muon_lr: float = 0.012
    adam_lr: float = 1e-3
    schedule: str = "decay"
    """Learning rates after the warm-up: ``constant``, for legs that may stop anywhere and be continued, or ``decay``,
    to zero at the end, for a release."""
    decay: float | None = None
    """Share of the stage, at its end, over which the rates of ``decay`` fall linearly, after being constant (Hu et
    al., "MiniCPM", arXiv:2404.06395); if not given, they follow a cosine over the whole stage."""
    warmup: float = 0.03
    """Share of the stage over which the rates rise from zero."""
    warmup_steps: int | None = None
    """Steps over which the rates rise, overriding ``warmup``."""
    still_share: float = 0.0
    """Share of steps on single frames, interleaved evenly with those on clips so that the core does not forget them."""
    still_batch: int | None = None
    """Frames per step on single frames; by default as many as a batch of clips has."""
    still_patch: int | None = None
    """Height and width of single frames; by default those of the clips."""
    part: str = "all"
    """Part of the network to train: ``all``, ``core``, or ``noise_level``, the estimator alone."""
    bptt: int | None = None
    """Frames of truncated back-propagation through time, which bounds the memory of long clips; by default errors
    propagate through all frames."""

    @property
    def clip(self) -> Shape:
        """Shape of the batches of clips."""
        return Shape(self.batch, self.frames, self.patch)

    @property
    def still(self) -> Shape:
        """Shape of the batches of single frames."""
        return Shape(self.still_batch or self.batch * self.frames, 1, self.still_patch or self.patch)

    def is_still(self, step: int) -> bool:
        """Return whether a step is on single frames; the same in every process and in a resumed run."""
        return int((step + 1) * self.still_share) > int(step * self.still_share)

    def rate(self, progress: float, step: int) -> float:
        """Return the factor on the learning rates, 0 to 1, at ``progress`` in [0, 1], ``step`` steps into the stage."""
        rise, begun = 1.0, 0.0
        if self.warmup_steps is not None:
            rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        elif progress < self.warmup:
            return (progress + 1e-3) / (self.warmup + 1e-3)
        else:
            begun = self.warmup
        if self.schedule == "constant":
            return rise
        if self.decay is not None:
            return rise * min(1.0, max(0.0, 1 - progress) / self.decay)
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - begun) / (1 - begun))))


@dataclass(frozen=True, slots=True)
class Augment:
    """Probabilities of the augmentations of a clip; see :mod:`vidnoise.training.augment`. All frames change alike."""

    rotate: float = 0.0
    """Probability of a rotation by up to 15 degrees; real clips only, as moving photos rotate anyway."""
    elastic: float = 0.0
    """Probability of an elastic deformation (alpha 30, sigma 5); real clips only."""
    fields: float = 0.0
    """Probability of taking every second row only, as the fields of interlaced video have them; real clips only."""
    hsv: float = 0.0
    """Probability of a change of hue, saturation and value by up to 0.2."""
    contrast: float = 0.4
    """Probability of a change of contrast (by a factor of 0.8 to 1.2) and brightness."""
    fade: float = 0.0
    """Probability of a cross-fade into another clip, over 2 frames to one and a half times the clip's length."""
    flash: float = 0.0
    """Probability of one brighter or darker frame."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Clips that are encoded ahead of time; see :mod:`vidnoise.training.codec_pool`."""

    clips: int = 3000
    frames: int = 8
    size: int = 144
    """Height and width, even; at least the largest patch of any stage."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Complete configuration of a training run; saved in the resulting weights."""

    name: str
    """Name of the model to train (``standard-awgn``)."""
    tier: str
    noise: dict[str, float]
    """Weights of the noise types in :data:`.noise.NOISES`, and of ``encoded``, the clips of the :attr:`pool`."""
    stages: tuple[Stage, ...]
    initial: str | dict[str, str | list[str]] | None = None
    """Model (name or path) to start from; or a table of modules (``core``, ``fusion``, ``noise_level``)
    and the models to take them from, of the same size or smaller, or a list of models that are put side by side
    (:mod:`vidnoise.training.grow`)."""
    model: dict[str, Any] = field(default_factory=dict)
    """Settings of :class:`~vidnoise.model.ModelConfig` that differ from the tier's; not with an ``initial`` model."""
    blind: float = 0.5
    """Share of clips denoised with the estimated noise level; the others get the true one."""
    loss: str = "charbonnier"
    """``charbonnier``, ``l1``, ``l1_ssim``, or ``psnr`` (even over noise levels with a ``sigma_power`` of 0)."""
    alpha: float = 0.84
    """Weight of L1 in ``l1_ssim``, which is alpha L1 + (1 - alpha) (1 - SSIM)."""
    sigma_power: float = -0.5
    """Power of sigma by which clips are weighted, which evens out the loss over noise levels."""
    fused_weight: float = 0.15
    """Weight of the loss on the fused frame, which trains the fusion directly."""
    noise_weight: float = 0.02
    """Weight of the loss on the logarithm of the estimated noise level."""
    picture_weight: float = 0.0
    """Weight, when the estimator is trained alone, of the loss on the pictures that the core, itself frozen, produces
    with its estimates. Errors to one side cost more than to the other, and this loss knows which."""
    teacher: str | None = None
    """Trained model (name or path) to learn from as well; see :mod:`vidnoise.training.distillation`."""
    teacher_weight: float = 0.5
    """Share of the teacher's pictures in the targets, 0 to 1; the rest are the clean frames."""
    both_ways: float = 0.0
    """Share of steps with a backward pass over the whole clip first; the others are causal."""
    temporal_weight: float = 0.0
    """Weight of the loss on the change from frame to frame, which penalises flicker."""
    synthetic: float = 0.35
    """Share of clips made from moving photos."""
    augment: Augment = field(default_factory=Augment)
    pool: Pool = field(default_factory=Pool)
    """Encoded clips; made if ``encoded`` has a weight in :attr:`noise`."""
    optimizer: str = "muon"
    """``muon`` (for convolution weights; AdamW for the rest), or ``adamw`` for everything, at ``adam_lr``."""
    weight_decay: float = 0.0
    """Decay of convolution weights; multiplied by the learning rate, as in AdamW."""
    precision: str = "auto"
    """Precision of convolutions: ``fp32``, ``bf16``, ``fp16`` (with a scaled loss), or ``auto``: bf16 if supported."""
    reparameterise: bool = False
    """Train residual blocks with parallel branches that are folded into plain convolutions in the saved weights."""
    int8: bool = False
    """Quantisation-aware training of ``initial``, a model: the convolutions of its core round inputs and weights to 8
    bits (:mod:`vidnoise.model.quantisation`), in ranges found before the first step
    (:mod:`vidnoise.training.calibration`), and gradients pass through the rounding."""
    ema: float = 0.998
    """Decay per step of the exponential moving average of the weights, which is saved and validated."""
    seed: int = 1
    quantised: float = 0.0
    """Share of clips whose noisy frames are rounded to 8 bits and clipped."""
    video: float = 0.0
    """Share of clips in centred RGB, in which the network gets video (:mod:`vidnoise.color`), besides those of the
    types ``encoded`` and ``centred_planes``."""
    gray: float = 0.0
    """Share of clips that are gray, including their noise."""
    graphics: float = 0.0
    """Share of clips with noise-free bars or a panel on top."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def model_config(self) -> ModelConfig:
        """Return the tier's settings, overridden by those of :attr:`model`.

        Raises:
            UsageError: The network has no such setting.
        """
        try:
            return ModelConfig.from_dict({**TIERS[self.tier].to_dict(), **self.model})
        except ValueError as ex:
            raise UsageError(f"{self.name}: {ex}") from ex


CHOICES = {
    "part": ("all", "core", "noise_level"),
    "schedule": ("constant", "decay"),
    "tier": tuple(TIERS),
    "loss": ("charbonnier", "l1", "l1_ssim", "psnr"),
    "optimizer": ("muon", "adamw"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}
"""Allowed values of settings that are keywords."""


_SHARE = (0.0, 1.0)
_COUNT = (1, 1_000_000_000)

_WIDEST = 4096
"""Maximum channels or blocks of a network."""

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("rotate", "elastic", "hsv", "contrast", "fade", "fields", "flash", "blind", "alpha"), _SHARE),
    **dict.fromkeys(("synthetic", "quantised", "video", "gray", "graphics", "warmup", "still_share"), _SHARE),
    **dict.fromkeys(("ema", "weight_decay", "both_ways", "teacher_weight"), _SHARE),
    "muon_lr": (0.0, 10.0), "adam_lr": (0.0, 10.0), "sigma_power": (-10.0, 10.0),
    **dict.fromkeys(("fused_weight", "noise_weight", "picture_weight", "temporal_weight"), (0.0, 1e6)),
    "steps": _COUNT, "minutes": (1e-9, 1e9), "batch": (1, 65_536), "frames": (1, 65_536), "bptt": (1, 65_536),
    "decay": (1e-9, 1.0), "warmup_steps": _COUNT, "still_batch": (1, 65_536),
    "patch": (16, 65_536), "still_patch": (16, 65_536), "seed": (0, 2**63 - 1),
}  # fmt: skip
"""Allowed ranges of numeric settings."""


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value from a file has an annotated type; integers are valid floats."""
    kinds = tuple(get_origin(h) or h for h in (get_args(hint) if isinstance(hint, UnionType) else (hint,)))
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected settings by name, got {reprlib.repr(values)}")
    unknown = set(values) - {f.name for f in fields(cls)}
    if unknown:
        raise UsageError(f"{where}: unknown setting: {', '.join(sorted(map(str, unknown)))}")
    for key, hint in get_type_hints(cls).items():
        if key not in values:
            continue
        if not _fits(values[key], hint):
            raise UsageError(f"{where}: {key} cannot be {reprlib.repr(values[key])}")
        if key in CHOICES and values[key] not in CHOICES[key]:
            shown = reprlib.repr(values[key])
            raise UsageError(f"{where}: {key} must be one of {', '.join(CHOICES[key])}; got {shown}")
        low, high = RANGES.get(key, (-math.inf, math.inf))
        if key in RANGES and values[key] is not None and not low <= values[key] <= high:
            raise UsageError(f"{where}: {key} must be from {low:g} to {high:g}, got {reprlib.repr(values[key])}")
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise UsageError(f"{where}: missing: {', '.join(missing)}")
    return cls(**values)


def _parse_yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError as ex:
        raise UsageError(f"{path}: YAML needs PyYAML (pip install 'vidnoise[train]'); TOML needs nothing") from ex

    class Loader(yaml.SafeLoader):
        """A safe loader that reads ``1e-3`` as a number, which in YAML 1.1 is text, and rejects aliases.

        A few lines of nested aliases could exhaust any memory, and no configuration needs them.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases (*name) are not supported")
            return super().compose_node(parent, index)

    exponent = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+0123456789"))
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as ex:  # an invalid date, for example, is a ValueError
        raise UsageError(f"{path}: {' '.join(str(ex).split())}") from ex


def _check(config: TrainConfig, where: str) -> None:
    if not config.stages:
        raise UsageError(f"{where}: needs at least one stage")
    for stage in config.stages:
        if (stage.steps is None) == (stage.minutes is None):
            raise UsageError(f"{where}: stage {stage.name!r} needs either steps or minutes")
        for patch in (stage.clip.patch, stage.still.patch):
            if patch % 16 or patch < 16:
                raise UsageError(f"{where}: stage {stage.name!r}: patch must be a multiple of 16, got {patch}")
    weights = config.noise.values()
    if not all(_fits(weight, float) and 0 <= weight <= 1e6 for weight in weights) or not sum(weights):
        raise UsageError(f"{where}: noise needs weights of zero or more, one of them above zero")
    if min(config.pool.clips, config.pool.frames) < 1 or config.pool.size % 2:
        raise UsageError(f"{where}: pool: clips and frames are above zero, size is even")
    largest = max(stage.patch for stage in config.stages)
    if config.noise.get(ENCODED) and largest > config.pool.size:
        raise UsageError(f"{where}: a patch of {largest} needs a pool of that size or more, got {config.pool.size}")
    if config.model and isinstance(config.initial, str):
        raise UsageError(f"{where}: initial brings its own model settings: leave out one of initial and model")
    if config.int8 and (config.reparameterise or not isinstance(config.initial, str)):
        raise UsageError(f"{where}: int8 needs the name or file of a model as initial, and no reparameterise")
    for name, value in config.model.items():
        for size in value if isinstance(value, list) else [value]:
            if not isinstance(size, (int, str)) or (isinstance(size, int) and not 0 <= size <= _WIDEST):
                raise UsageError(f"{where}: model: {name} cannot be {reprlib.repr(value)}")
    config.model_config()


def load_config(name_or_path: str) -> TrainConfig:
    """Read a configuration from a file (TOML, or YAML by its suffix), or by the name of a shipped one.

    Raises:
        UsageError: There is no such file, or it has unknown, missing or invalid settings.
    """
    path = Path(name_or_path)
    if not path.suffix:
        path = CONFIGS / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise UsageError(f"no training configuration {name_or_path!r}; shipped ones: {known}")
    try:
        text = path.read_text(encoding="utf-8")
        values = _parse_yaml(text, path) if path.suffix in (".yaml", ".yml") else tomllib.loads(text)
    except (ValueError, OSError) as ex:  # TOMLDecodeError and UnicodeDecodeError among them
        raise UsageError(f"{path}: {ex}") from ex
    except RecursionError as ex:
        raise UsageError(f"{path}: is nested too deeply") from ex
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected settings by name, got {reprlib.repr(values)}")
    values = {"name": path.stem, **values}
    stages = values.get("stages", [])
    if not isinstance(stages, list):
        raise UsageError(f"{path}: stages must be a list, got {reprlib.repr(stages)}")
    values["stages"] = tuple(_build(Stage, stage, f"{path}: stage {i + 1}") for i, stage in enumerate(stages))
    values["augment"] = _build(Augment, values.get("augment", {}), f"{path}: augment")
    values["pool"] = _build(Pool, values.get("pool", {}), f"{path}: pool")
    config = _build(TrainConfig, values, str(path))
    _check(config, str(path))
    return config
