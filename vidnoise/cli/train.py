"""``vidnoise train``: training a model from a configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidnoise.cli.options import device_option

if TYPE_CHECKING:
    from rich.console import Console

    from vidnoise.training.config import TrainConfig
    from vidnoise.training.data import Folders
    from vidnoise.training.loop import Trainer

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("config")
@click.option(
    "--data",
    metavar="DIR",
    envvar="VIDNOISE_DATA",
    help="Folder of clips and photos, or one with train/ and val/ in it (or set VIDNOISE_DATA).",
)
@click.option("--train", "train_folder", metavar="DIR", type=_FOLDER, help="Clips and photos.  [default: from --data]")
@click.option("--val", "val_folder", metavar="DIR", type=_FOLDER, help="Clips for validation.  [default: from --data]")
@click.option(
    "--run", "run_folder", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the run.  [runs/NAME]"
)
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default="cache",
    show_default=True,
    help="Folder for decoded training data and encoded clips.",
)
@device_option
@click.option(
    "--batches",
    metavar="WHERE",
    default="auto",
    show_default=True,
    help="Where batches are made: cpu; device, with all clips in its memory; or auto: device if they fit into a GPU.",
)
@click.option("--precision", metavar="NAME", help="auto, fp32, bf16 or fp16.  [default: from CONFIG]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Pause after this; run again to resume.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=400,
    show_default=True,
    help="Steps between checkpoints, validations and log lines.",
)
@click.option(
    "--pack",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Do not train: write the data that CONFIG needs to DIR, cut down to take to another machine.",
)
@click.option(
    "--megabytes",
    type=click.FloatRange(min=0, min_open=True),
    default=42.0,
    show_default=True,
    help="Maximum size for --pack, in units of 10^6 bytes.",
)
def train(
    config: str,
    data: str | None,
    train_folder: Path | None,
    val_folder: Path | None,
    run_folder: Path | None,
    cache: Path,
    device: str,
    batches: str,
    precision: str | None,
    threads: int | None,
    minutes: float | None,
    every: int,
    pack: Path | None,
    megabytes: float,
) -> None:
    """Train a model by CONFIG: the name of a shipped configuration, or a TOML or YAML file.

    Resumes from a checkpoint of an earlier run. The folder of the run contains checkpoint.pt, log.csv, progress.png and
    the averaged weights, NAME.safetensors, which --model accepts.

    Several processes, each on its own clips: torchrun --nproc-per-node 2 -m -- vidnoise train CONFIG
    """
    from dataclasses import replace

    import torch

    from vidnoise.backends.device import resolve_device
    from vidnoise.cli.console import can_plot, clock, console_for_messages
    from vidnoise.training.config import load_config
    from vidnoise.training.loop import Trainer, describe
    from vidnoise.training.parallel import processes
    from vidnoise.training.plot import plot_log

    settings = load_config(config)
    if precision:
        settings = replace(settings, precision=precision)
    folders = _folders(data, train_folder, val_folder)
    if threads:
        torch.set_num_threads(threads)
    if pack:
        with console_for_messages(1) as console:
            _pack(settings, folders, cache, pack, megabytes, console)
        return
    run = run_folder or Path("runs") / settings.name
    with processes(resolve_device(device)) as ranks, console_for_messages(-1 if ranks.rank else 1) as console:
        trainer = Trainer(settings, folders, run, cache=cache, minutes=minutes, where=batches, ranks=ranks)
        console.quiet = ranks.rank > 0
        console.print(describe(trainer), soft_wrap=True)
        plots = can_plot(console)

        def show(row: dict[str, float | str], progress: float) -> None:
            scores = "  ".join(f"{k[4:]}: {row[k]:.2f}" for k in row if k.startswith("psnr"))
            console.print(
                f"{row['stage']} {progress:4.0%}  step {row['step']}  loss {row['loss']:.4f}  "
                + (f"PSNR {scores}  " if scores else "")
                + f"{clock(trainer.remaining_seconds)} left",
                soft_wrap=True,
            )
            if plots:
                plot_log(run / "log.csv", run / "progress.png")

        try:
            with _bar(trainer, console) as advance:
                trainer.fit(every=every, on_log=show, on_step=advance)
        except KeyboardInterrupt:
            console.print(f"interrupted; run the same command to go on from {trainer.checkpoint}", soft_wrap=True)
            raise
        console.print(f"weights: {run / (settings.name + '.safetensors')}", soft_wrap=True)


def _pack(settings: TrainConfig, folders: Folders, cache: Path, out: Path, megabytes: float, console: Console) -> None:
    from vidnoise.training.codec_pool import open_pool
    from vidnoise.training.data import ClipPack
    from vidnoise.training.pack import cut_down

    pool = open_pool(ClipPack(folders.train, cache), folders, cache, settings)
    cuts = cut_down(folders, out, megabytes=megabytes, pool=pool)
    for cut in cuts:
        loss = "as it was" if cut.psnr == float("inf") else f"PSNR {cut.psnr:.1f}"
        console.print(f"{cut.part}: {cut.files} of {cut.megabytes:.1f} MB, {loss}", soft_wrap=True)
    console.print(f"{sum(cut.megabytes for cut in cuts):.1f} MB in {out}", soft_wrap=True)


def _folders(data: str | None, train_folder: Path | None, val_folder: Path | None) -> Folders:
    from vidnoise.errors import SourceOpenError
    from vidnoise.evaluation.clips import find_data
    from vidnoise.training.data import Folders

    folders = Folders(train_folder, None) if train_folder else Folders.below(find_data(data))
    if val_folder is None:
        return folders
    folders = Folders.of(folders.train, val_folder)
    if folders.val is None:
        raise SourceOpenError(f"no clips for validation below {val_folder}", str(val_folder))
    return folders


@contextlib.contextmanager
def _bar(trainer: Trainer, console: Console) -> Iterator[Callable[[dict[str, float]], None]]:
    """Show a progress bar of the whole run with the loss and the time left, on a terminal only."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from vidnoise.cli.console import clock

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", left="")

        def advance(parts: dict[str, float]) -> None:
            left = trainer.remaining_seconds
            bar.update(
                task,
                description=f"{trainer.stage.name}  step {trainer.total_steps}  loss {parts['loss']:.4f}",
                completed=trainer.total_seconds,
                total=trainer.total_seconds + left,
                left=f"ETA {clock(left)}",
            )

        yield advance
