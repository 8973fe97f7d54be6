"""``vidnoise doctor``: facts about this machine for bug reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from vidnoise.cli.options import spelled
from vidnoise.text import safe

NO_KERNELS = "none: install a C compiler, then run python -m vidnoise.kernels.compile to denoise faster on this CPU"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def doctor(as_json: bool) -> None:
    """Show versions, backends, encoders, GPUs and models, for bug reports."""
    from vidnoise.reports.environment import inspect_environment

    found = inspect_environment()
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for line in _lines(found):
        click.echo(safe(line))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for name, version in found["versions"].items():
        yield _row(name, version or "not installed")
    yield _row("OpenCV", _opencv(found["opencv"]))
    yield _row("FFmpeg", ", ".join(f"{name} {version}" for name, version in found["ffmpeg"].items()))
    yield _row("threads", f"{found['threads']['torch']} of {found['threads']['cpus']} CPUs")
    yield _row("GPUs", ", ".join(f"{device}: {name}" for device, name in found["gpus"].items()) or "none found")
    yield _row("compiled kernels", found["cpu_kernels"] or NO_KERNELS)
    for name, trouble in found["backends"].items():
        yield _row(f"backend {name}", spelled(trouble) or "ok")
    for codec, encoders in found["encoders"].items():
        each = (f"{name}: {trouble or 'ok'}" for name, trouble in encoders.items())
        yield _row(f"codec {codec}", "; ".join(each) or "this build of FFmpeg has no encoder for it")
    cache, models = found["cache"], found["models"]
    yield _row("cache", f"{cache['folder']}, {cache['megabytes']} MB" if cache["folder"] else "none: no home directory")
    versions = ", ".join(f"{name} {version}" for name, version in models["versions"].items())
    yield _row("models", f"{versions} in {', '.join(models['folders'])}" if versions else "none found")


def _opencv(packages: dict[str, str | None]) -> str:
    text = ", ".join(f"{name} {version}" for name, version in packages.items()) or "by no package of this Python"
    if len(packages) > 1:
        text += " (they overwrite each other: uninstall all of them, then install one)"
    return text


def _row(label: str, text: str) -> str:
    return f"{label:<22}  {text}"
