"""Denoise single pictures. Without frames before and after them there is less to go by than in a video.

8 and 16 bits, colour and gray stay what they are; transparency and metadata are not kept (photos.py keeps them).

python examples/images.py a.png b.jpg -o clean
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2

import vidnoise


def main() -> None:
    parser = argparse.ArgumentParser(description="Denoise single pictures.")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the clean pictures")
    parser.add_argument("--model", default="standard")
    parser.add_argument("--sigma", type=float, help="noise level in 8-bit units; by default it is estimated")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for path in args.pictures:
        target = args.output / path.name
        if target.exists():
            sys.exit(f"{target} exists already")
        picture = cv2.imread(str(path), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
        if picture is None:
            sys.exit(f"{path} is no picture that OpenCV can read")
        is_color = picture.ndim == 3
        if is_color:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        try:
            clean = vidnoise.denoise_image(picture, model=args.model, sigma=args.sigma)
        except vidnoise.VidnoiseError as error:
            sys.exit(f"{path}: {error}")
        if not cv2.imwrite(str(target), cv2.cvtColor(clean, cv2.COLOR_RGB2BGR) if is_color else clean):
            sys.exit(f"{target} cannot be written")
        print(target)


if __name__ == "__main__":
    main()
