"""``vidnoise cameras FILE``: denoise several cameras at once, each in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidnoise.cli.batch import Job, existing
from vidnoise.cli.child import Child, CrashError
from vidnoise.cli.configuration import defaults_of, parse_with_defaults, read_toml, setting_name
from vidnoise.cli.files import common_status, summary
from vidnoise.cli.options import spelled
from vidnoise.errors import SinkOpenError, SourceError, UsageError, VidnoiseError
from vidnoise.options import FileOptions
from vidnoise.sinks import check_places, numbered, sink_kind
from vidnoise.text import safe

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import Progress, RunStats

logger = logging.getLogger(__name__)

TABLE = "camera"
"""Table of a file that has a table for each camera."""

_REPORT_SECONDS = 10.0
"""Interval between two lines about a camera."""

_RESTART_SECONDS = 10.0
"""Wait before a camera that has failed is started again."""

_WAKE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a file."""

    name: str
    source: str
    output: str
    model: str
    options: FileOptions


@click.command("cameras")
@click.argument("path", metavar="FILE")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@click.option("-v", "--verbose", count=True, help="Show choices and their reasons; -vv for debugging.")
def cameras(path: str, quiet: bool, verbose: int) -> int:
    """Denoise the cameras listed in FILE, a TOML file, until they end or Ctrl-C.

    \b
    model = "fast"                # options for all cameras
    [camera.door]
    input = "rtsp://10.0.0.5/1"
    output = "door.mkv"
    strength = 0.8                # options for this one

    A camera that fails does not stop the others, and is started again after 10 seconds. Files then continue in the
    next free name (door-2.mkv).
    """  # noqa: D301 - click wants the character itself
    found = read_cameras(Path(path))
    check_places([c.output for c in found], reads=[path, *(c.source for c in found)])
    there = existing([Job(c.source, c.output) for c in found if not c.options.overwrite])
    if there:
        raise SinkOpenError(
            f"{there[0].output}: exists already; give it another name, or set overwrite", there[0].output
        )

    from vidnoise.cli.console import console_for_messages
    from vidnoise.cli.interrupt import stop_on_signal

    with console_for_messages(-1 if quiet else verbose) as console:

        def say(text: str) -> None:
            if not quiet:
                console.print(f"vidnoise: {safe(text)}", markup=False, emoji=False, soft_wrap=True)

        with stop_on_signal(lambda: say("stopping; once more to stop at once")) as should_stop:
            return run_cameras(found, say=say, should_stop=should_stop)


def read_cameras(path: Path) -> list[Camera]:
    """Read a file of cameras.

    Raises:
        UsageError: The file or a setting in it is wrong, or there is no camera.
    """
    values = read_toml(path)
    tables = values.pop(TABLE, None)
    if not isinstance(tables, dict) or not tables:
        raise UsageError(f'{path}: has no camera; begin with [{TABLE}.NAME], input = "...", output = "..."')
    found: list[Camera] = []
    for name, table in tables.items():
        place = f"{path}: {TABLE}.{name}"
        if not isinstance(table, dict):
            raise UsageError(f"{place} must be a table: [{TABLE}.{name}]")
        found.append(_camera(name, table, values, path, place))
    if all(not camera.options.threads for camera in found):
        # They run at the same time, and each would take all cores otherwise.
        threads = max(1, (os.cpu_count() or 1) // len(found))
        found = [replace(camera, options=replace(camera.options, threads=threads)) for camera in found]
    return found


def _camera(name: str, table: dict[str, Any], common: dict[str, Any], path: Path, place: str) -> Camera:
    from vidnoise.cli.run import run

    names = {field.name for field in fields(FileOptions)} | {"model"}
    others = {setting_name(option) for option in run.params if option.name not in names}
    own = {key: table[key] for key in table if key not in ("input", "output")}
    for key in ("input", "output"):
        if not isinstance(table.get(key), str):
            raise UsageError(f'{place} needs {key} = "..."')
    defaults = defaults_of(run, common, os.fspath(path), without=others | {"tee", "mask", "grain-table"})
    defaults |= defaults_of(run, own, place, without=others)
    try:
        given = parse_with_defaults(run, ["-o", table["output"], "--", table["input"]], defaults, path)
        options = FileOptions(**{name: given[name] for name in names - {"model"}})
    except UsageError as ex:
        raise UsageError(f"{place}: {ex}", *ex.options) from ex
    return Camera(name, table["input"], table["output"], given["model"], options)


def run_cameras(found: Sequence[Camera], *, say: Callable[[str], None], should_stop: Callable[[], bool]) -> int:
    """Denoise cameras, each on a thread of its own.

    Returns:
        0; or the exit status common to all cameras that failed for good, 1 if they differ; or 130 if interrupted.
    """
    codes: list[int] = []

    def work(camera: Camera) -> None:
        codes.append(_Run(camera, say, should_stop).until_it_ends())

    threads = [threading.Thread(target=work, args=(camera,), name=camera.name) for camera in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # a join without a time limit would keep signals waiting
            thread.join(_WAKE_SECONDS)
    if should_stop():
        return 130
    return common_status({code for code in codes if code})


class _Run:
    """One camera, started again when it fails."""

    def __init__(self, camera: Camera, say: Callable[[str], None], should_stop: Callable[[], bool]) -> None:
        self._camera = camera
        self._say = say
        self._should_stop = should_stop
        self._reported = time.monotonic()

    def until_it_ends(self) -> int:
        """Denoise until the camera ends, or the user stops it; returns the exit status."""
        name, output = self._camera.name, self._camera.output
        while True:
            begun = False
            try:
                with contextlib.closing(Child(self._camera.model, self._camera.options, name)) as child:
                    begun = True
                    stats = self._denoise(child, output)
                self._say(f"{name}: {summary(stats, output)}")
                return 0
            except VidnoiseError as ex:
                text = f"{name}: {spelled(str(ex), ex.options)}"
                may_pass = begun and isinstance(ex, (SourceError, CrashError))
                if not may_pass or self._should_stop():
                    logger.error("%s", text)
                    return ex.exit_code
                logger.error("%s; starts again in %.0f s", text, _RESTART_SECONDS)
            if not self._wait():
                return 0
            if sink_kind(output) == "file" and os.path.lexists(output):
                output = numbered(self._camera.output)

    def _denoise(self, child: Child, output: str) -> RunStats:
        return child.denoise(Job(self._camera.source, output), progress=self._report, should_stop=self._should_stop)

    def _report(self, progress: Progress) -> None:
        from vidnoise.cli.live_report import live_line

        if progress.live is None or time.monotonic() < self._reported + _REPORT_SECONDS:
            return
        self._reported = time.monotonic()
        self._say(f"{self._camera.name}: {live_line(progress)}")

    def _wait(self) -> bool:
        """Wait before the next start; returns whether there is to be one."""
        end = time.monotonic() + _RESTART_SECONDS
        while time.monotonic() < end and not self._should_stop():
            time.sleep(_WAKE_SECONDS)
        return not self._should_stop()
