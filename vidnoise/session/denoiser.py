"""The denoising session of one stream, which holds the network's state."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidnoise.backends.window import Window
from vidnoise.checked import about, named_fields, takes
from vidnoise.color import weigh_correction
from vidnoise.errors import DeviceError, UsageError
from vidnoise.kernels.conversion import add_correction, difference, from_network, to_network
from vidnoise.model import Denoised, State
from vidnoise.model.network import MULTIPLE
from vidnoise.options import DenoiseOptions
from vidnoise.pictures import Order, Picture, PictureAdapter, check_several, owned
from vidnoise.session.assigned_once import AssignedOnce
from vidnoise.session.cuts import CutMemory, detect_cut, thumbnail
from vidnoise.session.grain import GrainSynthesis
from vidnoise.session.grain_table import GrainTable
from vidnoise.session.known_sigma import KnownSigma
from vidnoise.session.noise_profile import NoiseProfile, RegionNoise
from vidnoise.session.placement import place
from vidnoise.session.settings import setting
from vidnoise.session.split import split
from vidnoise.session.strength import Strength
from vidnoise.session.task import Task
from vidnoise.weights import ModelLike

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from vidnoise.option_keywords import DenoiseKeywords
    from vidnoise.option_values import SigmaLike

logger = logging.getLogger(__name__)


@takes(DenoiseOptions)
class Denoiser(AssignedOnce):
    """Denoises the pictures of one stream in order, with memory of the past.

    By default it is causal and without delay: each picture pushed is returned at once. With ``lookahead``, pictures
    wait for later ones and are returned in order, up to :attr:`latency_frames` pushes later; :meth:`flush` returns the
    last ones. Not thread-safe; any number of denoisers may share a model.

    ``sigma``, ``strength``, ``luma``, ``chroma`` and ``detect_cuts`` may be set between two pictures, other attributes
    may not. As a context manager, it is closed at the end of the ``with`` block.

    Args:
        model: A name from :func:`vidnoise.list_models`, a ``.safetensors`` file, the result of
            :func:`vidnoise.load_model`, or a network.
        order: Order of the channels of arrays and tensors, ``"rgb"``, or ``"bgr"`` as in OpenCV.
        rotation: Rotation of the video for display in degrees (:attr:`StreamInfo.rotation`), which determines what is
            left, and the orientation of the mask.
        begin_seconds: Position of the first frame in the video, in seconds, for zones and mask.
        first_time: Timestamp of the video's first frame in seconds, if the first frame pushed is a later one.
        noise_profile: Noise level that was measured before, in place of ``noise_region``.
        options: See below, and :class:`vidnoise.options.DenoiseOptions`.

    Raises:
        UsageError: A value is out of range.
        SourceError, FormatError: The mask cannot be read.
        SinkError: The grain table exists already, or cannot be written.
        UnknownModelError, WeightsError: See :func:`vidnoise.load_model`.
        DeviceError: The device does not exist, or ran out of memory.
        BackendError: The backend is not installed, or does not support the device.

    >>> import numpy as np, vidnoise
    >>> with vidnoise.Denoiser("fast", order="bgr") as denoiser:
    ...     for sigma in (20, 30):  # as the camera's gain goes up
    ...         (clean,) = denoiser.push(np.full((48, 64, 3), 128, np.uint8), sigma=sigma)
    ...         print(clean.shape, clean.dtype, denoiser.estimated_sigma)
    (48, 64, 3) uint8 20.0
    (48, 64, 3) uint8 30.0
    """

    __slots__ = (
        "__weakref__",
        "_adapter",
        "_amounts",
        "_chroma",
        "_cut_memory",
        "_cuts",
        "_detect_cuts",
        "_grain",
        "_grain_table",
        "_is_closed",
        "_is_first",
        "_known",
        "_known_mean",
        "_level",
        "_luma",
        "_profile",
        "_shape",
        "_sigma_scales",
        "_state",
        "_was_known",
        "_window",
        "backend",
        "device",
        "dtype",
        "latency_frames",
        "model",
        "network",
        "preview",
        "rotation",
    )  # fmt: skip

    luma: float = setting("luma")
    chroma: float = setting("chroma")
    detect_cuts: bool = setting("detect_cuts")

    def __init__(
        self,
        model: ModelLike = "standard",
        *,
        order: Order = "rgb",
        rotation: int = 0,
        begin_seconds: float = 0.0,
        first_time: Fraction | None = None,
        noise_profile: NoiseProfile | None = None,
        **options: Unpack[DenoiseKeywords],
    ) -> None:
        chosen = DenoiseOptions.of("Denoiser", options)
        lookahead, grain_table = chosen.lookahead, chosen.grain_table
        if isinstance(lookahead, str):
            raise UsageError("lookahead auto is for files, whose size is known: give a number of frames", "lookahead")
        if grain_table is not None and not isinstance(grain_table, GrainTable):
            grain_table = GrainTable(grain_table)
        self._grain_table = grain_table
        region_noise = RegionNoise.of(chosen.noise_region, rotation)
        self._adapter = PictureAdapter(order)
        self._amounts = Strength(
            chosen.strength, zones=chosen.zones, mask=chosen.mask, rotation=rotation, begin_seconds=begin_seconds,
            first_time=first_time,
        )  # fmt: skip
        self.device, self.dtype, loaded, self.backend = place(model, chosen, lookahead)
        self.model = loaded
        """The loaded model, which another session may share."""
        self.network = loaded.network
        self._grain = GrainSynthesis(chosen.grain, chosen.grain_seed, self.device) if chosen.grain else None
        self.sigma = chosen.sigma
        self._profile = noise_profile.to(self.device) if noise_profile else region_noise
        self._luma, self._chroma, self._detect_cuts = chosen.luma, chosen.chroma, chosen.detect_cuts
        self.latency_frames = lookahead
        """Number of later frames that may have to be pushed before a frame is returned."""
        self._window: Window[Task] | None = None
        self._shape: tuple[int, int] | None = None
        self._sigma_scales: dict[tuple[float, float], Tensor] = {}
        self.preview, self.rotation = chosen.preview, rotation
        self._cuts = torch.zeros((), dtype=torch.int64, device=self.device)
        self._level: Tensor | None = None
        self._known_mean: float | None = None
        self._was_known = self._is_closed = False
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next frame is denoised as the first of a stream."""
        self._state: State | None = None
        self._cut_memory: CutMemory | None = None
        self._is_first = True

    @property
    def state(self) -> State | None:
        """The network's state of the stream, without ``lookahead``; None before the first frame."""
        return self._state

    def go_on_from(self, state: State) -> None:
        """Set the state after a step that was taken elsewhere, together with other streams."""
        self._state = state

    @property
    def model_name(self) -> str:
        """Name on the model's card; ``custom`` for a network without one."""
        return self.model.name

    @property
    def sigma(self) -> SigmaLike | None:
        """Known noise level: standard deviation in 8-bit units, or an ``(H, W)`` array of it.

        May be set between two frames; None estimates it. An array is copied: set it again after changing it.
        """
        return None if self._known is None else self._known.given

    @sigma.setter
    def sigma(self, value: SigmaLike | None) -> None:
        self._known = None if value is None else KnownSigma(value, self.device)

    @property
    def strength(self) -> float:
        """Strength outside all zones, 0 to 2. May be set between two frames."""
        return self._amounts.strength

    @strength.setter
    def strength(self, value: float) -> None:
        about(named_fields(DenoiseOptions)["strength"]).check("strength", value)
        self._amounts.strength = value

    @property
    def estimated_sigma(self) -> float | None:
        """Noise level of the last frame in 8-bit units: the known sigma, or the mean estimate for R, G and B.

        None before the first frame.
        """
        if self._level is None:
            return None
        return float(self._level) * 255 if self._known_mean is None else self._known_mean

    @property
    def backend_name(self) -> str:
        """Name of the backend; for ``auto``, the one in use."""
        return self.backend.name

    @property
    def n_cuts(self) -> int:
        """Number of scene cuts detected so far."""
        return int(self._cuts)

    def push(self, picture: Picture, *, sigma: SigmaLike | None = None) -> list[Picture]:
        """Push the next picture; returns the pictures that are finished: this one, unless ``lookahead`` delays it.

        Args:
            picture: Picture of any kind that :func:`vidnoise.denoise` takes. It is returned as the same kind, on its
                own device. ``discontinuity`` of a :class:`Frame` resets the denoiser.
            sigma: Noise level of this picture in 8-bit units, a number or an ``(H, W)`` array; by default
                :attr:`sigma`.

        Raises:
            DeviceError: The device ran out of memory. The picture is not lost: push it again (without ``lookahead``).
            FormatError: The picture is of an unsupported kind, sample type or shape, or the mask does not fit it.
            UsageError: There are zones, but the picture has no timestamp; ``sigma`` is out of range or does not fit it;
                or the denoiser is closed.
        """
        shape = self._shape
        task = self.prepare(picture, sigma)
        if not self.latency_frames:
            return [self.finish(task, *self._step(task))]
        done: list[Any] = []
        if self._window is None or shape != self._shape:
            done = self.drain()
            self._window = Window(self.backend, self.latency_frames)
        return done + self._finished(self._window.push(task, task.padded, task.sigma, task.sigma_scale, task.continues))

    def drain(self) -> list[Any]:
        """Finish and return the waiting pictures, without waiting for later ones. The state is kept."""
        return [] if self._window is None else self._finished(self._window.flush())

    def _finished(self, steps: Iterator[tuple[Task, Denoised]]) -> list[Any]:
        done: list[Any] = []
        try:
            done += (self.finish(task, result.clean, result.level[0]) for task, result in steps)
        except torch.OutOfMemoryError as ex:
            raise self._out_of_memory() from ex
        return done

    def _step(self, task: Task) -> tuple[Tensor, Tensor]:
        """Take the network's step; returns the clean picture and its noise level."""
        try:
            if self._state is None:
                self._state = self.backend.initial_state(1, *task.padded.shape[-2:])
            clean, level, self._state = self.backend.step(
                task.padded, task.sigma, task.sigma_scale, task.continues, self._state
            )
        except torch.OutOfMemoryError as ex:
            raise self._out_of_memory() from ex
        return clean, level[0]

    def _out_of_memory(self) -> DeviceError:
        less = "a smaller lookahead=N" if self.latency_frames else "max_memory=MB (in tiles)"
        height, width = self._shape or (0, 0)
        return DeviceError(f'{self.device} ran out of memory at {width}x{height}; try {less}, or model="fast"')

    def flush(self) -> list[Any]:
        """End the stream, and return the remaining pictures (with ``lookahead`` only), of the kinds that were pushed.

        Raises:
            SinkOpenError: The grain table cannot be written.
            UsageError: The denoiser is closed.
        """
        self._check_open()
        done = self.drain()
        self._amounts.close()
        if isinstance(self._profile, RegionNoise) and self._profile.is_flat:
            logger.warning("noise_region holds no noise in any frame, so that none was removed: choose another part")
        if self._grain_table is not None:
            self._grain_table.write()
        return done

    def close(self) -> None:
        """Release the mask's file, the memory of the past and the pictures that wait. Idempotent."""
        self._amounts.close()
        self.reset()
        self._window = None
        self._is_closed = True

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        waiting = 0 if self._window is None else self._window.n_waiting
        if waiting and kind is None:
            logger.warning("a Denoiser was closed with %d pictures inside: flush() gives them", waiting)
        self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError("this Denoiser is closed; make another one")

    def __call__(self, frames: Iterable[Picture]) -> Iterator[Picture]:
        """Denoise a stream of pictures lazily; see :meth:`push`."""
        check_several(frames)
        try:
            for frame in frames:
                yield from self.push(frame)
            yield from self.flush()
        finally:
            self._amounts.close()

    def prepare(self, picture: Any, sigma: SigmaLike | None = None) -> Task:
        """Prepare the network's task for the next picture, after a reset if the picture requires one.

        :meth:`push` consists of this, the backend's step and :meth:`finish`. A :class:`vidnoise.StreamBatch` takes the
        step for several sessions at once, and sets the state of each by :meth:`go_on_from`.
        """
        self._check_open()
        frame, to_picture = self._adapter.frame(picture)
        frame = frame.to(self.device)
        if self.latency_frames:  # whoever pushed it may use its memory again
            frame = owned(frame)
        known = self._known if sigma is None else KnownSigma(sigma, self.device)
        levels = None if known is None else known.levels(frame)
        if (frame.height, frame.width) != self._shape:
            self.reset()
            self._shape = (frame.height, frame.width)
        strength, map = self._amounts.at(frame)
        with torch.inference_mode():
            room = None
            if self._state is not None and not self.latency_frames:  # with lookahead, frames must not be overwritten
                room = self.backend.input_buffer(self._state)
            padded = to_network(frame, MULTIPLE, room)
            noisy = padded[..., : frame.height, : frame.width]
            follows = not (frame.discontinuity or self._is_first)
            continues = torch.full((1,), follows, dtype=torch.bool, device=self.device)
            self._is_first = False
            if not follows:
                self._cut_memory = None
            if self.detect_cuts:
                cut, self._cut_memory = detect_cut(thumbnail(noisy), self._cut_memory)
                continues &= ~cut
                self._cuts += cut
            if levels is None and self._profile is not None:
                levels = self._profile.levels(noisy, continues)
            if levels is None and self._was_known:
                self._forget_noise()
            self._was_known = levels is not None
            mean = None if known is None else known.mean
            return Task(
                frame, noisy, padded, levels, mean, continues, strength, map, self._sigma_scale(strength), to_picture
            )

    def _forget_noise(self) -> None:
        """Forget the estimate of the noise, which is out of date: it is not updated while the noise level is known."""
        for state in (self._state, None if self._window is None else self._window.state):
            if state is not None:
                state.noise.zero_()

    def _sigma_scale(self, strength: float) -> float | Tensor:
        """Return the factor by which the noise is assumed to be stronger, ``(1, 2)`` if luma and chroma differ."""
        luma, chroma = (max(1.0, strength) * max(1.0, share) for share in (self.luma, self.chroma))
        if luma == chroma:
            return luma
        if (luma, chroma) not in self._sigma_scales:  # kept, since copying numbers to a GPU waits for it
            self._sigma_scales = {(luma, chroma): torch.tensor([[luma, chroma]], device=self.device)}
        return self._sigma_scales[luma, chroma]

    def finish(self, task: Task, clean: Tensor, level: Tensor) -> Any:
        """Make the output picture from the network's clean picture, ``(1, 3, H, W)``, padded, and its noise level."""
        frame, noisy = task.frame, task.noisy
        self._level, self._known_mean = level, task.known_mean
        strength, luma, chroma = (min(1.0, share) for share in (task.strength, self.luma, self.chroma))
        with torch.no_grad():  # not inference_mode: the caller may use the output freely
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
        return task.to_picture(out if self.preview is None else split(frame, out, rotation=self.rotation))
