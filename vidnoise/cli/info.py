"""``vidnoise info FILE``: a video's streams, its noise, and what vidnoise would do with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from vidnoise.text import safe

if TYPE_CHECKING:
    from vidnoise.reports.inspection import NoiseReport, VideoReport

_COMPONENTS = {"y": "Y", "u": "Cb", "v": "Cr", "r": "R", "g": "G", "b": "B"}


@click.command()
@click.argument("source", metavar="FILE")
@click.option("--model", metavar="NAME", default="standard", show_default=True, help="Model to measure the noise with.")
@click.option("--no-noise", is_flag=True, help="Do not measure the noise, which is faster.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def info(source: str, model: str, no_noise: bool, as_json: bool) -> None:
    """Show FILE's streams, colours and noise, and what vidnoise would do with it."""
    from vidnoise.cli.console import console_for_messages
    from vidnoise.cli.suggestions import suggest_name

    with console_for_messages(0):
        from vidnoise.reports.inspection import inspect_video

        output = suggest_name(source)
        report = inspect_video(source, model=model, noise=not no_noise, output=output)
    would = plan(report, model, output)
    if as_json:
        click.echo(json.dumps({**report.to_dict(), "would": would}, indent=1))
        return
    for label, text in [*_lines(report), *(("would", line) for line in would["steps"])]:
        click.echo(f"{label:<9} {safe(text)}")
    click.echo(f"{'try':<9} {safe(would['command'])}")


def _lines(report: VideoReport) -> list[tuple[str, str]]:
    video = report.video
    length = video["duration_seconds"]
    facts = [
        f"{video['codec'] or 'uncompressed'}, {video['width']}x{video['height']}",
        f"{video['pixel_format']} ({video['bit_depth']} bit)",
        *([] if video["is_still"] else [f"{video['rate']:g} fps" if video["rate"] else "no fixed rate"]),
        *([] if video["is_still"] else ["length unknown" if length is None else f"{length:.2f} s"]),
        *([f"{video['n_frames']} frames"] if video["n_frames"] and not video["is_still"] else []),
        *([f"{video['bit_rate'] / 1000:.0f} kb/s"] if video["bit_rate"] else []),
        *([f"interlaced ({video['field_order']})"] if video["field_order"] else []),
        *([f"rotated by {video['rotation']} degrees"] if video["rotation"] else []),
        *([f"pixels {video['sample_aspect_ratio']}"] if video["sample_aspect_ratio"] not in (None, "1") else []),
    ]
    lines = [
        ("file", f"{report.path} ({report.container or 'no container'})"),
        ("picture" if video["is_still"] else "video", ", ".join(facts)),
    ]
    for stream in report.others:
        language = f", {stream['language']}" if stream["language"] else ""
        lines.append((stream["kind"], f"#{stream['index']} {stream['codec']}{language}"))
    if report.chapters:
        lines.append(("chapters", str(report.chapters)))
    lines.append(("colour", _color(report.color)))
    if report.noise is not None:
        lines.append(("noise", _noise(report.noise)))
    return lines


def _color(color: dict[str, Any]) -> str:
    tags = [f"{key} {color[key]}" for key in ("matrix", "range", "primaries", "transfer") if color[key]]
    text = ", ".join(tags) or "not tagged"
    missing = [f"{key} {value}" for key, value in color["taken_as"].items() if value != color[key]]
    if missing:
        text += f"; taken as {', '.join(missing)}"
    return text + (f"; HDR: {', '.join(name.replace('_', ' ') for name in color['hdr'])}" if color["hdr"] else "")


def _noise(noise: NoiseReport) -> str:
    planes = ", ".join(f"{_COMPONENTS[name]} {value:.1f}" for name, value in noise.planes.items())
    text = f"{noise.sigma:.1f}/255 estimated; would be removed, by plane (8-bit units): {planes}"
    if len(noise.sigmas) > 1:
        where = ", ".join(f"{s:.1f} at {t:.0f} s" for s, t in zip(noise.sigmas, noise.seconds, strict=True))
        text += f" ({where})"
    return text


def plan(report: VideoReport, model: str, output: str) -> dict[str, Any]:
    """Describe what ``vidnoise FILE`` would do by default, as a list of sentences, with the command."""
    video, taken = report.video, report.color["taken_as"]
    steps = [f"denoise with model {model}, the noise level found by itself"]
    if video["field_order"]:
        steps[0] += ", field by field"
    if report.noise is not None and report.noise.sigma < 1:
        steps[0] = f"hardly change it: there is next to no noise in it (model {model})"
    if taken["matrix"] != "RGB":
        steps.append(f"take {taken['matrix']} {taken['range']}-range samples to RGB, and add corrections back to them")
    else:
        steps.append(f"add corrections to its own {video['pixel_format']} samples")
    if report.encoding is not None:
        steps.append(f"encode with {report.encoding['encoder']} as {report.encoding['pixel_format']}")
    if report.others or report.chapters:
        what = [f"{len(report.others)} further {'stream' if len(report.others) == 1 else 'streams'}"]
        what += ["chapters"] if report.chapters else []
        steps.append(f"copy {' and '.join(what)}")
    command = f"vidnoise {_quoted(report.path)} -o {_quoted(output)}"
    return {"model": model, "output": output, "steps": steps, "command": command}


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)
