"""Pictures before and after, to look at in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidnoise.color import to_rgb
from vidnoise.frame import Frame
from vidnoise.opencv import cv2
from vidnoise.pictures import Order, PictureAdapter

MOST = 1280
"""Maximum width and height of a picture as shown: larger ones would make a notebook of many megabytes."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture with its caption, as shown in a notebook."""

    caption: str
    png: bytes


class Display:
    """Pictures side by side, see :func:`show`: displayed by a notebook as the value of a cell."""

    def __init__(self, pictures: Sequence[Shown]) -> None:
        self.pictures = tuple(pictures)

    def _repr_html_(self) -> str:
        width = 100 / len(self.pictures)
        figures = "".join(
            f'<figure style="margin:0;width:{width:g}%"><img style="width:100%" alt="{html.escape(each.caption)}" '
            f'src="data:image/png;base64,{base64.b64encode(each.png).decode()}"/>'
            f"<figcaption>{html.escape(each.caption)}</figcaption></figure>"
            for each in self.pictures
        )
        return f'<div style="display:flex;gap:4px">{figures}</div>'

    def __repr__(self) -> str:
        return f"Display({', '.join(each.caption for each in self.pictures)})"


def show(before: Any, after: Any, *, order: Order = "rgb", labels: Sequence[str] = ("before", "after")) -> Display:
    """Show a picture before and after denoising side by side in a notebook, as the value of a cell.

    Args:
        before: A picture of any kind that :func:`vidnoise.denoise` takes. If it is larger than 1280 pixels, it is
            shown smaller, as its caption says.
        after: Another one, shown on the right.
        order: Order of the channels of arrays and tensors, ``"rgb"`` or ``"bgr"``.
        labels: Captions of the two pictures.

    Raises:
        FormatError: A picture is of an unsupported kind.

    >>> import numpy as np, vidnoise
    >>> noisy = np.zeros((48, 64, 3), np.uint8)
    >>> vidnoise.show(noisy, noisy)
    Display(before 64x48, after 64x48)
    """
    adapter = PictureAdapter(order)
    frames = [adapter.frame(picture)[0] for picture in (before, after)]
    return Display([_shown(frame, label) for frame, label in zip(frames, labels, strict=True)])


def _shown(frame: Frame, label: str) -> Shown:
    rgb = (to_rgb(frame)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    caption, longest = f"{label} {frame.width}x{frame.height}", max(frame.width, frame.height)
    if longest > MOST:
        size = tuple(max(1, round(side * MOST / longest)) for side in (frame.width, frame.height))
        rgb, caption = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), f"{caption}, shown at {size[0]}x{size[1]}"
    _, png = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    return Shown(caption, png.tobytes())
