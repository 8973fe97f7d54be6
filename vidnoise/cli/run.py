"""``vidnoise INPUT -o OUTPUT``: denoise a video."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SinkOpenError
from .stream_options import stream_options
from .strength_options import strength_options

if TYPE_CHECKING:
    from ..run_stats import RunStats


class Seconds(click.ParamType):
    """``90``, ``1:30``, ``0:01:30.5``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", value):
            self.fail(f"{value!r} is no time; write seconds (90.5), or [hours:]minutes:seconds (1:30.5)", param, ctx)
        total = 0.0
        for part in value.split(":"):
            total = 60 * total + float(part)
        return total


def _list_devices(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import torch

    click.echo(f"cpu     {torch.get_num_threads()} threads")
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory = torch.cuda.get_device_properties(i).total_memory / 2**30
        click.echo(f"cuda:{i}  {torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        click.echo("mps     Apple GPU")
    ctx.exit()


@click.command()
@click.argument("source", metavar="INPUT")
@click.option(
    "-o", "--output", metavar="FILE", help="File (its extension chooses the container), - for standard output, or URL."
)
@click.option("-y/-n", "overwrite", default=False, help="Overwrite an existing output, or refuse to.  [default: -n]")
@click.option("--strength", type=float, default=1.0, show_default=True, help="0 changes nothing, 2 removes most.")
@strength_options
@click.option("--sigma", type=float, help="Noise level in 8-bit units (25 is 25/255).  [default: measured]")
@click.option("--model", metavar="NAME", default="standard", show_default=True, help="Model or .safetensors file.")
@click.option("--no-cuts", is_flag=True, help="Do not look for scene cuts.")
@click.option("--start", type=Seconds(), help="Skip to this time: 90 or 1:30.")
@click.option("--duration", type=Seconds(), help="Stop after this time.")
@click.option("--codec", help="h264, hevc, av1, vp9, ffv1, prores, or an FFmpeg encoder.  [default: the input's]")
@click.option("--crf", type=float, help="Quality in the encoder's scale; lower is better.  [default: a high one]")
@click.option("--preset", help="Encoder speed: ultrafast to veryslow, or the encoder's own.")
@click.option("--pix-fmt", metavar="NAME", help="Pixel format of the output.  [default: the input's]")
@click.option("--audio", default="copy", show_default=True, help="copy, none, aac, opus or flac.")
@stream_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", show_default=True,
    help="Arithmetic of the network.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads.  [default: all cores]")
@click.option("--json", "json_path", metavar="FILE", help="Write statistics there; - is standard output.")
@click.option("--progress/--no-progress", default=None, help="Progress bar.  [default: on a terminal]")
@click.option("-q", "--quiet", is_flag=True, help="Only say what went wrong.")
@click.option("-v", "--verbose", count=True, help="Say what is chosen and why; -vv for debugging.")
@click.option(
    "--list-devices", is_flag=True, is_eager=True, expose_value=False, callback=_list_devices,
    help="Show the devices of this machine.",
)  # fmt: skip
def run(
    source: str,
    output: str | None,
    overwrite: bool,
    strength: float,
    sigma: float | None,
    model: str,
    no_cuts: bool,
    start: float | None,
    duration: float | None,
    codec: str | None,
    crf: float | None,
    preset: str | None,
    pix_fmt: str | None,
    audio: str,
    device: str,
    precision: str,
    threads: int,
    json_path: str | None,
    progress: bool | None,
    quiet: bool,
    verbose: int,
    stats_path: str | None,
    **others: Any,
) -> int:
    """Denoise INPUT (the default command); - is standard input or output."""
    if output is None:
        raise click.UsageError(f"no output given; for example: vidnoise {source} -o {suggest_name(source)}")
    for name, path in (("--json", json_path), ("--stats", stats_path)):
        if path == output == "-":
            raise click.UsageError(f"{name} - would write into the video on standard output; give it a file name")
        if path not in (None, "-"):
            _check_json_path(path)

    from .console import console_for_messages, progress_bar
    from .interrupt import stop_on_signal
    from .live_report import live_report

    with contextlib.ExitStack() as stack:
        console = stack.enter_context(console_for_messages(-1 if quiet else verbose))

        def say(text: str) -> None:
            if not quiet:
                console.print(f"vidnoise: {text}", markup=False, soft_wrap=True)

        should_stop = stack.enter_context(stop_on_signal(lambda: say("stopping; once more to stop at once")))

        from ..api import denoise_file  # late, and not before signals are handled: it loads torch

        with contextlib.ExitStack() as bar:
            show = None
            if progress or (progress is None and console.is_terminal and not quiet):
                show = bar.enter_context(progress_bar(console, os.path.basename(output)))
            report = bar.enter_context(live_report(None if quiet else say, show, stats_path))
            stats = denoise_file(
                source, output, progress=report, should_stop=should_stop, overwrite=overwrite,
                model=model, sigma=sigma, strength=strength, device=device, precision=precision,
                detect_cuts=not no_cuts, start=start, duration=duration,
                codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt, audio=audio, threads=threads, **others,
            )  # fmt: skip
        say(summary(stats, output))
        if json_path is not None:
            _write_json(stats, source, output, json_path)
    return 130 if stats.interrupted else 0


def suggest_name(source: str) -> str:
    """A name for the cleaned version of ``source``, which need not be a file."""
    path = Path(source)
    if source == "-" or "://" in source or not path.suffix:
        return "clean.mkv"
    return str(path.with_name(f"{path.stem}-clean{path.suffix}"))


def summary(stats: RunStats, output: str) -> str:
    """One line on what was done."""
    if stats.interrupted and not stats.frames_out:
        return "interrupted before the first frame; nothing was written"
    frames = "1 frame" if stats.frames_out == 1 else f"{stats.frames_out} frames"
    line = f"{'standard output' if output == '-' else output}: {frames} in {stats.seconds:.1f} s ({stats.fps:.1f} fps)"
    if stats.sigma_mean is not None:
        line += f", noise {stats.sigma_mean:.1f}/255"
    line += f", model {stats.model} on {stats.device}"
    if stats.n_cuts:
        line += f", {stats.n_cuts} scene {'cut' if stats.n_cuts == 1 else 'cuts'}"
    if stats.packets_corrupt:
        line += f", {stats.packets_corrupt} damaged {'packet' if stats.packets_corrupt == 1 else 'packets'} skipped"
    if stats.frames_dropped:
        line += f", {stats.frames_dropped} frames dropped"
    if stats.lag_ms_p50 is not None:
        line += f", lag {stats.lag_ms_p50:.0f} ms (p99 {stats.lag_ms_p99:.0f}, max {stats.lag_ms_max:.0f})"
    if stats.reconnects:
        line += f", reconnected {'once' if stats.reconnects == 1 else f'{stats.reconnects} times'}"
    return f"interrupted; {line}" if stats.interrupted else line


def _check_json_path(path: str) -> None:
    """Find out now, not after an hour of work."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder):
        what = "is a directory" if os.path.isdir(path) else f"there is no directory {folder}"
        raise SinkOpenError(f"{path}: {what}", path)


def _write_json(stats: RunStats, source: str, output: str, path: str) -> None:
    text = json.dumps({"input": source, "output": output, **stats.to_dict()}, indent=1)
    if path == "-":
        click.echo(text)
        return
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as ex:
        raise SinkOpenError(f"{path}: cannot be written: {ex.strerror or ex}", path) from ex
