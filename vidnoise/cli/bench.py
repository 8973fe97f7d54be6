"""``vidnoise bench``: the speed of the models on this machine, compared with its limits and with other filters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from vidnoise.cli.options import choices_text, device_option
from vidnoise.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from vidnoise.bench.cases import Case


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(ctx: click.Context, parameter: click.Parameter, text: str | None) -> list[int]:
    try:
        return [int(part) for part in _list(text or "")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers like 1,2,4") from None


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--models", default="fast,standard", show_default=True, help="Comma-separated names or files.")
@device_option
@click.option(
    "--backends", default="auto", show_default=True, help="Comma-separated, or all; NAME:PRECISION restricts one."
)
@click.option("--precisions", default="auto", show_default=True, help=f"Comma-separated: {choices_text('precision')}.")
@click.option("--sizes", help="540p, 720p, 1080p, 2160p or WIDTHxHEIGHT.  [540p,1080p; with --roofline 1080p]")
@click.option("--streams", callback=_numbers, help="Numbers of streams through one network, as in 1,2,4,8,16.")
@click.option("--lookaheads", callback=_numbers, help="Frames of lookahead, as in 0,8.  [0; files have 8 by default]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads, also for filters.  [torch's choice]")
@click.option("--frames", type=click.IntRange(min=1), default=20, show_default=True, help="Frames of each case.")
@click.option(
    "--seconds-per-case",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Measure fewer frames if all would take longer than this.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Give up a case whose setup, or burst of frames, takes longer than these seconds.",
)
@click.option(
    "--end-to-end", is_flag=True, help="Also measure whole runs from decoder to encoder, with the time of each stage."
)
@click.option(
    "--peers",
    is_flag=False,
    flag_value="",
    default="none",
    show_default=True,
    metavar="[NAMES]",
    help="Other filters in the same rounds, comma-separated, or all; without names, those that take only seconds.",
)
@click.option("--note", default="", help="Note for the results, such as what else the machine was doing.")
@click.option("--roofline", is_flag=True, help="Instead: the operations of a step, and their minimum time.")
@click.option("--compare", nargs=2, type=_FILE, metavar="OLD NEW", help="Instead: compare two results files.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=1),
    default=1.15,
    show_default=True,
    help="With --compare: ratio of slowdown that counts as a failure (exit status 1).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON results; tables (.md) and a plot (.png) are written next to it.  [tables on standard output]",
)
def bench(
    models: str,
    device: str,
    backends: str,
    precisions: str,
    sizes: str | None,
    streams: list[int],
    lookaheads: list[int],
    threads: int | None,
    frames: int,
    seconds_per_case: float,
    patience: float,
    end_to_end: bool,
    peers: str,
    note: str,
    roofline: bool,
    compare: tuple[Path, Path] | None,
    tolerance: float,
    output: Path | None,
) -> int | None:
    """Measure time per frame, memory, and the share of the machine's peak performance.

    All cases of a size take turns, a few frames each, so that other load on the machine affects all alike.

    Example: vidnoise bench --sizes 1080p --backends all --end-to-end --peers -o speed.json
    """
    if compare is not None:
        return _compare(*compare, tolerance)
    import torch
    from rich.console import Console

    from vidnoise.bench.cases import make_cases
    from vidnoise.bench.filters import DEFAULT, choose_filters
    from vidnoise.bench.rounds import Settings, measure
    from vidnoise.cli.console import can_plot

    if roofline:
        source = click.get_current_context().get_parameter_source
        for name in ("models", "backends", "streams", "lookaheads", "peers", "end_to_end"):
            if source(name) is not ParameterSource.DEFAULT:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} does not go with --roofline, which is of all tiers and the backend eager")
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    cases = make_cases(
        _list(models), device=device, backends=_list(backends), precisions=_list(precisions),
        sizes=_list(sizes or ("1080p" if roofline else "540p,1080p")), streams=streams,
        lookaheads=lookaheads,
    )  # fmt: skip
    if not cases:
        raise UsageError("nothing to measure: each of --models, --backends, --precisions and --sizes needs a name")
    threads = threads or torch.get_num_threads()
    if roofline:
        if len({(case.height, case.width, case.precision) for case in cases}) > 1:
            raise UsageError("--roofline is a page for one of --sizes and one of --precisions")
        if cases[0].precision == "int8":
            raise UsageError("--roofline counts floats: it has no page for --precisions int8")
        torch.set_num_threads(threads)
        _roofline(cases[0], output, console)
        return None
    chosen = choose_filters(peers or DEFAULT)
    settings = Settings(frames, seconds_per_case, threads, patience, note)
    plots = output is not None and can_plot(console)
    results = measure(cases, settings, console.print, peers=chosen, end_to_end=end_to_end)
    _write(results, output, console, plots)
    # Single failures are reported; if all cases fail, nothing was measured.
    return int(not any(row["status"] == "ok" for row in results["cases"]))


def _write(results: dict[str, Any], output: Path | None, console: Console, plots: bool) -> None:
    from vidnoise.bench.results import markdown, write_results

    if output is None:
        click.echo(markdown(results), nl=False)
        return
    write_results(output, results)
    console.print(f"written: {output} and {output.with_suffix('.md')}")
    if plots:
        from vidnoise.bench.plot import plot_results

        plot_results(results, output.with_suffix(".png"))
        console.print(f"written: {output.with_suffix('.png')}")


def _compare(old: Path, new: Path, tolerance: float) -> int:
    from vidnoise.bench.regression import compare, markdown
    from vidnoise.bench.results import read_results

    changes, lines = compare(read_results(old), read_results(new))
    click.echo(markdown(changes, lines, tolerance), nl=False)
    if not changes:
        raise UsageError(f"{old} and {new} have no case in common")
    return int(any(change.is_slower(tolerance) for change in changes))


def _roofline(case: Case, output: Path | None, console: Console) -> None:
    from vidnoise.bench.results import write_file
    from vidnoise.bench.roofline import make_roofline, markdown

    page = make_roofline(case, console.print)
    if output is None:
        click.echo(markdown(page), nl=False)
        return
    write_file(output.with_suffix(".json"), json.dumps(page, indent=1) + "\n")
    write_file(output.with_suffix(".md"), markdown(page))
    console.print(f"written: {output.with_suffix('.md')} and {output.with_suffix('.json')}")
