"""One stream's session: the only holder of a network's state."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vidnoise.backends import FLOAT32_ONLY, open_backend
from vidnoise.backends.tiled import Tiled
from vidnoise.backends.window import MAX_LOOKAHEAD, Window
from vidnoise.color import weigh_correction
from vidnoise.errors import DeviceError, FormatError, UsageError
from vidnoise.frame import Frame
from vidnoise.kernels.conversion import add_correction, difference, from_network, to_network
from vidnoise.model import Denoised, DenoiseNetwork, State
from vidnoise.model.network import MULTIPLE
from vidnoise.session.cuts import CutMemory, detect_cut, thumbnail
from vidnoise.session.grain import GrainSynthesis
from vidnoise.session.grain_table import GrainTable
from vidnoise.session.sample_noise import sample_noise
from vidnoise.session.split import split
from vidnoise.session.strength import MAX_STRENGTH, Strength
from vidnoise.session.task import Task
from vidnoise.weights import LoadedModel, ModelCard, load_model

if TYPE_CHECKING:
    from vidnoise.backends.protocol import Backend
    from vidnoise.session.strength import MaskLike, ZonesLike

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str | torch.device) -> torch.device:
    """The device for a name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        DeviceError: it does not exist here. Nothing else is used in its place.
    """
    if isinstance(name, torch.device):
        name = str(name)
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            have = f"this machine has {count}" if count else "no CUDA device was found"
            raise DeviceError(f"device {name!r} is not available: {have}; use --device cpu or auto")
        return torch.device(f"cuda:{number or 0}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' is not available on this machine; use --device cpu or auto")
    return torch.device(kind)


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic of the network's convolutions: ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UsageError: the name is unknown, or the device cannot do it.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.float16
        # Without native instructions, bfloat16 on a CPU is emulated and slower than float32.
        return torch.bfloat16 if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else torch.float32
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}; use auto, {', '.join(PRECISIONS)}")
    if device.type != "cuda" and name == "fp16":
        raise UsageError(f"precision fp16 is for CUDA devices; on {device.type} use bf16 or fp32")
    return PRECISIONS[name]


class Denoiser:
    """Denoises one stream of frames, in order, keeping what it learnt of the past.

    Causal and without delay, unless it is asked to look ahead: each frame pushed comes back at once. With ``lookahead``
    frames wait for those after them, and come back some at a time, in order, up to :attr:`latency_frames` pushes later;
    :meth:`flush` gives the last ones. Not thread-safe; a network may be shared by any number of denoisers.

    Args:
        model: a name from :func:`vidnoise.list_models`, a ``.safetensors`` file, what :func:`vidnoise.load_model`
            returned, or a network.
        sigma: standard deviation of the noise in 8-bit units (25 means 25/255), of each plane's samples as they are
            stored: of R, G and B, of gray, or of Y, Cb and Cr; ``None`` estimates it, per pixel, channel and frame.
        strength: 0 returns the input bit for bit, 1 removes what the network takes for noise; values in
            between mix; values up to 2 take the noise to be that many times as strong, and some where none was found.
        luma, chroma: 0 to 2: as ``strength``, times it, for brightness and colour alone. RGB pictures: for the
            correction's Y', Cb and Cr as BT.709 defines them.
        zones: strengths by time, ``"0-10:0.5,60-:0"`` or (begin, end, strength) each: in those seconds of the video
            that strength holds instead.
        mask: strength by place, white fully, black not at all: a picture or video file, read in step with the
            frames, or an ``(H, W)`` array. Scaled to the frames' size if its proportions are theirs.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        backend: how the network runs: ``auto`` or a name from :data:`vidnoise.backends.BACKENDS`; or the
            :attr:`backend` of another session with the same model, device and precision, to share it.
        max_memory: MB that the stream may take on the device; pictures for which that is too little are denoised in
            tiles, by the backend ``eager``.
        grain: fresh grain like the noise removed, where it was removed: 1 gives back as much, 0 to 2.
        grain_seed: which grain; the same seed gives the same on the same device.
        grain_table: an AV1 film-grain table of the noise removed, written there by :meth:`flush`.
        detect_cuts: forget the past at scene cuts.
        lookahead: how many frames may have to come before a frame goes out; it is denoised by its past and by a third
            of them at least (at the end of a scene, by as many as there are). Up to 32;
            each takes memory for three pictures.
        preview: ``split`` leaves the left half of the picture as it is, with a thin divider, to look at.
        rotation: degrees by which the video is shown rotated (:attr:`StreamInfo.rotation`): what is left, and how
            the mask lies.
        begin_seconds: where in the video the first frame is, for zones and mask.
        first_time: time stamp of that frame in seconds, where the first that is pushed is a later one.

    Raises:
        UsageError: a value out of range.
        SourceError, FormatError: the mask cannot be read.
        SinkError: the grain table exists already, or cannot be written there.
        UnknownModelError, WeightsError: see :func:`vidnoise.load_model`.
        DeviceError: the device does not exist, or runs out of memory.
        BackendError: the backend is not installed, or cannot run on this device.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LoadedModel | DenoiseNetwork = "standard",
        *,
        sigma: float | None = None,
        strength: float = 1.0,
        device: str | torch.device = "auto",
        precision: str = "auto",
        backend: str | Backend = "auto",
        max_memory: float | None = None,
        luma: float = 1.0,
        chroma: float = 1.0,
        zones: ZonesLike | None = None,
        mask: MaskLike | None = None,
        grain: float = 0.0,
        grain_seed: int = 0,
        grain_table: str | os.PathLike[str] | GrainTable | None = None,
        detect_cuts: bool = True,
        lookahead: int = 0,
        preview: str | None = None,
        rotation: int = 0,
        begin_seconds: float = 0.0,
        first_time: Fraction | None = None,
    ) -> None:
        if sigma is not None and not 0 <= sigma <= 255:
            raise UsageError(f"sigma must be between 0 and 255 (8-bit units), got {sigma:g}")
        for name, share in (("luma", luma), ("chroma", chroma)):
            if not 0 <= share <= MAX_STRENGTH:
                raise UsageError(f"{name} must be between 0 and {MAX_STRENGTH:g}, got {share:g}")
        if not 0 <= lookahead <= MAX_LOOKAHEAD:
            raise UsageError(f"lookahead must be between 0 and {MAX_LOOKAHEAD} frames, got {lookahead}")
        if preview not in (None, "split"):
            raise UsageError(f"unknown preview {preview!r}; there is only split")
        if grain and grain_table is not None:
            raise UsageError("grain and grain_table would give grain twice: once in the picture, once in the player")
        if isinstance(grain_table, (str, os.PathLike)):
            grain_table = GrainTable(grain_table)
        self._grain_table = grain_table
        self._amounts = Strength(
            strength, zones=zones, mask=mask, rotation=rotation, begin_seconds=begin_seconds, first_time=first_time
        )
        self.device = resolve_device(device)
        name = backend if isinstance(backend, str) else backend.name
        is_float32 = precision == "auto" and name in FLOAT32_ONLY
        self.dtype = torch.float32 if is_float32 else resolve_precision(precision, self.device)
        self._grain = GrainSynthesis(grain, grain_seed, self.device) if grain else None
        if isinstance(model, DenoiseNetwork):
            model = LoadedModel(model, ModelCard("custom", tier="custom"))
        elif not isinstance(model, LoadedModel):
            model = load_model(model, self.device)
        self.model = model._replace(network=model.network.to(self.device))
        """What another session is given to share it."""
        self.network = self.model.network
        self.backend: Backend
        if not isinstance(backend, str):
            self.backend = backend
        elif max_memory is None:
            self.backend = open_backend(backend, self.network, device=self.device, dtype=self.dtype)
        elif backend in ("auto", "eager"):
            self.backend = Tiled(
                self.network, device=self.device, dtype=self.dtype, max_memory=max_memory, lookahead=lookahead
            )
        else:
            raise UsageError(f"max_memory goes with the backend eager, which denoises in tiles, not with {backend}")
        self.sigma = sigma
        self.luma = luma
        self.chroma = chroma
        self.detect_cuts = detect_cuts
        self.latency_frames = lookahead
        """Frames that may have to be pushed before the first one comes back, less one."""
        self._window: Window[Task] | None = None
        self._shape: tuple[int, int] | None = None
        self._boosts: dict[tuple[float, float], Tensor] = {}
        self._told_levels: dict[tuple[float, tuple[float, ...]], Tensor] = {}
        self.preview = preview
        self.rotation = rotation
        self._cuts = torch.zeros((), dtype=torch.int64, device=self.device)
        self._level: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next frame is denoised as the first of a stream."""
        self._state: State | None = None
        self._cut_memory: CutMemory | None = None
        self._is_first = True

    @property
    def state(self) -> State | None:
        """What the network remembers of the stream, without ``lookahead``; ``None`` before the first frame."""
        return self._state

    def go_on_from(self, state: State) -> None:
        """Remember ``state``: the network's step for this stream was taken elsewhere, together with others."""
        self._state = state

    @property
    def model_name(self) -> str:
        """By its card; ``custom`` for a network without one."""
        return self.model.card.name

    @property
    def estimated_sigma(self) -> float | None:
        """Noise level of the last frame, mean over the picture, 8-bit units: that of R, G and B, or what was told.
        ``None`` before the first."""
        if self._level is None or self.sigma is not None:
            return None if self._level is None else self.sigma
        return float(self._level) * 255

    @property
    def backend_name(self) -> str:
        """How the network runs; of ``auto``, what it uses at the moment."""
        return self.backend.name

    @property
    def n_cuts(self) -> int:
        """Scene cuts detected so far."""
        return int(self._cuts)

    def push(self, frame: Frame) -> list[Frame]:
        """Take the next frame; returns those that are finished: this one, unless ``lookahead`` keeps it waiting.

        Args:
            frame: on the denoiser's device, of any format. ``frame.discontinuity`` forgets the past.

        Raises:
            DeviceError: the device ran out of memory. The frame is not lost: push it again (without ``lookahead``).
            FormatError: it is no :class:`Frame`, or the mask does not fit it.
            UsageError: there are zones, but it has no time.
        """
        if not self.latency_frames:
            task = self.prepare(frame)
            return [self.finish(task, *self._step(task))]
        done: list[Frame] = []
        if isinstance(frame, Frame):
            # Whoever pushed it may use its memory again.
            frame = replace(frame, planes=tuple(plane.clone() for plane in frame.planes))
            if self._window is None or (frame.height, frame.width) != self._shape:
                done = self.drain()
                self._window = Window(self.backend, self.latency_frames)
        task = self.prepare(frame)
        assert self._window is not None  # unless it is no frame, which prepare has refused
        return done + self._finished(self._window.push(task, task.padded, task.sigma, task.boost, task.keep))

    def drain(self) -> list[Frame]:
        """The frames that wait, finished by what has come so far. What is pushed next goes on from them."""
        return [] if self._window is None else self._finished(self._window.flush())

    def _finished(self, steps: Iterator[tuple[Task, Denoised]]) -> list[Frame]:
        done: list[Frame] = []
        try:
            done += (self.finish(task, result.clean, result.level[0]) for task, result in steps)
        except torch.OutOfMemoryError as ex:
            raise self._out_of_memory() from ex
        return done

    def _step(self, task: Task) -> tuple[Tensor, Tensor]:
        """The clean picture and its noise level."""
        try:
            if self._state is None:
                self._state = self.backend.initial_state(1, *task.padded.shape[-2:])
            clean, level, self._state = self.backend.step(task.padded, task.sigma, task.boost, task.keep, self._state)
        except torch.OutOfMemoryError as ex:
            raise self._out_of_memory() from ex
        return clean, level[0]

    def _out_of_memory(self) -> DeviceError:
        less = "a smaller --lookahead" if self.latency_frames else "--max-memory MB (in tiles)"
        height, width = self._shape or (0, 0)
        return DeviceError(f"{self.device} ran out of memory at {width}x{height}; try {less}, or --model fast")

    def flush(self) -> list[Frame]:
        """End of the stream: returns what is still inside (with ``lookahead`` only).

        Raises:
            SinkOpenError: the grain table cannot be written.
        """
        done = self.drain()
        self.close()
        if self._grain_table is not None:
            self._grain_table.write()
        return done

    def close(self) -> None:
        """Release what was opened (a mask). :meth:`flush` does it too; may be called twice."""
        self._amounts.close()

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Denoise a stream of frames lazily."""
        try:
            for frame in frames:
                yield from self.push(frame)
            yield from self.flush()
        finally:
            self.close()

    def prepare(self, frame: Frame) -> Task:
        """What the network is to do for the next frame; forgets the past where the frame says so.

        :meth:`push` is this, the backend's step and :meth:`finish`; a :class:`vidnoise.StreamBatch` takes the step for
        several sessions at once, and tells each by :meth:`go_on_from` what it remembers from then on.
        """
        if not isinstance(frame, Frame):
            raise FormatError(f"a Denoiser takes vidnoise.Frames, got a {type(frame).__name__}; see vidnoise.denoise")
        if (frame.height, frame.width) != self._shape:
            self.reset()
            self._shape = (frame.height, frame.width)
        strength, map = self._amounts.at(frame)
        with torch.inference_mode():
            room = None
            if self._state is not None and not self.latency_frames:  # which would keep frames that the next overwrites
                room = self.backend.input_buffer(self._state)
            padded = to_network(frame, MULTIPLE, room)
            noisy = padded[..., : frame.height, : frame.width]
            follows = not (frame.discontinuity or self._is_first)
            keep = torch.full((1,), follows, dtype=torch.bool, device=self.device)
            self._is_first = False
            if not follows:
                self._cut_memory = None
            if self.detect_cuts:
                cut, self._cut_memory = detect_cut(thumbnail(noisy), self._cut_memory)
                keep &= ~cut
                self._cuts += cut
            return Task(frame, noisy, padded, self._told(frame), keep, strength, map, self._boost(strength))

    def _told(self, frame: Frame) -> Tensor | None:
        """The noise level that was told, as the network wants it for such frames."""
        if self.sigma is None:
            return None
        key = self.sigma, sample_noise(frame)
        if key not in self._told_levels:  # as with boosts
            self._told_levels = {key: torch.tensor([[self.sigma * gain for gain in key[1]]], device=self.device)}
        return self._told_levels[key]

    def _boost(self, strength: float) -> float | Tensor:
        """How many times as strong the noise is taken to be, ``(1, 2)`` where luma and chroma differ."""
        luma, chroma = (max(1.0, strength) * max(1.0, share) for share in (self.luma, self.chroma))
        if luma == chroma:
            return luma
        if (luma, chroma) not in self._boosts:  # numbers that go to a GPU are waited for, so they are kept
            self._boosts = {(luma, chroma): torch.tensor([[luma, chroma]], device=self.device)}
        return self._boosts[luma, chroma]

    def finish(self, task: Task, clean: Tensor, level: Tensor) -> Frame:
        """The frame that goes out, from what the network made of it: ``(1, 3, H, W)``, padded, and its noise level."""
        frame, noisy = task.frame, task.noisy
        self._level = level
        strength, luma, chroma = (min(1.0, share) for share in (task.strength, self.luma, self.chroma))
        with torch.no_grad():  # not inference_mode: what goes out may be anyone's
            if self._grain is None and task.map is None and luma == chroma == 1:
                out = from_network(frame, clean, task.padded, strength)
            else:
                correction = difference(frame, clean, task.padded, strength)
                if self._grain is not None:
                    correction = correction + self._grain.fresh(noisy, correction)
                if task.map is not None:
                    correction = correction * task.map
                out = add_correction(frame, weigh_correction(frame, correction, luma, chroma))
        if self._grain_table is not None:
            self._grain_table.observe(frame, out)
        return out if self.preview is None else split(frame, out, rotation=self.rotation)
