"""Rendering of plans to pixels: clip by clip from a file by OpenCV, or all clips at once from the memory of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.errors import UsageError
from vidnoise.opencv import cv2
from vidnoise.training.config import Augment
from vidnoise.training.motion import BLOB_SCALE
from vidnoise.training.plan import Crops, Moves, Objects, Plan

CUBIC = -0.75
"""Parameter of Keys's cubic convolution, as in OpenCV and PyTorch."""


def thresholded(outline: Tensor, patch: int) -> Tensor:
    """Convert enlarged normal numbers to the opacity of an object, with edges 10 pixels wide."""
    return ((outline - 0.35) * (patch / 10)).clamp(0, 1)


class Pack(Protocol):
    """Videos and photos in one piece of memory."""

    @property
    def data(self) -> np.ndarray:
        """``(bytes,)`` uint8: the whole pack, one clip after the other."""
        ...

    @property
    def videos(self) -> Sequence[np.ndarray]:
        """Each ``(T, H, W, 3)``."""
        ...

    @property
    def photos(self) -> Sequence[np.ndarray]:
        """Each ``(H, W, 3)``."""
        ...

    @property
    def video_places(self) -> Sequence[tuple[int, int, int]]:
        """Offset of each video in ``data``, in pixels, with its height and width."""
        ...

    @property
    def photo_places(self) -> Sequence[tuple[int, int, int]]:
        """Offset of each photo in ``data``, in pixels, with its height and width."""
        ...


class Pixels(Protocol):
    """Renders plans."""

    device: torch.device
    """Device of the rendered pictures."""

    def render(self, plan: Plan) -> Tensor:
        """Render a plan to ``(n, frames, 3, patch, patch)`` float32 in [0, 255]."""
        ...

    def cut(self, crops: Crops, patch: int, flips: np.ndarray) -> Tensor:
        """Render crops alone, to the same shape, mirrored and transposed by ``flips`` ``(n, 3)``."""
        ...


class FilePixels:
    """Renders on the CPU; unused data stays on disk."""

    device = torch.device("cpu")

    def __init__(self, pack: Pack, device: torch.device | None = None) -> None:
        self.videos, self.photos = pack.videos, pack.photos

    def render(self, plan: Plan) -> Tensor:
        out = torch.empty(len(plan.real), plan.frames, 3, plan.patch, plan.patch)
        moved = iter(self._moved(plan.moves, plan.objects, plan.patch))
        crops = iter(range(len(plan.crops.video)))
        for i, real in enumerate(plan.real):
            if real:
                k = next(crops)
                deform = plan.deformations[k]
                clip = self._crop(plan.crops, k, deform.crop if deform else plan.patch)
                if deform:
                    tensor = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
                    clip = (deform(tensor) * 255).permute(0, 2, 3, 1).numpy()
            else:
                clip = next(moved)
            out[i] = _flipped(clip, plan.flips[i])
        return out

    def cut(self, crops: Crops, patch: int, flips: np.ndarray) -> Tensor:
        out = torch.empty(len(flips), crops.frames.shape[1], 3, patch, patch)
        for i, flip in enumerate(flips):
            out[i] = _flipped(self._crop(crops, i, patch), flip)
        return out

    def _crop(self, crops: Crops, i: int, size: int) -> np.ndarray:
        top, left, step = crops.top[i], crops.left[i], crops.row_step[i]
        clip = self.videos[crops.video[i]][crops.frames[i], top : top + size * step : step, left : left + size]
        missing = [(0, size - n) for n in clip.shape[1:3]]
        return np.pad(clip, [(0, 0), *missing, (0, 0)], mode="symmetric") if any(m[1] for m in missing) else clip

    def _moved(self, moves: Moves, objects: Objects, patch: int) -> Iterator[np.ndarray]:
        k = 0
        for i, photo in enumerate(moves.photo):
            clip = _warped(self.photos[photo], moves.maps[i], patch)
            if k < len(objects.over) and objects.over[k] == i:
                layer = _warped(self.photos[objects.moves.photo[k]], objects.moves.maps[k], patch)
                side = BLOB_SCALE * patch
                outline = cv2.resize(objects.shapes[k], (side, side), interpolation=cv2.INTER_CUBIC)
                shape = thresholded(torch.from_numpy(outline), patch).numpy()
                alpha = _warped(shape, objects.shape_maps[k], patch)[..., None]
                clip = np.clip(clip + alpha * (layer.astype(np.float32) - clip), 0, 255)
                k += 1
            yield clip


def _flipped(clip: np.ndarray, flips: np.ndarray) -> Tensor:
    """Flip a clip ``(T, H, W, 3)`` and convert it to ``(T, 3, H, W)``."""
    across, down, transposed = flips
    clip = clip[:, :, ::-1] if across else clip
    clip = clip[:, ::-1] if down else clip
    return torch.from_numpy(np.ascontiguousarray(clip.transpose((0, 3, 2, 1) if transposed else (0, 3, 1, 2))))


def _warped(picture: np.ndarray, maps: np.ndarray, patch: int) -> np.ndarray:
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.stack(
        [cv2.warpAffine(picture, m, (patch, patch), flags=flags, borderMode=cv2.BORDER_REFLECT) for m in maps]
    )


class DevicePixels:
    """Renders on a device that holds the whole pack, at three bytes per pixel.

    Pictures of all sizes are stored one after the other, and every pixel of a batch is one look-up among them; so a
    batch takes a few dozen operations, whatever its number of clips.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.device = device
        self.pixels = torch.from_numpy(np.array(pack.data)).view(-1, 3).to(device)
        self.videos, self.photos = (
            torch.tensor(places, device=device).reshape(-1, 3) for places in (pack.video_places, pack.photo_places)
        )
        """Index of the first pixel, height and width of each picture."""

    def render(self, plan: Plan) -> Tensor:
        out = torch.empty(len(plan.real), plan.frames, 3, plan.patch, plan.patch, device=self.device)
        if any(plan.deformations):
            raise UsageError("rotations and elastic deformations are made on the CPU: use --batches cpu")
        real, moved = np.flatnonzero(plan.real), np.flatnonzero(~plan.real)
        if len(real):
            out[self._tensor(real)] = self.cut(plan.crops, plan.patch, plan.flips[real])
        if len(moved):
            out[self._tensor(moved)] = self._moved(plan.moves, plan.objects, plan.patch, plan.flips[moved])
        return out

    def cut(self, crops: Crops, patch: int, flips: np.ndarray) -> Tensor:
        x, y = self._grid(patch, flips)
        first, height, width = (v.view(-1, 1, 1, 1) for v in self.videos[self._tensor(crops.video)].unbind(1))
        frame = self._tensor(crops.frames)
        top, left, step = (self._tensor(a).view(-1, 1, 1, 1) for a in (crops.top, crops.left, crops.row_step))
        row = mirrored(y, (height - top + step - 1) // step) * step + top
        column = mirrored(x + left, width)
        clips = self.pixels[first + (frame[..., None, None] * height + row) * width + column]
        return clips.permute(0, 1, 4, 2, 3).float()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _grid(self, patch: int, flips: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the column and the row of the patch that each pixel shows: ``(n, 1, patch, patch)`` each."""
        across, down, transposed = self._tensor(flips).view(-1, 3, 1, 1).unbind(1)
        i = torch.arange(patch, device=self.device)
        row, column = i[:, None].expand(patch, patch), i.expand(patch, patch)
        x, y = torch.where(transposed, row, column), torch.where(transposed, column, row)
        x, y = torch.where(across, patch - 1 - x, x), torch.where(down, patch - 1 - y, y)
        return x[:, None], y[:, None]

    def _moved(self, moves: Moves, objects: Objects, patch: int, flips: np.ndarray) -> Tensor:
        x, y = self._grid(patch, flips)
        clips = self._warped(moves, x, y)
        if len(objects.over):
            over = self._tensor(objects.over)
            x, y = x[over], y[over]
            layer = self._warped(objects.moves, x, y)
            side = BLOB_SCALE * patch
            outline = F.interpolate(self._tensor(objects.shapes)[:, None], size=(side, side), mode="bicubic")
            shapes = thresholded(outline, patch).view(-1, 1)
            first = torch.arange(len(over), device=self.device) * side * side
            sides = torch.full_like(first, side)
            alpha = sampled(shapes, torch.stack([first, sides, sides], 1), self._tensor(objects.shape_maps), x, y)
            clips[over] = torch.lerp(clips[over], layer, alpha).clamp_(0, 255)
        return clips

    def _warped(self, moves: Moves, x: Tensor, y: Tensor) -> Tensor:
        photos = self.photos[self._tensor(moves.photo)]
        return sampled(self.pixels, photos, self._tensor(moves.maps), x, y).round_().clamp_(0, 255)


def mirrored(index: Tensor, size: Tensor) -> Tensor:
    """Map row or column indices into a picture by mirroring at its edges, with edge pixels repeated."""
    index = index.remainder(2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def sampled(pixels: Tensor, places: Tensor, maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Resample pictures of any sizes under affine maps, by cubic convolution (Keys, 1981).

    Args:
        pixels: ``(pixels, C)``, all pictures one after the other.
        places: ``(n, 3)`` int64: first pixel, height and width of each picture.
        maps: ``(n, T, 2, 3)``, from (x, y) to positions in the pictures.
        x, y: ``(n, 1, H, W)``, coordinates to map.

    Returns:
        ``(n, T, C, H, W)`` float32.
    """
    first, height, width = (v.view(-1, 1, 1, 1) for v in places.unbind(1))
    (ax, bx, cx), (ay, by, cy) = (row[..., None, None].unbind(2) for row in maps.unbind(2))
    across, down = ax * x + bx * y + cx, ay * x + by * y + cy
    column, row = across.floor(), down.floor()
    weights_x, weights_y = _cubic_weights(across - column), _cubic_weights(down - row)
    columns = [mirrored(column.long() + i, width) for i in range(-1, 3)]
    out = torch.zeros((), device=pixels.device)
    for j, wy in enumerate(weights_y):
        start = first + mirrored(row.long() + (j - 1), height) * width
        line = sum(w[..., None] * pixels[start + c] for w, c in zip(weights_x, columns, strict=True))
        out = out + wy[..., None] * line
    return out.permute(0, 1, 4, 2, 3)


def _cubic_weights(t: Tensor) -> list[Tensor]:
    """Return the weights of the samples at -1, 0, 1 and 2 for a position ``t`` in [0, 1)."""
    near = [((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC for d in (t + 1, 2 - t)]
    return [far[0], near[0], near[1], far[1]]


PIXELS: dict[str, Callable[[Pack, torch.device], Pixels]] = {"cpu": FilePixels, "device": DevicePixels}
"""Renderers by the values of ``--batches``."""


def render_on(where: str, packs: Sequence[Pack], device: torch.device | None, augment: Augment) -> list[Pixels]:
    """Choose the renderer of each pack.

    Args:
        where: ``cpu``, ``device``, or ``auto``: the training device if it is a GPU whose free memory is at least twice
            the size of the packs and there are no deformations, else the CPU.
        packs: The packs to render.
        device: The training device; the CPU by default.
        augment: Has the probabilities of the deformations.

    Raises:
        UsageError: ``where`` is unknown.
    """
    device = device or torch.device("cpu")
    if where == "auto":
        fits = device.type == "cuda" and torch.cuda.mem_get_info(device)[0] > 2 * sum(p.data.size for p in packs)
        where = "device" if fits and not (augment.rotate or augment.elastic) else "cpu"
    if where not in PIXELS:
        raise UsageError(f"batches are made on auto, {', '.join(PIXELS)}; got {where!r}")
    return [PIXELS[where](pack, device) for pack in packs]
