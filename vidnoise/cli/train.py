"""``vidnoise train``: train a model from a configuration."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("config")
@click.option(
    "--data", metavar="DIR", envvar="VIDNOISE_DATA", help="Folder with train/ and val/ (or set VIDNOISE_DATA)."
)
@click.option(
    "--run", "run_folder", metavar="DIR", type=click.Path(path_type=Path), help="Where the run is kept.  [runs/NAME]"
)
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default="cache",
    show_default=True,
    help="Where decoded training data is kept.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Pause after so long; run again to go on.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=400,
    show_default=True,
    help="Steps between checkpoints, validations and lines of the log.",
)
def train(
    config: str,
    data: str | None,
    run_folder: Path | None,
    cache: Path,
    device: str,
    threads: int | None,
    minutes: float | None,
    every: int,
) -> None:
    """Train the model that CONFIG describes: the name of a shipped configuration or a TOML file.

    A run that was stopped goes on from its last checkpoint. The run's folder holds checkpoint.pt,
    log.csv, progress.png and the averaged weights, NAME.safetensors, which --model accepts.
    """
    import torch
    from rich.console import Console

    from ..denoiser import resolve_device
    from ..evaluation.clips import find_data
    from ..training.config import load_config
    from ..training.loop import Trainer, describe
    from ..training.plot import plot_log

    settings = load_config(config)
    folder = find_data(data)
    if threads:
        torch.set_num_threads(threads)
    console = Console(stderr=True, highlight=False)
    run = run_folder or Path("runs") / settings.name
    trainer = Trainer(settings, folder, run, device=str(resolve_device(device)), cache=cache, minutes=minutes)
    console.print(describe(trainer))

    def show(row: dict[str, float | str], progress: float) -> None:
        left = trainer.seconds * (1 - progress) / max(progress, 1e-6) / 60
        scores = "  ".join(f"{k[4:]}: {row[k]:.2f}" for k in row if k.startswith("psnr"))
        console.print(
            f"{row['stage']} {progress:4.0%}  step {row['step']}  loss {row['loss']:.4f}  "
            f"PSNR {scores}  {left:.0f} min left in this stage"
        )
        plot_log(run / "log.csv", run / "progress.png")

    try:
        trainer.fit(every=every, on_log=show)
    except KeyboardInterrupt:
        console.print(f"interrupted; run the same command to go on from {trainer.checkpoint}")
        raise
    console.print(f"weights: {run / (settings.name + '.safetensors')}")
