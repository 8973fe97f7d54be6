"""Contact sheets: moments of a video in several versions, whole and enlarged, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidnoise.disk import check_free, write_whole
from vidnoise.errors import UsageError
from vidnoise.opencv import cv2

COLUMN = 480
"""Width of a column, in pixels."""

ZOOM = 4
"""Magnification of the crops."""

_MARGIN = 8
_LABEL = 28
_BACKGROUND = 24
_MARK = (80, 220, 255)


@dataclass(frozen=True, slots=True)
class Moment:
    """One picture of a column."""

    rgb: Tensor
    """The picture, ``(3, H, W)`` in [0, 1]."""
    figures: str = ""
    """Text below the picture."""


@dataclass(frozen=True, slots=True)
class Column:
    """One version of the video."""

    label: str
    figures: str
    moments: list[Moment]


def check_sheet_path(path: str, *, overwrite: bool = False) -> None:
    """Check that a contact sheet can be written, without writing it.

    Raises:
        UsageError: The path does not end in .png.
        SinkOpenError: The file exists, or cannot be created.
    """
    if not path.lower().endswith(".png"):
        raise UsageError(f"{path}: a contact sheet is a .png file")
    check_free(path, overwrite=overwrite)


def write_sheet(path: str, columns: Sequence[Column], rotation: int = 0, *, overwrite: bool = False) -> None:
    """Draw a contact sheet, with a column for each version and a row for each moment.

    Args:
        path: A .png file.
        columns: Versions, with equal numbers of moments of equal sizes.
        rotation: Rotation of the video for display, in degrees counter-clockwise.
        overwrite: Whether the file may exist.

    Raises:
        UsageError, SinkOpenError: See :func:`check_sheet_path`.
    """
    check_sheet_path(path, overwrite=overwrite)
    rows = [_row([column.moments[i] for column in columns], rotation) for i in range(len(columns[0].moments))]
    width = rows[0].shape[1] // len(columns)
    heads = [_text(" ".join(filter(None, (c.label, c.figures))), width, 0.6) for c in columns]
    ok, data = cv2.imencode(".png", np.vstack([np.hstack(heads), *rows]))
    assert ok
    write_whole(path, data.tobytes(), overwrite=overwrite)


def _row(moments: Sequence[Moment], rotation: int) -> np.ndarray:
    """Draw one moment: each version whole, with an enlarged part below it."""
    pictures = [_bgr(m.rgb, rotation) for m in moments]
    height, width = pictures[0].shape[:2]
    size = (max(1, min(height, COLUMN // ZOOM * 9 // 16)), max(1, min(width, COLUMN // ZOOM)))
    top, left = most_informative_part(pictures[0], pictures[1] if len(pictures) > 1 else pictures[0], *size)
    scale = COLUMN / width
    cells = []
    for moment, picture in zip(moments, pictures, strict=True):
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        whole = cv2.resize(picture, (COLUMN, max(1, round(height * scale))), interpolation=method)
        corner, opposite = (left, top), (left + size[1], top + size[0])
        begin, end = ((round(x * scale), round(y * scale)) for x, y in (corner, opposite))
        cv2.rectangle(whole, begin, end, _MARK, 1)
        part = picture[top : top + size[0], left : left + size[1]]
        zoomed = cv2.resize(part, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST)
        crop = np.full((size[0] * ZOOM, COLUMN, 3), _BACKGROUND, np.uint8)
        crop[:, : zoomed.shape[1]] = zoomed[:, :COLUMN]
        gap = np.full((_MARGIN, COLUMN, 3), _BACKGROUND, np.uint8)
        column = np.vstack([whole, gap, crop, _text(moment.figures, COLUMN, 0.5)])
        cells.append(np.hstack([column, np.full((column.shape[0], _MARGIN, 3), _BACKGROUND, np.uint8)]))
    return np.hstack(cells)


def _bgr(rgb: Tensor, rotation: int) -> np.ndarray:
    turned = torch.rot90(rgb, rotation // 90, (1, 2))
    picture = turned.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).flip(-1)
    return np.ascontiguousarray(picture.cpu().numpy())


def _text(text: str, width: int, size: float) -> np.ndarray:
    cell = np.full((_LABEL, width, 3), _BACKGROUND, np.uint8)
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font has only ASCII
    needed = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]
    size *= min(1.0, (width - 4) / max(1, needed))
    cv2.putText(cell, plain, (2, _LABEL - 9), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return cell


def most_informative_part(first: np.ndarray, second: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """Return the top left corner of the part where the versions differ most and the second one has detail.

    Args:
        first, second: Pictures, ``(H, W, 3)`` uint8.
        height, width: Size of the part in pixels, not larger than the pictures.
    """

    def sum_of_part(values: np.ndarray) -> np.ndarray:
        total = cv2.integral(values)
        return total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]

    gray = cv2.cvtColor(second, cv2.COLOR_BGR2GRAY).astype(np.float32)
    detail = np.abs(cv2.Laplacian(cv2.GaussianBlur(gray, (0, 0), 1.5), cv2.CV_32F))
    change = cv2.absdiff(first, second).mean(-1, dtype=np.float32)
    # Edges are capped, so that a few highlights do not dominate; where nothing differs, detail alone decides.
    score = sum_of_part(np.minimum(detail, 4) + 0.01) * (sum_of_part(change) + 0.01)
    y, x = np.unravel_index(int(score.argmax()), score.shape)
    return int(y), int(x)
