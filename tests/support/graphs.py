"""A recorder of CUDA graphs that replays them on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recording(TorchDispatchMode):
    """Keeps what is done; afterwards everything that was there before has its values back: nothing was run."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, Any]] = []
        self._own: set[int] = set()
        self._saved: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if is_written and value.untyped_storage().data_ptr() not in self._own:
                self._saved.setdefault(value.data_ptr(), (value, value.clone()))
        result = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        self._own |= {t.untyped_storage().data_ptr() for t in tree_leaves(result) if isinstance(t, Tensor)}
        return result

    def undo(self) -> None:
        for tensor, value in self._saved.values():
            tensor.copy_(value)

    def replay(self) -> None:
        for func, args, kwargs, result in self.operations:
            for target, value in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(target, Tensor) and target.data_ptr() != value.data_ptr():
                    target.copy_(value)


class RecordedGraphs:
    """Stands for :class:`vidnoise.backends.cuda_graph.CudaGraphs`."""

    def __init__(self) -> None:
        self.n_recorded = self.n_replayed = 0

    def warm_up(self, run: Callable[[], None]) -> None:
        run()
        run()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        self.n_recorded += 1
        recording = Recording()
        with recording:
            run()
        recording.undo()

        def replay() -> None:
            self.n_replayed += 1
            recording.replay()

        return replay
