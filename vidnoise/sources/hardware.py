"""Decoding on an NVIDIA GPU (NVDEC), whose pictures may stay there.

Note [Surfaces]. A decoded picture lies in one of a few surfaces of the decoder, which uses it again as soon as the
picture is let go. So its planes are copied within the GPU, and the picture is held until that copy has ended.

Note [One context]. What is in a GPU's memory belongs to a context. Pictures that stay there have to be in the one that
PyTorch works in, the device's primary one. FFmpeg joins it only if it waits for the GPU by blocking, and refuses it
where PyTorch has made it already, which waits by spinning. So the primary context is told to block beforehand; it may
be told so at any time.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import av
import av.codec.codec
import av.error
import torch
from av.codec.hwaccel import HWAccel
from torch import Tensor

from vidnoise.errors import DeviceError, FormatError, SourceOpenError
from vidnoise.frame import PixelFormat

logger = logging.getLogger(__name__)

BLOCKING = 4
"""CUDA's ``CU_CTX_SCHED_BLOCKING_SYNC``."""

HELD = 2
"""Pictures that wait for their copy at most: decoders have hardly more surfaces than they need themselves."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What is to decode, as asked."""

    choice: str
    """``cuda``: an NVIDIA GPU, or an error; ``auto``: the network's, if it has one that can; ``none``: the CPU."""
    device: torch.device
    """Where the network runs."""

    @property
    def stays(self) -> bool:
        """Whether pictures stay on the GPU, as the network runs there."""
        return self.device.type == "cuda"

    def accelerator(self) -> HWAccel | None:
        """What PyAV wants to know; None to decode on the CPU.

        Raises:
            DeviceError: ``cuda`` was asked for, and there is no GPU that decodes.
        """
        if self.choice == "none" or (self.choice == "auto" and not self.stays):
            return None
        index = self.device.index or 0
        try:
            if self.stays:
                share_context(index)
            # Without a GPU, opening a file would fail with words that say nothing of one.
            probe = HWAccel("cuda", device=str(index), is_hw_owned=self.stays)
            probe.create(av.codec.codec.Codec("h264", "r"))
        except (av.error.FFmpegError, OSError, NotImplementedError, ValueError) as ex:
            reason = f"no NVIDIA GPU with a driver for decoding was found (cuda:{index})"
            if torch.cuda.is_available():
                reason = f"cuda:{index} cannot be used for decoding ({' '.join(str(ex).split())})"
            if self.choice == "cuda":
                raise DeviceError(f'hwaccel="cuda": {reason}; use hwaccel="none"') from ex
            logger.info("decoding on the CPU: %s", reason)
            return None
        return HWAccel(
            "cuda", device=str(index), allow_software_fallback=self.choice == "auto", is_hw_owned=self.stays
        )  # fmt: skip

    def check(self, context: Any, uri: str) -> None:
        """Say who decodes, now that the stream is known.

        Raises:
            SourceOpenError: ``cuda`` was asked for, and GPUs do not decode this.
        """
        if context.is_hwaccel:
            where = "stay there" if self.stays else "are copied to main memory"
            logger.info("%s: %s is decoded on the GPU; its pictures %s", uri, context.codec.canonical_name, where)
        elif self.choice == "cuda":
            name = context.codec.canonical_name
            raise SourceOpenError(f'{uri}: {name} is not decoded by NVIDIA GPUs; use hwaccel="none"', uri)
        elif self.choice == "auto" and self.stays:
            logger.info("%s: decoded on the CPU: GPUs do not decode %s", uri, context.codec.canonical_name)


def share_context(index: int, library: Any = None) -> None:
    """Make PyTorch's context on a GPU one that FFmpeg joins; see Note [One context].

    Args:
        index: of the GPU.
        library: CUDA's driver; by default this machine's. Without one nothing is done: FFmpeg will say so.
    """
    try:
        cuda = library or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return
    device = ctypes.c_int()
    code = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), index)
    code = code or cuda.cuDevicePrimaryCtxSetFlags_v2(device, BLOCKING)
    if code:
        logger.debug("cuda:%d: its context cannot be told to block (error %d)", index, code)


def is_on_gpu(picture: av.VideoFrame) -> bool:
    """Whether the picture's samples are in a GPU's memory."""
    return picture.format.name == "cuda"


def sample_format(picture: av.VideoFrame) -> str:
    """FFmpeg's name of the format of the samples, wherever they are."""
    if is_on_gpu(picture) and picture.sw_format is not None:
        return picture.sw_format.name
    return picture.format.name


def _copied(device: torch.device) -> Any:
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


class DevicePlanes:
    """Reads pictures that are on a GPU; see Note [Surfaces]. Passive, not thread-safe.

    Args:
        as_tensor: the memory of a plane as a tensor.
        mark: called with the device when a copy was enqueued there; what it returns has ``synchronize``.
    """

    def __init__(
        self, as_tensor: Callable[[Any], Tensor] = torch.from_dlpack, mark: Callable[[torch.device], Any] = _copied
    ) -> None:
        self._as_tensor, self._mark = as_tensor, mark
        self._held: deque[tuple[Any, Any]] = deque()

    def read(self, picture: av.VideoFrame, format: PixelFormat, uri: str) -> tuple[Tensor, ...]:
        """Planes of ``picture`` in memory of their own, on its device.

        Raises:
            FormatError: its layout cannot be taken over.
        """
        planes = []
        for i in range(len(format.layout)):
            try:
                plane = self._as_tensor(picture.planes[i])
            except (NotImplementedError, BufferError, TypeError, ValueError, RuntimeError) as ex:
                raise FormatError(f'{uri}: {format.name} pictures cannot stay on the GPU; use hwaccel="none"') from ex
            wanted = format.plane_shape(i, picture.height, picture.width)
            if tuple(plane.shape) != wanted:
                raise FormatError(
                    f'{uri}: pictures of {picture.width}x{picture.height} cannot stay on the GPU; use hwaccel="none"'
                )
            planes.append(plane.clone(memory_format=torch.contiguous_format))
        self._held.append((self._mark(planes[0].device), picture))
        while len(self._held) > HELD:
            copied, _ = self._held[0]
            copied.synchronize()
            self._held.popleft()
        return tuple(planes)
