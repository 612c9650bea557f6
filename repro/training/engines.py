"""Which way of training a block is the fastest here, and how many networks fit into memory at once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from repro.training.recipe import Recipe
from repro.training.sequential import SingleRun
from repro.training.stacked import StackedRuns

log = logging.getLogger(__name__)

ENGINES: dict[str, type[SingleRun] | type[StackedRuns]] = {"sequential": SingleRun, "stacked": StackedRuns}
TRIAL_STACK = 8  # networks in the trial of a stack: enough to see whether sharing launches pays
TRIAL_STEPS = 3


def choose_engine(
    engine: str, initial: nn.Module, batch: tuple[Tensor, Tensor], recipe: Recipe, runs: int, memory: int | None
) -> tuple[str, int]:
    """How to train `runs` networks: which engine, and how many at once.

    "auto" is the engine that needs the least time a step and network on `batch`.

    Raises:
        ValueError: the engine is unknown.
    """
    if engine != "auto" and engine not in ENGINES:
        raise ValueError(f"training engine {engine!r} is unknown; choose one of auto, {', '.join(ENGINES)}")
    if engine == "sequential" or (engine == "auto" and runs == 1):
        return "sequential", 1
    size = min(runs, stack_size(initial, batch, memory))
    if engine == "auto":
        trial = list(range(min(size, TRIAL_STACK)))
        alone = step_seconds(SingleRun(initial, recipe, [0]), batch)
        stacked = step_seconds(StackedRuns(initial, recipe, trial), batch) / len(trial)
        engine = "stacked" if stacked < alone else "sequential"
        log.info("engine %s: %.3g s a step and network alone, %.3g s in a stack", engine, alone, stacked)
    return engine, size if engine == "stacked" else 1


def step_seconds(runs: SingleRun | StackedRuns, batch: tuple[Tensor, Tensor], steps: int = TRIAL_STEPS) -> float:
    """The least time one step on `batch` takes, of `steps` after one to warm up."""
    runs.start_epoch([0.0] * len(runs.indices))
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        runs.step(*batch)
        runs.finite()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:])


def stack_size(initial: nn.Module, batch: tuple[Tensor, Tensor], budget: int | None) -> int:
    """How many networks can be trained at once within `budget` bytes (None: half of the device's memory)."""
    budget = _memory(batch[0].device) // 2 if budget is None else budget
    return max(1, budget // training_bytes(initial, batch))


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


def _memory(device: torch.device) -> int:
    """Bytes of the whole device, not of what is free now: the same block must be cut the same way when it resumes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def groups(indices: Sequence[int], size: int) -> list[list[int]]:
    """`indices` cut into runs that are trained at once, as evenly as `size` allows."""
    count = -(-len(indices) // size)
    return [list(indices[i * len(indices) // count : (i + 1) * len(indices) // count]) for i in range(count)]
