"""Denoise a folder of photographs, with EXIF, colour profile, alpha and bit depth as they were.

python examples/photos.py photos -o clean --format png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import vidnoise

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Denoise a folder of photographs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the clean pictures")
    parser.add_argument("--format", choices=["same", "png", "jpg", "tif", "webp"], default="same")
    parser.add_argument("--model", default="standard")
    args = parser.parse_args()
    photos = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not photos:
        sys.exit(f"{args.folder} holds no photographs")
    args.output.mkdir(parents=True, exist_ok=True)
    model = vidnoise.load_model(args.model)  # once for all
    n_failed = 0
    for path in photos:
        suffix = path.suffix if args.format == "same" else f".{args.format}"
        target = args.output / f"{path.stem}{suffix}"
        try:
            stats = vidnoise.denoise_file(path, target, model=model)
        except vidnoise.VidnoiseError as error:  # the next one may be fine
            n_failed += 1
            print(error, file=sys.stderr)
            continue
        print(f"{target}: noise {stats.sigma_mean:.1f}/255 removed in {stats.seconds:.1f} s")
    if n_failed:
        sys.exit(f"{n_failed} of {len(photos)} failed")


if __name__ == "__main__":
    main()
