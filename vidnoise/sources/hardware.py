"""Decoding on an NVIDIA GPU (NVDEC), with pictures that may stay there.

Note [Surfaces]. A decoded picture occupies one of the decoder's few surfaces, which is reused as soon as the picture
is released. So its planes are copied within the GPU, and the picture is kept until that copy has finished.

Note [One context]. GPU memory belongs to a context. Pictures that stay on the GPU have to be in the context that
PyTorch uses, the device's primary one. FFmpeg accepts the primary context only with blocking synchronisation, and
rejects it once PyTorch has created it, with spinning. So the primary context is set to blocking beforehand; this flag
can be changed at any time.
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

MAX_PENDING = 2
"""Maximum number of pictures kept until their copy has finished: decoders have few spare surfaces."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The user's choice of a decoding device."""

    choice: str
    """``cuda``: an NVIDIA GPU, or an error; ``auto``: the network's GPU, if it can decode; ``none``: the CPU."""
    device: torch.device
    """Device of the network."""

    @property
    def stays_on_gpu(self) -> bool:
        """Whether pictures stay on the GPU, because the network runs there."""
        return self.device.type == "cuda"

    def accelerator(self) -> HWAccel | None:
        """Return PyAV's handle of the hardware decoder, or None to decode on the CPU.

        Raises:
            DeviceError: ``cuda`` was asked for, and no GPU can decode.
        """
        if self.choice == "none" or (self.choice == "auto" and not self.stays_on_gpu):
            return None
        index = self.device.index or 0
        try:
            if self.stays_on_gpu:
                share_context(index)
            # Without a GPU, opening a file would fail with a misleading error.
            probe = HWAccel("cuda", device=str(index), is_hw_owned=self.stays_on_gpu)
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
            "cuda", device=str(index), allow_software_fallback=self.choice == "auto", is_hw_owned=self.stays_on_gpu
        )  # fmt: skip

    def check(self, context: Any, uri: str) -> None:
        """Log which device decodes a stream.

        Args:
            context: The stream's decoder.
            uri: The input's name in messages.

        Raises:
            SourceOpenError: ``cuda`` was asked for, and GPUs do not support this codec.
        """
        if context.is_hwaccel:
            where = "stay there" if self.stays_on_gpu else "are copied to main memory"
            logger.info("%s: %s is decoded on the GPU; its pictures %s", uri, context.codec.canonical_name, where)
        elif self.choice == "cuda":
            name = context.codec.canonical_name
            raise SourceOpenError(f'{uri}: {name} is not decoded by NVIDIA GPUs; use hwaccel="none"', uri)
        elif self.choice == "auto" and self.stays_on_gpu:
            logger.info("%s: decoded on the CPU: GPUs do not decode %s", uri, context.codec.canonical_name)


def share_context(index: int, library: Any = None) -> None:
    """Set up PyTorch's context on a GPU so that FFmpeg can share it; see Note [One context].

    Args:
        index: Index of the GPU.
        library: The CUDA driver; by default this machine's. Without one nothing is done: FFmpeg will report the error.
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
    """Whether the samples of a picture are in GPU memory."""
    return picture.format.name == "cuda"


def sample_format(picture: av.VideoFrame) -> str:
    """Return FFmpeg's name of the sample format, for pictures in main memory and on a GPU alike."""
    if is_on_gpu(picture) and picture.sw_format is not None:
        return picture.sw_format.name
    return picture.format.name


def _record_event(device: torch.device) -> Any:
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


class DevicePlanes:
    """Reads pictures that are on a GPU; see Note [Surfaces]. Not thread-safe.

    Args:
        as_tensor: Returns the memory of a plane as a tensor.
        mark: Called with the device after a copy was enqueued; returns an object with ``synchronize``.
    """

    def __init__(
        self,
        as_tensor: Callable[[Any], Tensor] = torch.from_dlpack,
        mark: Callable[[torch.device], Any] = _record_event,
    ) -> None:
        self._as_tensor, self._mark = as_tensor, mark
        self._pending: deque[tuple[Any, Any]] = deque()

    def read(self, picture: av.VideoFrame, format: PixelFormat, uri: str) -> tuple[Tensor, ...]:
        """Copy the planes of ``picture`` into tensors on its device.

        Raises:
            FormatError: The layout is not supported.
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
        self._pending.append((self._mark(planes[0].device), picture))
        while len(self._pending) > MAX_PENDING:
            copied, _ = self._pending[0]
            copied.synchronize()
            self._pending.popleft()
        return tuple(planes)
