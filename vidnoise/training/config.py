"""Training configurations: TOML files, one for each shipped model under ``configs/``."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True)
class Stage:
    """One phase of training, with a warm-up and a cosine to zero of its own."""

    name: str
    batch: int
    """Clips a step."""
    frames: int
    """Frames a clip; errors are propagated back through all of them. 1 trains the spatial core alone."""
    patch: int
    """Height and width of the clips; a multiple of 16."""
    steps: int | None = None
    minutes: float | None = None
    """Length of the stage: steps, or wall-clock minutes of training."""
    muon_lr: float = 0.012
    adam_lr: float = 1e-3
    warmup: float = 0.03
    """Share of the stage over which the rates rise from zero."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that shapes a training run; saved in the weights that come of it."""

    name: str
    """Of the model that is trained (``standard-awgn``)."""
    tier: str
    noise: dict[str, float]
    """Weights of the noise types in :data:`vidnoise.noise.NOISES`."""
    stages: tuple[Stage, ...]
    initial: str | None = None
    """Model (name or path) to start from."""
    blind: float = 0.5
    """Share of clips denoised under the estimated noise level; the others are told the true one."""
    loss: str = "charbonnier"
    """``charbonnier``, or ``l1_ssim`` (0.84 L1 + 0.16 (1 - SSIM))."""
    sigma_power: float = -0.5
    """Clips are weighted by sigma to this power, which evens out the loss over noise levels."""
    fused_weight: float = 0.15
    """Of the loss on the fused frame, which teaches flow and fusion directly."""
    flow_weight: float = 0.1
    """Of the photometric loss on the flow, over clean frames."""
    noise_weight: float = 0.02
    """Of the loss on the logarithm of the estimated noise level."""
    synthetic: float = 0.35
    """Share of clips made by moving photos."""
    ema: float = 0.998
    seed: int = 1
    quantised: float = 0.0
    """Share of clips whose noisy frames are rounded to 8 bits and clipped."""
    gray: float = 0.0
    """Share of clips that are gray, noise and all."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    unknown = set(values) - {f.name for f in fields(cls)}
    if unknown:
        raise UsageError(f"{where}: unknown setting: {', '.join(sorted(unknown))}")
    try:
        return cls(**values)
    except TypeError as ex:
        raise UsageError(f"{where}: {str(ex).partition('() ')[2] or ex}") from ex


def load_config(name_or_path: str) -> TrainConfig:
    """Read a configuration: a file, or the name of one that comes with the package.

    Raises:
        UsageError: there is no such file, or it has unknown or missing settings.
    """
    path = Path(name_or_path)
    if not path.suffix:
        path = CONFIGS / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise UsageError(f"no training configuration {name_or_path!r}; shipped ones: {known}")
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as ex:
        raise UsageError(f"{path}: {ex}") from ex
    stages = tuple(_build(Stage, stage, f"{path}: stage {i + 1}") for i, stage in enumerate(values.pop("stages", [])))
    for stage in stages:
        if (stage.steps is None) == (stage.minutes is None):
            raise UsageError(f"{path}: stage {stage.name!r} needs either steps or minutes")
        if stage.patch % 16:
            raise UsageError(f"{path}: stage {stage.name!r}: patch must be a multiple of 16, got {stage.patch}")
    return _build(TrainConfig, {"name": path.stem, **values, "stages": stages}, str(path))
