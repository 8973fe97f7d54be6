"""``vidnoise INPUT -o OUTPUT``: denoise a video, a picture, or many."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from vidnoise.cli.batch import Job, is_batch, plan_batch
from vidnoise.cli.child import Child
from vidnoise.cli.configuration import ConfiguredCommand, load_configuration
from vidnoise.cli.files import JsonReport, is_report, prepare, run_batch, run_file
from vidnoise.cli.grouped import GroupedOption
from vidnoise.cli.options import file_options
from vidnoise.cli.suggestions import missing_output
from vidnoise.cli.workers import each_alone
from vidnoise.disk import check_free
from vidnoise.option_groups import FILES, MAIN, PERFORMANCE
from vidnoise.options import FileOptions
from vidnoise.sinks import check_places
from vidnoise.text import safe

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import Progress, RunStats

    Denoise = Callable[..., RunStats]


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


_option = functools.partial(click.option, cls=GroupedOption)


@click.command(cls=ConfiguredCommand)
@click.argument("sources", metavar="INPUT...", nargs=-1)
@_option(
    "-o", "--output", metavar="FILE", group=MAIN,
    help="File (its extension selects the container or the kind of picture; %04d in its name makes numbered pictures), "
    "- for standard output, or URL. For several inputs or a folder: a folder, or a name with {stem}, {suffix}, "
    "{parent}, {sub}, {index}, {model}.",
)  # fmt: skip
@_option("-i", "--input", "named_sources", metavar="FILE", multiple=True, group=FILES, help="INPUT, as in FFmpeg.")
@_option(
    "--model", metavar="NAME", default="standard", show_default=True, group=MAIN, help="Model or .safetensors file."
)
@file_options
@_option(
    "--config", metavar="FILE", is_eager=True, expose_value=False, callback=load_configuration,
    help="TOML file of further defaults (docs/CONFIGURATION.md).  [default: config.toml in the user's folder]",
)  # fmt: skip
@_option("--stats", "stats_path", metavar="FILE", group=FILES, help="Write statistics every second, as lines of JSON.")
@_option("--json", "json_path", metavar="FILE", group=FILES, help="Write statistics as JSON; - is standard output.")
@_option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]")
@_option("-q", "--quiet", is_flag=True, help="Show errors only.")
@_option("-v", "--verbose", count=True, help="Show choices and their reasons; -vv for debugging.")
@_option(
    "--list-devices", is_flag=True, is_eager=True, expose_value=False, callback=_list_devices, group=PERFORMANCE,
    help="List the devices of this machine.",
)  # fmt: skip
def run(
    sources: tuple[str, ...],
    named_sources: tuple[str, ...],
    output: str | None,
    model: str,
    json_path: str | None,
    progress: bool | None,
    quiet: bool,
    verbose: int,
    stats_path: str | None,
    **given: Any,
) -> int:
    """Denoise INPUT (the default command), a video or a picture; - is standard input or output.

    Several inputs, or folders, go into a folder: vidnoise *.mp4 tapes/ photos/ -o clean/

    Pictures that are named one by one, or lie in a folder, are separate: each is denoised by itself. frame%04d.png, or
    a glob in quotes with a video or numbered pictures as output, is one sequence, denoised as a video is:
    vidnoise 'shots/*.png' -o clean.mp4 --rate 24

    Each option can be set by an environment variable, too: VIDNOISE_MAX_LATENCY=200 is --max-latency 200.
    """
    if not sources and not named_sources:
        raise click.UsageError("no input given; for example: vidnoise night.mp4 -o clean.mp4")
    if output is None:
        raise click.UsageError(missing_output(named_sources, sources))
    sources = (*named_sources, *sources)
    options = FileOptions(**given)
    resume, overwrite = options.resume, options.overwrite
    if resume and overwrite:
        raise click.UsageError("--resume keeps finished outputs and -y replaces them; use one of them")
    source_of_segment = click.get_current_context().get_parameter_source("segment_seconds")
    if not resume and source_of_segment is ParameterSource.COMMANDLINE:
        raise click.UsageError("--segment is for --resume; add it, or leave both out")
    reports = [path for path in (json_path, stats_path) if path not in (None, "-")]
    for option, path in (("--json", json_path), ("--stats", stats_path)):
        if path == output == "-":
            raise click.UsageError(f"{option} - would write into the video on standard output; give it a file name")
    # When resuming, reports of the earlier run may be overwritten.
    replaced = [path for path in reports if overwrite or (resume and is_report(path))]
    for path in reports:
        check_free(path, overwrite=path in replaced)
    grain_table = [given["grain_table"]] if given["grain_table"] else []
    read = [*sources, model, *([given["mask"]] if given["mask"] else [])]
    batch = None
    if is_batch(sources, output):
        if options.grain_table or options.tee:
            raise click.UsageError("--grain-table and --tee name one file each; they do not go with several inputs")
        batch = plan_batch(sources, output, model=model)
        check_places([job.output for job in batch.jobs], reads=[job.source for job in batch.jobs], writes=reports)
    else:
        check_places([output, *given["tee"]], reads=read, writes=[*grain_table, *reports])

    from vidnoise.cli.console import console_for_messages, progress_bar
    from vidnoise.cli.interrupt import stop_on_signal
    from vidnoise.cli.live_report import live_report

    with contextlib.ExitStack() as stack:
        console = stack.enter_context(console_for_messages(-1 if quiet else verbose))

        def say(text: str, *, always: bool = False) -> None:
            if always or not quiet:
                console.print(f"vidnoise: {safe(text)}", markup=False, emoji=False, soft_wrap=True)

        should_stop = stack.enter_context(stop_on_signal(lambda: say("stopping; once more to stop at once")))
        if batch is not None:
            prepare(batch, overwrite=overwrite, resume=resume, say=say)

        has_bar = progress or (progress is None and console.is_terminal and not quiet)
        alone = each_alone(options) if batch is not None else [options]
        has_bar = has_bar and len(alone) == 1  # otherwise the lines for finished files suffice
        bars = _CurrentBar()
        shown = bars if has_bar else None
        report = stack.enter_context(
            live_report(None if quiet else say, shown, stats_path, overwrite=stats_path in replaced)
        )

        def denoise(job: Job, label: str, do: Denoise) -> RunStats:
            with contextlib.ExitStack() as bar:
                if has_bar:
                    bars.show = bar.enter_context(progress_bar(console, label))
                return do(job, progress=report, should_stop=should_stop)

        written = JsonReport(json_path, is_batch=batch is not None, overwrite=json_path in replaced)
        if batch is not None:
            children = [stack.enter_context(contextlib.closing(Child(model, each))) for each in alone]
            workers = [functools.partial(denoise, do=child.denoise) for child in children]
            return run_batch(batch, workers, skip=resume, say=say, report=written)

        from vidnoise.api import denoise_file  # imported late, after signal handlers are set up: it loads torch

        def here(job: Job, **calls: Any) -> RunStats:
            return denoise_file(job.source, job.output, model=model, **calls, **options.keywords(FileOptions))

        in_this_process = functools.partial(denoise, do=here)
        return run_file(Job(sources[0], output), in_this_process, skip=resume, say=say, report=written)


class _CurrentBar:
    """The progress bar of the current file."""

    show: Callable[[Progress], None]

    def __call__(self, progress: Progress) -> None:
        self.show(progress)
