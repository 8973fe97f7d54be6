"""Processing the files of a run: each prints a line, and failures are listed at the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from vidnoise.cli.batch import Batch, Job, existing, finished, make_folders
from vidnoise.cli.options import spelled
from vidnoise.cli.workers import Task, Work, outcomes
from vidnoise.disk import Lines, write_whole
from vidnoise.errors import ReaderClosedError, SinkOpenError, VidnoiseError
from vidnoise.stills.names import is_still
from vidnoise.text import safe, shown

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import RunStats

logger = logging.getLogger(__name__)

_INTERRUPTED = 130
_MIXED = 1
"""Exit status if files failed for different kinds of reasons."""

_MAX_EXAMPLES = 3
"""Maximum number of names listed as examples."""


class Say(Protocol):
    """Prints a line on standard error; with ``always``, even if the user wants quiet."""

    def __call__(self, text: str, *, always: bool = False) -> None: ...


def prepare(batch: Batch, *, overwrite: bool, resume: bool, say: Say) -> None:
    """Check the outputs of a batch and create their folders, before anything runs.

    Args:
        batch: The files to process.
        overwrite: Whether outputs may be replaced.
        resume: Whether finished outputs are skipped.
        say: Prints a line.

    Raises:
        SinkOpenError: Outputs exist already, or their folders cannot be created.
    """
    if batch.left_out:
        what = "neither videos nor pictures by their names"
        say(f"{_count(batch.left_out, 'file')} left out, {what}: {_examples(batch.left_out)}")
    there = existing(batch.jobs)
    if there and not overwrite and not resume:
        outputs = [job.output for job in there]
        raise SinkOpenError(
            f"{len(there)} of {_count(batch.jobs, 'output')} are there already ({_examples(outputs)}); "
            "-y replaces them, --resume skips them", there[0].output,
        )  # fmt: skip
    make_folders(batch.jobs)


def run_file(job: Job, denoise: Callable[[Job, str], RunStats], *, skip: bool, say: Say, report: JsonReport) -> int:
    """Denoise one file; returns the exit status.

    Args:
        job: The file.
        denoise: Denoises it; called with the job and a name for the progress bar.
        skip: Whether to skip a file whose output exists.
        say: Prints a line.
        report: Receives the statistics.

    Raises:
        VidnoiseError: Whatever ``denoise`` raised.
    """
    if skip and finished([job]):
        say(f"{job.output}: is there already; nothing to do")
        report.add(job, skipped=True)
        return 0
    stats = denoise(job, Path(shown(job.output)).name)
    say(summary(stats, job.output))
    report.add(job, **stats.to_dict())
    return _INTERRUPTED if stats.interrupted else 0


def run_batch(
    batch: Batch, workers: Sequence[Callable[[Job, str], RunStats]], *, skip: bool, say: Say, report: JsonReport
) -> int:
    """Denoise many files; see :func:`run_file` for the arguments. A failure does not stop the other files.

    ``workers`` are functions like ``denoise`` there; several process one file each at a time, see :func:`outcomes`.

    Returns:
        0, or the exit status common to all failures, or 1 if they differ, or 130 after an interruption.
    """
    failures: list[tuple[Job, str, int]] = []
    n_skipped = n_done = n_interrupted = n_ended = 0
    tasks: list[Task] = []
    for number, job in enumerate(batch.jobs, 1):
        if skip and finished([job]):
            n_skipped += 1
            report.add(job, skipped=True)
        else:
            tasks.append((number, job))

    def label_of(number: int) -> str:
        return f"{number}/{len(batch.jobs)}"

    def named(denoise: Callable[[Job, str], RunStats]) -> Work:
        return lambda number, job: denoise(job, f"{label_of(number)} {Path(job.source).name}")

    ended = outcomes(tasks, [named(denoise) for denoise in workers])
    for number, job, outcome in ended:
        n_ended += 1
        place = label_of(number)
        if isinstance(outcome, ReaderClosedError):
            raise outcome
        if isinstance(outcome, Exception):  # whatever it was, the next file may be fine
            ex = outcome
            is_ours = isinstance(ex, VidnoiseError)
            internal = f"{job.source}: internal error: {type(ex).__name__}: {ex}"
            reason = safe(" ".join((spelled(str(ex), ex.options) if is_ours else internal).split()))
            failures.append((job, reason, ex.exit_code if is_ours else _MIXED))
            say(f"{place} failed: {reason}")
            report.add(job, error=reason, exit_code=failures[-1][2])
            continue
        say(f"{place} {summary(outcome, job.output)}")
        report.add(job, **outcome.to_dict())
        n_done += not outcome.interrupted
        n_interrupted += outcome.interrupted
        if outcome.interrupted and len(workers) == 1:
            break
    if n_interrupted:
        left = len(tasks) - n_ended
        if left:
            say(f"{left} {'file was' if left == 1 else 'files were'} not begun")
        _list_failures(failures, len(batch.jobs), say)
        return _INTERRUPTED
    skipped = f", {n_skipped} {'was' if n_skipped == 1 else 'were'} there already" if n_skipped else ""
    say(f"{_count(range(n_done), 'file')} done{skipped}")
    _list_failures(failures, len(batch.jobs), say)
    codes = {code for _, _, code in failures} | ({report.error.exit_code} if report.error else set())
    return common_status(codes)


def common_status(codes: Set[int]) -> int:
    """Return 0 without failures, the exit status that all of them have in common, or 1 if they differ."""
    return 0 if not codes else next(iter(codes)) if len(codes) == 1 else _MIXED


def _list_failures(failures: Sequence[tuple[Job, str, int]], n_files: int, say: Say) -> None:
    if failures:
        say(f"{len(failures)} of {n_files} files failed:", always=True)
    for job, reason, _ in failures:
        name = shown(job.source)
        say(f"  {reason}" if name in reason else f"  {name}: {reason}", always=True)


def summary(stats: RunStats, output: str) -> str:
    """Summarise a run in one line."""
    n_frames = stats.frames_out + stats.frames_kept
    if stats.interrupted and not n_frames:
        return "interrupted before the first frame; nothing was written"
    frames = _count(range(n_frames), "frame" if n_frames != 1 or not is_still(output) else "picture")
    if not stats.is_whole:
        return f"interrupted; {frames} of {output} are kept in {output}.parts, the same command goes on from there"
    kept = f", {stats.frames_kept} of them from before," if stats.frames_kept else ""
    name = "standard output" if output == "-" else shown(output)
    line = f"{name}: {frames}{kept} in {stats.seconds:.1f} s ({stats.fps:.1f} fps)"
    if stats.sigma_mean is not None:
        line += f", noise {stats.sigma_mean:.1f}/255"
    line += f", model {stats.model} on {stats.device}"
    if stats.backend != "eager":
        line += f" by {stats.backend}"
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


class JsonReport:
    """JSON statistics: one object, or a line for each file of a batch, written as soon as it is known.

    Args:
        path: A file, ``-`` for standard output, or None for nothing.
        is_batch: Whether each object takes one line.
        overwrite: Whether the file may exist.

    Raises:
        SinkOpenError: The file cannot be created.
    """

    def __init__(self, path: str | None, *, is_batch: bool, overwrite: bool = False) -> None:
        self._path = path
        self._is_batch = is_batch
        self._overwrite = overwrite
        self._lines = Lines(path, overwrite=overwrite) if is_batch and path not in (None, "-") else None
        self.error: SinkOpenError | None = None
        """The first error in a batch, which does not stop the videos."""

    def add(self, job: Job, **values: Any) -> None:
        """Write the statistics of ``job``.

        Raises:
            SinkOpenError: The file cannot be written, and there is no batch to continue.
        """
        path = self._path
        if path is None or self.error is not None:
            return
        about = {"input": shown(job.source), "output": shown(job.output), **values}
        text = json.dumps(about, indent=None if self._is_batch else 1)
        try:
            if path == "-":
                click.echo(text)
            elif self._lines is not None:
                self._lines.write(text)
            else:
                write_whole(path, text.encode() + b"\n", overwrite=self._overwrite)
        except SinkOpenError:
            raise
        except BrokenPipeError:
            if not self._is_batch:
                raise
            self.error = SinkOpenError(f"{path}: nobody reads the statistics any more", path)
        except OSError as ex:
            self.error = SinkOpenError(f"{path}: cannot be written: {ex.strerror or ex}", path)
        if self.error is not None:
            logger.warning("%s; the videos go on", self.error)


def is_report(path: str) -> bool:
    """Whether a file was written by ``--json`` or ``--stats`` of an earlier run."""
    try:
        with open(path, encoding="utf-8") as file:
            line = file.readline(1 << 20)
            found = json.loads(line if line.strip() != "{" else line + file.read(1 << 20))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and ({"input", "output"} <= found.keys() or {"seconds", "frames"} <= found.keys())


def _count(items: Sequence[Any], what: str) -> str:
    return f"{len(items)} {what}" if len(items) == 1 else f"{len(items)} {what}s"


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_EXAMPLES]) + (", ..." if len(names) > _MAX_EXAMPLES else "")
