"""Workers on a Ray cluster: each piece is a task, which Ray gives to whichever node is free.

Frames travel through Ray's object store, and so does the model: nodes need vidnoise, but no access to the video's
files. If a worker or a node dies, Ray runs its tasks again elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

from vidnoise.errors import BackendError, DeviceError
from vidnoise.frame import Frame
from vidnoise.parallel.pieces import Piece
from vidnoise.parallel.process import CrashError, portable
from vidnoise.parallel.team import Work
from vidnoise.parallel.worker import Clean, Outline, Setup, Worker, packed, unpacked

RETRIES = 3
"""How often a piece is begun again if workers die."""


class RayTeam:
    """Workers on a Ray cluster.

    Args:
        setup: What each of them needs.
        address: Address of the cluster, or ``auto`` for the one that this machine belongs to.
        device: ``auto`` for GPUs if the cluster has any, ``cpu`` or ``cuda``.
        jobs: Number of pieces that are denoised at the same time; None for one per GPU or, on CPUs, per node.
        threads: Threads, and CPUs, of each worker; 0 for its share of the node.

    Raises:
        BackendError: Ray is not installed, or there is no such cluster.
        DeviceError: The cluster has no such device.
    """

    def __init__(self, setup: Setup, address: str, *, device: str, jobs: int | None, threads: int) -> None:
        self._ray = ray = _import_ray()
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _connect(ray, address)
        try:
            self._begin(setup, address, device, jobs, threads)
        except BaseException:
            self.close()
            raise

    def _begin(self, setup: Setup, address: str, device: str, jobs: int | None, threads: int) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        n_gpus = int(sum(node.get("GPU", 0) for node in nodes))
        if not nodes:
            raise BackendError(f"the Ray cluster {address} has no node with a CPU")
        if device.partition(":")[0] not in ("auto", "cpu", "cuda") or (device.startswith("cuda") and not n_gpus):
            raise DeviceError(f"the Ray cluster {address} has no device {device!r}: it has {n_gpus} GPUs")
        is_on_gpu = device != "cpu" and n_gpus > 0
        self.size = jobs or (n_gpus if is_on_gpu else len(nodes))
        share = 1 if is_on_gpu else int(min(node["CPU"] for node in nodes)) // -(-self.size // len(nodes))
        self.threads = threads or max(1, share)
        self._device = "cuda" if is_on_gpu else "cpu"
        self.device = f"{self._device} of a cluster"
        self._setup = self._ray.put(setup)
        self._denoise = self._ray.remote(denoise).options(
            num_cpus=min(self.threads, max(node["CPU"] for node in nodes)), num_gpus=int(is_on_gpu), max_retries=RETRIES
        )
        self._tasks: deque[_Task] = deque()

    def submit(self, piece: Piece) -> Work:
        frames = [packed(frame) for frame in piece.frames]
        # In a list, the setup stays a reference, which each process looks up once.
        given = self._denoise.remote([self._setup], self._device, self.threads, Outline.of(piece), frames)
        task = _Task(self._ray, given, piece)
        self._tasks = deque(each for each in self._tasks if each.given is not None)
        self._tasks.append(task)
        return task

    def close(self) -> None:
        for task in getattr(self, "_tasks", ()):
            if task.given is not None:
                with contextlib.suppress(Exception):
                    self._ray.cancel(task.given, force=True)
        if self._is_ours:
            self._ray.shutdown()


class _Task:
    """A piece that Ray has been given."""

    def __init__(self, ray: Any, given: Any, piece: Piece) -> None:
        self.piece = piece
        self.given = given
        """Ray's reference to the result; None once it is here."""
        self._ray = ray
        self._found: deque[Clean] = deque()

    def next(self, timeout: float) -> Clean | None:
        if self.given is not None:
            ready, _ = self._ray.wait([self.given], timeout=timeout)
            if not ready:
                return None
            given, self.given = self.given, None
            try:
                found = self._ray.get(given)
            except self._ray.exceptions.RayError as ex:
                raise _explained(ex) from ex
            if isinstance(found, BaseException):
                raise found
            self._found.extend(found)
        return self._found.popleft()


def denoise(
    setup: Sequence[Any], device: str, threads: int, outline: Outline, frames: Sequence[Frame]
) -> list[Clean] | BaseException:
    """Denoise a piece in a process of the cluster; returns its frames, or the error.

    Args:
        setup: Ray's reference to the :class:`Setup`.
        device, threads: See :class:`Worker`.
        outline, frames: See :meth:`Worker.denoise`.
    """
    try:
        return list(_worker(setup[0], device, threads).denoise(outline, map(unpacked, frames)))
    except Exception as ex:
        return portable(ex)


@functools.lru_cache(maxsize=1)
def _worker(setup: Any, device: str, threads: int) -> Worker:
    """Return this process's worker, which the next piece of the same stream uses again."""
    return Worker(_import_ray().get(setup), device, threads)


def _import_ray() -> Any:
    try:
        importlib.import_module("ray.exceptions")
        return importlib.import_module("ray")
    except ImportError as ex:
        raise BackendError("a cluster needs Ray: pip install vidnoise[cluster]") from ex


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as ex:  # of many kinds, for a wrong address, a firewall, another version of Ray or Python
        reason = " ".join(str(ex).split())[:300]
        raise BackendError(
            f"no Ray cluster can be reached at {address!r} ({reason}); ray start --head begins one"
        ) from ex


def _explained(error: Exception) -> Exception:
    reason = " ".join(str(error).split())
    if "No module named 'vidnoise'" in reason:
        return BackendError("the nodes of the cluster need the same vidnoise as this machine: pip install vidnoise")
    return CrashError(f"a piece was given up after {RETRIES + 1} attempts on the cluster: {reason[:300]}")
