"""Runs mutants in processes of their own: ``PYTHONPATH=tests python -m faults.fuzz.run --mutants 10000``.

Mutant ``n`` of a target comes from a generator with the seed ``TARGET:n`` and nothing else, so that a name is enough to
have it again: ``python -m faults.fuzz.run --only mp4-h264:17``. Those that fail are kept in ``reproducers/``, which the
tests run anew each time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from faults.fuzz.targets import Target, targets
from vidnoise.errors import VidnoiseError

REPRODUCERS = Path(__file__).parent / "reproducers"
HANG_SECONDS = 10
LONGEST_MESSAGE = 2000

Outcome = tuple[str, str]
"""``fine``, ``refused``, ``failed`` (an error that is not ours, or not one line), ``crashed``, ``hung``; and why."""


def seeds_of(target: Target) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        return target.seeds(Path(folder))


def mutant(target: Target, seeds: list[bytes], number: int) -> bytes:
    return target.mutant(seeds, random.Random(f"{target.name}:{number}"))


def try_one(target: Target, data: bytes) -> Outcome:
    """What becomes of one input, in this process."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = os.path.join(name, "cache")
        folder = Path(name, "work")
        folder.mkdir()
        here = os.getcwd()
        try:
            target.run(data, folder)
        except VidnoiseError as ex:
            text = str(ex)
            if not text or "\n" in text or len(text) > LONGEST_MESSAGE:
                return "failed", f"not one line: {text[:300]!r}"
            return "refused", text
        except Exception as ex:
            where = traceback.extract_tb(ex.__traceback__)[-1]
            return "failed", f"{type(ex).__name__}: {str(ex)[:300]} ({Path(where.filename).name}:{where.lineno})"
        finally:
            os.chdir(here)
        if left := list(folder.rglob("*.part")):
            return "failed", f"left behind: {left[0].name}"
        return "fine", ""


def outcomes(target: Target, inputs: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes, Outcome]]:
    """The same in child processes: one works until it crashes or hangs, then the next goes on behind it."""
    waiting = list(inputs)
    while waiting:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _work(target, waiting, writing)
        os.close(writing)
        done = 0
        with os.fdopen(reading) as lines:
            for line in lines:
                kind, why = json.loads(line)
                yield (*waiting[done], (kind, why))
                done += 1
        _, status = os.waitpid(pid, 0)
        if done < len(waiting):
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            is_hang = number == signal.SIGALRM
            name = signal.Signals(number).name if number else f"exit status {os.WEXITSTATUS(status)}"
            yield (*waiting[done], ("hung", f"{HANG_SECONDS} s") if is_hang else ("crashed", name))
            done += 1
        waiting = waiting[done:]


def _work(target: Target, inputs: list[tuple[str, bytes]], writing: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with contextlib.suppress(BaseException), os.fdopen(writing, "w") as lines:
        for _, data in inputs:
            signal.alarm(HANG_SECONDS)
            outcome = try_one(target, data)
            signal.alarm(0)
            lines.write(json.dumps(outcome) + "\n")
            lines.flush()
    os._exit(0)


def reproducers() -> list[Path]:
    """Inputs that failed once, as ``TARGET--what-it-was``."""
    return sorted(path for path in REPRODUCERS.iterdir() if "--" in path.name)


def main() -> int:
    os.environ["SVT_LOG"] = "1"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000, help="in all")
    parser.add_argument("--first", type=int, default=0, help="number of the first one of each target")
    parser.add_argument("--targets", help="names with commas between; all by default")
    parser.add_argument("--only", help="TARGET:NUMBER")
    parser.add_argument("--keep", type=Path, default=REPRODUCERS, help="folder for those that fail")
    options = parser.parse_args()
    names = (options.only.rpartition(":")[0] if options.only else options.targets or "").split(",")
    chosen = [(t, seeds_of(t)) for t in targets() if names == [""] or t.name in names]
    chosen = [(t, seeds) for t, seeds in chosen if seeds]
    numbers = range(options.first, options.first + max(1, options.mutants // max(1, len(chosen))))
    if options.only:
        numbers = [int(options.only.rpartition(":")[2])]
    begin, total = time.monotonic(), Counter[str]()
    for target, seeds in chosen:
        counts = Counter[str]()
        mutants = ((str(number), mutant(target, seeds, number)) for number in numbers)
        for number, data, (kind, why) in outcomes(target, mutants):
            counts[kind] += 1
            if kind not in ("fine", "refused"):
                print(f"  {target.name}:{number} {kind}: {why}", flush=True)
                (options.keep / f"{target.name}--{number}").write_bytes(data)
        print(f"{target.name:<22}", *(f"{kind} {n}" for kind, n in sorted(counts.items())), flush=True)
        total += counts
    print(f"{total.total()} mutants in {time.monotonic() - begin:.0f} s:", dict(total))
    return 1 if total.keys() - {"fine", "refused"} else 0


if __name__ == "__main__":
    sys.exit(main())
