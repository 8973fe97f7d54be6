"""``vidnoise compare A B``: comparing two versions of a video, in a video, on a contact sheet, and in figures."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import click

from vidnoise.cli.options import file_option
from vidnoise.text import safe, shown

if TYPE_CHECKING:
    from vidnoise.reports.comparison import FileComparison


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("-o", "--output", metavar="FILE", help="Video of both versions, with A's codec and audio.")
@click.option(
    "--mode", type=click.Choice(["side", "split", "wipe"]), default="side", show_default=True,
    help="Side by side; half and half; or a moving divider.",
)  # fmt: skip
@click.option("--sheet", metavar="FILE.png", help="Contact sheet of three moments, whole and enlarged.")
@click.option("--reference", metavar="FILE", help="The clean original, for PSNR, SSIM, flicker and VMAF.")
@click.option(
    "--vmaf/--no-vmaf", default=None,
    help="Measure VMAF against the reference, by an ffmpeg that has libvmaf.  [default: where there is one]",
)  # fmt: skip
@file_option("start")
@file_option("duration")
@file_option("codec")
@file_option("crf")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@file_option("overwrite")
def compare(
    a: str,
    b: str,
    output: str | None,
    mode: str,
    sheet: str | None,
    reference: str | None,
    vmaf: bool | None,
    start: float | None,
    duration: float | None,
    codec: str | None,
    crf: float | None,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Compare two versions A and B of a video, for example the noisy and the clean one.

    Example: vidnoise compare noisy.mp4 clean.mp4 -o both.mp4 --mode wipe --sheet both.png
    """
    if output is None and sheet is None and reference is None:
        raise click.UsageError("nothing to do; give -o VIDEO, --sheet PICTURE.png or --reference FILE")

    from vidnoise.cli.console import console_for_messages, progress_bar

    with contextlib.ExitStack() as stack:
        console = stack.enter_context(console_for_messages(0))
        progress = stack.enter_context(progress_bar(console, "compare")) if console.is_terminal else None

        from vidnoise.reports.comparison import compare_files, default_label

        result = compare_files(
            a, b, output=output, sheet=sheet, reference=reference, mode=mode, start=start, duration=duration,
            vmaf=vmaf, labels=(default_label(a), default_label(b)), overwrite=overwrite, codec=codec, crf=crf,
            progress=progress,
        )  # fmt: skip
    if as_json:
        click.echo(
            json.dumps(
                {"a": shown(a), "b": shown(b), "reference": reference and shown(reference), **result.to_dict()},
                indent=1,
            )
        )
        return
    for line in lines(result, a, b):
        click.echo(safe(line))


def lines(result: FileComparison, a: str, b: str) -> list[str]:
    """Format a comparison as lines of text."""
    from vidnoise.reports.comparison import quality_text

    frames = "1 frame" if result.frames == 1 else f"{result.frames} frames"
    found = [f"{frames} compared" + (f"; wrote {' and '.join(result.written)}" if result.written else "")]
    width = max(len(a), len(b))
    for path, quality in zip((a, b), result.quality.values(), strict=False):
        found.append(f"{path:<{width}}  {quality_text(quality)}")
    if result.vmaf_missing is not None:
        found.append(f"VMAF is not measured: {result.vmaf_missing}")
    return found
