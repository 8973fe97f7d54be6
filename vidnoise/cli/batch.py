"""Planning a batch: which files to read, and the name of each output. Nothing is opened here."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidnoise.disk import is_unfinished
from vidnoise.errors import SinkOpenError, SourceOpenError, UsageError
from vidnoise.stills.names import KINDS, is_glob, is_numbered, sequence_files

VIDEO_SUFFIXES = frozenset(
    {
        ".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2t", ".m2ts", ".m2v",
        ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm",
        ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
    }
)  # fmt: skip

SUFFIXES = VIDEO_SUFFIXES | KINDS.keys()
"""Suffixes of the files that are processed in folders: videos and pictures."""

_ADDRESS = r"[A-Za-z][\w+.-]+:"
"""Prefix of addresses of devices, pipes and so on; drives of Windows have a single letter."""

_FORMAT_SPEC = r"0?\d{0,2}"
"""Format specification that a field may have."""

FIELDS = {
    "stem": "the input's name without its suffix",
    "suffix": "the input's suffix, with the dot",
    "parent": "the input's folder",
    "sub": "the input's subfolder below the given folder, empty at the top",
    "index": "the input's number, from 1",
    "model": "the model",
}
"""Fields for the names of outputs, in braces."""


def as_file(path: str) -> str:
    """Make a path that cannot be mistaken for an address, since ``screen:1.mkv`` and ``-`` may be names of files."""
    is_address = path == "-" or ":" in path.partition("/")[0]
    return os.path.join(".", path) if is_address and not os.path.isabs(path) else path


@dataclass(frozen=True, slots=True)
class Job:
    """One file of a batch."""

    source: str
    output: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The files to process."""

    jobs: tuple[Job, ...]
    left_out: tuple[str, ...] = ()
    """Files in folders that are neither videos nor pictures by their names."""


@dataclass(frozen=True, slots=True)
class _Input:
    path: Path
    sub: Path
    """The file's folder, relative to the given folder."""
    is_found: bool = False
    """Whether the file was found in a folder rather than named."""


def is_batch(inputs: Sequence[str], output: str) -> bool:
    """Whether this is a batch: several inputs, a folder on either side, or a template.

    A sequence of pictures is a single input.
    """
    return len(inputs) > 1 or any(map(os.path.isdir, inputs)) or _is_folder(output) or _is_template(output)


def plan_batch(inputs: Sequence[str], output: str, *, model: str) -> Batch:
    """Find the input files, in order, and name their outputs.

    Args:
        inputs: Files, folders, numbered sequences of pictures, and globs of pictures; folders are searched recursively,
            except for hidden subfolders. The pictures of a folder or a glob are denoised separately, those of a
            numbered sequence as one video.
        output: A folder, which gets the subfolders of the input, or a template: ``out/{stem}-clean{suffix}``.
        model: Name of the model, for templates.

    Raises:
        UsageError: An input is not a file, the output is neither a folder nor a template, a field is unknown, or two
            inputs would have the same output.
        SourceOpenError: A folder contains neither videos nor pictures, or nothing matches a glob.
        SinkOpenError: An output would replace an input.
    """
    if "\0" in output:
        raise UsageError(f"{output}: no name of a file holds a zero")
    for name in inputs:
        if not os.path.exists(name) and (name == "-" or "://" in name or re.match(_ADDRESS, name)):
            raise UsageError(f"{name}: with several inputs, or into a folder, only files and folders can be read")
    if output == "-" or "://" in output or re.match(_ADDRESS, output):
        raise UsageError(f"{output}: holds one video; give a folder, or a name such as {{stem}}-clean{{suffix}}")
    name_of = _template(output, model) if _is_template(output) else _in_folder(output)
    found, left_out = _find(inputs, _folder_of(output))
    outputs = {os.path.realpath(name_of(each, number)): each for number, each in enumerate(found, 1)}
    # Outputs of an earlier run, next to their inputs, are not inputs.
    found = [each for each in found if not each.is_found or outputs.get(os.path.realpath(each.path), each) is each]
    jobs = tuple(Job(as_file(str(each.path)), name_of(each, number)) for number, each in enumerate(found, 1))
    _check_names(jobs)
    return Batch(jobs, tuple(left_out))


def make_folders(jobs: Sequence[Job]) -> None:
    """Create the folders of the outputs.

    Raises:
        SinkOpenError: A folder cannot be created.
    """
    for folder in dict.fromkeys(os.path.dirname(job.output) for job in jobs):
        try:
            os.makedirs(folder or ".", exist_ok=True)
        except OSError as ex:
            raise SinkOpenError(f"{folder}: cannot be created: {ex.strerror or ex}", folder) from ex


def existing(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs whose outputs exist."""
    return [job for job in jobs if os.path.lexists(job.output)]


def finished(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs whose outputs exist and are not just empty files, as a power cut may leave them."""
    return [job for job in jobs if os.path.exists(job.output) and not is_unfinished(job.output)]


def _is_folder(output: str) -> bool:
    return os.path.isdir(output) or output.endswith(("/", os.sep))


def _is_template(output: str) -> bool:
    return any(f"{{{name}" in output for name in FIELDS)


def _in_folder(output: str) -> Callable[[_Input, int], str]:
    if os.path.exists(output) and not os.path.isdir(output):
        raise UsageError(f"{output}: is a file; for several inputs give a folder, or a name such as {{stem}}{{suffix}}")
    if is_numbered(output):
        raise UsageError(
            f"{output}: names a sequence, but several names or a folder are separate pictures; give a folder for "
            "those, or the sequence as one input, in quotes: 'shots/*.png' or shots/frame%04d.png"
        )
    if Path(output).suffix.lower() in SUFFIXES:
        raise UsageError(
            f"{output}: names one file; for several inputs give a folder ({Path(output).with_suffix('')}/), "
            "or a name such as {stem}-clean{suffix}; pictures that make one video are one input, in quotes: "
            "'shots/*.png'"
        )
    return lambda each, _: as_file(str(Path(output) / each.sub / each.path.name))


def _template(output: str, model: str) -> Callable[[_Input, int], str]:
    try:
        parts = [part for part in string.Formatter().parse(output) if part[1] is not None]
    except ValueError as ex:
        raise UsageError(f"{output}: cannot be read as a name with fields: {ex}") from ex
    for _, name, form, conversion in parts:
        if name in FIELDS and (conversion or not re.fullmatch(_FORMAT_SPEC, form or "")):
            raise UsageError(
                f"{output}: cannot be filled in: behind {{{name} may stand a number of digits, as in {{index:03}}"
            )
        if name not in FIELDS:
            raise UsageError(f"{output}: unknown field {{{name}}}; there are {', '.join(f'{{{f}}}' for f in FIELDS)}")

    def name_of(each: _Input, number: int) -> str:
        path = each.path
        try:
            name = output.format(
                stem=path.stem, suffix=path.suffix, parent=str(path.parent), index=number, model=Path(model).stem,
                sub="" if each.sub == Path() else str(each.sub),
            )  # fmt: skip
        except ValueError as ex:  # {index:03} is fine, {stem:03d} is not
            raise UsageError(f"{output}: cannot be filled in: {ex}") from ex
        return as_file(os.path.normpath(name))

    return name_of


def _folder_of(output: str) -> Path | None:
    """Return the folder of all outputs, if there is one; files in it are not inputs."""
    if not _is_template(output):
        return Path(output)
    fixed = os.path.dirname(output.partition("{")[0])
    return Path(fixed) if fixed else None


def _find(inputs: Sequence[str], target: Path | None) -> tuple[list[_Input], list[str]]:
    found: list[_Input] = []
    left_out: list[str] = []
    for name in inputs:
        if is_glob(name):
            found += [_Input(Path(path), Path(), is_found=True) for _, path in sequence_files(name)]
            continue
        if not os.path.isdir(name):
            found.append(_Input(Path(name), Path()))
            continue
        here: list[_Input] = []
        for folder, folders, names in os.walk(name):
            folders[:] = sorted(
                f for f in folders
                if not f.startswith(".") and not f.endswith(".parts") and not _is_same(Path(folder, f), target)
            )  # fmt: skip
            sub = Path(folder).relative_to(name)
            for file in sorted(names):
                if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."):
                    here.append(_Input(Path(folder, file), sub, is_found=True))
                elif not file.startswith(".") and not file.endswith(".part"):
                    left_out.append(os.path.join(folder, file))
        if not here:
            raise SourceOpenError(
                f"{name}: holds no video and no picture (files are taken by suffix: .mp4, .mkv, .jpg, .png, ...)", name
            )
        found += here
    unique: dict[str, _Input] = {}
    for each in found:
        unique.setdefault(os.path.realpath(each.path), each)
    return list(unique.values()), left_out


def _is_same(folder: Path, target: Path | None) -> bool:
    return target is not None and os.path.realpath(folder) == os.path.realpath(target)


def _check_names(jobs: Sequence[Job]) -> None:
    sources = {os.path.realpath(job.source): job.source for job in jobs}
    taken: dict[str, Job] = {}
    for job in jobs:
        path = os.path.realpath(job.output)
        other = taken.setdefault(path, job)
        if other is not job:
            raise UsageError(
                f"{other.source} and {job.source} would both become {job.output}; tell them apart by "
                "{sub}, {suffix} or {index} in the name, as in out/{index:03}-{stem}{suffix}"
            )
        if path in sources:
            raise SinkOpenError(
                f"{job.output}: is the input {sources[path]} itself; choose another folder, or a name such as "
                "{parent}/{stem}-clean{suffix}", job.output,
            )  # fmt: skip


__all__ = [
    "FIELDS", "SUFFIXES", "VIDEO_SUFFIXES", "Batch", "Job", "existing", "finished", "is_batch", "make_folders",
    "plan_batch",
]  # fmt: skip
