"""VMAF, Netflix's prediction of how viewers rate a video next to its original, by ffmpeg's filter ``libvmaf``."""

from __future__ import annotations

import re
import subprocess
import tempfile
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from vidnoise.color.colorimetry import BT709
from vidnoise.errors import FormatError, UsageError
from vidnoise.evaluation.ffmpeg import binary_with, missing_filter

MODEL = "vmaf_v0.6.1"
"""The default model of libvmaf, which has it built in; it was made for SDR video on a 1080p screen."""

LEAST_SIZE = 32
"""Minimum height and width of pictures; libvmaf crashes on much smaller ones."""


def missing() -> str | None:
    """Return why VMAF cannot be computed on this machine, and what helps; None if it can."""
    reason = missing_filter("libvmaf")
    return reason and f"{reason} (one that has libvmaf comes with pip install 'vidnoise[vmaf]')"


def check_available() -> None:
    """Check that this machine can compute VMAF.

    Raises:
        UsageError: It cannot; the message says what to install.
    """
    if reason := missing():
        raise UsageError(f"VMAF cannot be measured: {reason}")


def too_small(height: int, width: int) -> str | None:
    """Return in a few words that pictures are too small for VMAF; None if they are not."""
    if min(height, width) >= LEAST_SIZE:
        return None
    return f"it needs pictures of at least {LEAST_SIZE}x{LEAST_SIZE}, got {width}x{height}"


class Vmaf:
    """The VMAF of one version of a video, measured by a process while pairs of pictures are added.

    Each pair is written as a single picture, the version above the reference, so that one pipe suffices and the pairs
    cannot get out of step. Writing waits for the process, so memory does not grow.

    Only luma matters to VMAF. It is computed from R'G'B' and written with 10 bits, in limited range.
    """

    def __init__(self, height: int, width: int, weights: tuple[float, float] = BT709) -> None:
        """Start the process.

        Args:
            height, width: Size of the pictures.
            weights: Luma weights of red and blue, for both versions: with those of the reference, its luma is as
                it is stored.

        Raises:
            UsageError: This machine cannot compute VMAF.
            FormatError: The pictures are too small.
        """
        if reason := too_small(height, width):
            raise FormatError(f"VMAF cannot be measured: {reason}")
        check_available()
        self._size = (height, width)
        self._weights = weights
        even = height + height % 2  # the rows of subsampled chroma belong to one of the two pictures
        self._padding = (0, 0, 0, even - height)
        self._chroma = np.full(2 * even * -(-width // 2), 512, "<u2").tobytes()
        crops = [f"crop={width}:{height}:0:{top}:exact=1" for top in (0, even)]
        graph = f"split[a][b];[a]{crops[0]}[a];[b]{crops[1]}[b];[a][b]libvmaf=model=version={MODEL}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [binary_with("libvmaf"), "-hide_banner", "-nostats", "-v", "level+info", "-f", "rawvideo",
             "-pix_fmt", "yuv420p10le", "-s", f"{width}x{2 * even}", "-i", "pipe:",
             "-filter_complex", graph, "-f", "null", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log,
        )  # fmt: skip

    def add(self, version: Tensor, reference: Tensor) -> None:
        """Add a picture of each, ``(C, H, W)``, nominally in [0, 1]: R'G'B', or one channel of gray.

        Raises:
            FormatError: They are not of the size that was given.
            UsageError: The process failed.
        """
        for picture in (version, reference):
            if picture.shape[-2:] != self._size:
                height, width = picture.shape[-2:]
                raise FormatError(
                    f"VMAF needs pictures of one size: {self._size[1]}x{self._size[0]}, not {width}x{height}"
                )
        assert self._process.stdin is not None
        try:
            for picture in (version, reference):
                self._process.stdin.write(self._luma(picture))
            self._process.stdin.write(self._chroma)
        except OSError:  # a broken pipe: the process has ended
            self.score()
            raise

    def _luma(self, picture: Tensor) -> bytes:
        r, g, b = picture.float().expand(3, -1, -1)
        kr, kb = self._weights
        y = kr * r + (1 - kr - kb) * g + kb * b
        codes = torch.nn.functional.pad((y * 876 + 64).round().clamp(0, 1023), self._padding)
        return codes.cpu().numpy().astype("<u2").tobytes()

    def score(self) -> float:
        """Return the mean over all pairs, from 0 to 100; no more can be added.

        Raises:
            UsageError: The process failed.
        """
        self._process.communicate()
        self._log.seek(0)
        return read_score(self._log.read().decode(errors="replace"), self._process.returncode)

    def close(self) -> None:
        """End the process, if it still runs."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Vmaf:
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_score(log: str, exit_code: int) -> float:
    """Find the score in the log of ffmpeg.

    Raises:
        UsageError: There is none; the message has the first error in the log.
    """
    scores = re.findall(r"VMAF score: (\d+(?:\.\d+)?)", log)
    if exit_code == 0 and scores:
        return float(scores[-1])
    errors = re.findall(r"\[(?:error|fatal|panic)\] (.+)", log)
    reason = errors[0].strip()[:200] if errors else f"it gave no score (exit code {exit_code})"
    raise UsageError(f"ffmpeg's libvmaf failed: {reason}")


def vmaf(clip: Tensor, reference: Tensor, weights: tuple[float, float] = BT709) -> float:
    """Return the VMAF of a clip, from 0 to 100.

    Args:
        clip, reference: ``(T, C, H, W)`` in [0, 1]; R'G'B', or one channel of gray.
        weights: Luma weights of red and blue.

    Raises:
        UsageError: This machine cannot compute VMAF.
        FormatError: The pictures are too small.
    """
    height, width = reference.shape[-2:]
    with Vmaf(height, width, weights) as run:
        for picture, original in zip(clip, reference, strict=True):
            run.add(picture, original)
        return run.score()
