"""Training in several processes, each on its own clips, as started by ``torchrun``.

Gradients are averaged, so ``n`` processes with batch ``b`` take the step that one would with batch ``n * b``. All else
that a step depends on (time, weights, gradient statistics) is the same everywhere, so the weights stay equal.
DistributedDataParallel is not used: its hooks expect one backward pass a step, but truncated back-propagation has many.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vidnoise.errors import DeviceError


class Ranks(NamedTuple):
    """This process among those of the run. With one process, nothing is communicated."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the processes; a parameter must have one in all of them or in none."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Return the mean over the processes, by key."""
        if self.count == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return dict(zip(values, (tensor / self.count).tolist(), strict=True))

    def agree(self, *values: float) -> list[float]:
        """Return the first process's values: clocks differ, and processes that diverge would deadlock."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return tensor.tolist()

    def gather(self, item: Any) -> list[Any]:
        """Return the items of all processes, in order."""
        items: list[Any] = [item] * self.count
        if self.count > 1:
            dist.all_gather_object(items, item)
        return items

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run the block in the first process before the others begin it."""
        if self.count > 1 and self.rank:
            dist.barrier()
        yield
        if self.count > 1 and not self.rank:
            dist.barrier()


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[Ranks]:
    """Join the run that ``torchrun`` started; without it, be the only process.

    Args:
        device: ``cpu`` (communicating by gloo), or ``cuda`` (by nccl; each process uses the GPU of its local rank).

    Raises:
        DeviceError: There are fewer GPUs than processes, or the device is of another kind.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(device=device)
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise DeviceError(f"process {local} has no GPU: this machine has {torch.cuda.device_count()}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise DeviceError(f"several processes train on cpu or cuda, not on {device.type}")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
