"""Denoise a video file: sound, subtitles, times and colour stay as they are.

python examples/denoise_file.py noisy.mp4 clean.mp4
"""

from __future__ import annotations

import argparse
import sys

import vidnoise


def show(progress: vidnoise.Progress) -> None:
    print(f"\r{progress.frames} frames, {progress.fps:.1f} a second", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Denoise a video file.")
    parser.add_argument("noisy", help="what to read")
    parser.add_argument("clean", help="what to write; the extension chooses the container")
    parser.add_argument("--model", default="standard", help="fast, standard or quality")
    parser.add_argument("--strength", type=float, default=1.0, help="0 changes nothing, 1 removes all noise")
    args = parser.parse_args()
    try:
        stats = vidnoise.denoise_file(
            args.noisy, args.clean, model=args.model, strength=args.strength, progress=show
        )  # an output that exists is an error, unless overwrite=True
    except vidnoise.VidnoiseError as error:  # one line that says what was wrong
        sys.exit(str(error))
    print(f"\n{stats.frames_out} frames in {stats.seconds:.1f} s, noise {stats.sigma_mean:.1f}/255")


if __name__ == "__main__":
    main()
