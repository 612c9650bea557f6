"""The ways a block is trained, and how many of its networks at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from repro.training.sequential import SingleRun
from repro.training.stacked import StackedRuns

ENGINES: dict[str, type[SingleRun] | type[StackedRuns]] = {"sequential": SingleRun, "stacked": StackedRuns}


def at_once(engine: str, initial: nn.Module, batch: tuple[Tensor, Tensor], runs: int, stack_bytes: float) -> int:
    """How many networks of a block of `runs` are trained at once: of a stack as many as `stack_bytes` hold.

    Raises:
        ValueError: the engine is unknown.
    """
    if engine not in ENGINES:
        raise ValueError(f"training engine {engine!r} is unknown; choose one of {', '.join(ENGINES)}")
    if engine == "sequential":
        return 1
    return min(runs, max(1, int(stack_bytes // training_bytes(initial, batch))))


def training_bytes(initial: nn.Module, batch: tuple[Tensor, Tensor]) -> int:
    """Memory one network takes in training: weights, momentum, gradient, one temporary, and what backward needs."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    buffers = {name: buffer.clone() for name, buffer in initial.named_buffers()}  # a forward pass moves them
    with saved_tensors_hooks(note, lambda tensor: tensor):
        loss = cross_entropy(functional_call(initial, buffers, (batch[0],)), batch[1])
    del loss
    return 4 * sum(p.nbytes for p in initial.parameters()) + sum(saved.values())


def groups(indices: Sequence[int], size: int) -> list[list[int]]:
    """`indices` cut into runs that are trained at once, as evenly as `size` allows."""
    count = -(-len(indices) // size)
    return [list(indices[i * len(indices) // count : (i + 1) * len(indices) // count]) for i in range(count)]
