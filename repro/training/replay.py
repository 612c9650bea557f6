"""A training step as a CUDA graph: one launch in place of hundreds, which outlast their work at small batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], None]
WARM_UP = 2  # steps before a graph is recorded, in which kernels are chosen and memory is set aside

log = logging.getLogger(__name__)


class Replay:
    """Does the steps of one training on CUDA by graphs, one for each shape of batch; the numbers are those of `step`.

    A network that cannot be recorded (whose steps depend on values, say) is trained step by step.

    Args:
        step: one step, which changes tensors in place.
        tensors: everything that it changes.
    """

    def __init__(self, step: Step, tensors: Callable[[], Iterable[Tensor]]):
        self.step, self.tensors = step, tensors
        self.graphs: dict[torch.Size, tuple[Any, Tensor, Tensor]] = {}
        self.possible = True

    def forget(self) -> None:
        """Record anew: a number that is part of the graphs, the learning rate, has changed."""
        self.graphs.clear()

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """One step on the batch (x, y)."""
        if self.possible and x.shape not in self.graphs:
            self._record(x, y)
        if not self.possible:
            self.step(x, y)
            return
        graph, own_x, own_y = self.graphs[x.shape]
        own_x.copy_(x)
        own_y.copy_(y)
        graph.replay()

    def _record(self, x: Tensor, y: Tensor) -> None:
        """A graph of the step on a batch of that shape; what the steps before it change is put back."""
        kept = [(tensor, tensor.clone()) for tensor in self.tensors()]
        x, y = x.clone(), y.clone()
        aside, graph = torch.cuda.Stream(x.device), torch.cuda.CUDAGraph()
        aside.wait_stream(torch.cuda.current_stream(x.device))
        try:
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self.step(x, y)
            torch.cuda.current_stream(x.device).wait_stream(aside)
            with torch.cuda.graph(graph):
                self.step(x, y)
            self.graphs[x.shape] = graph, x, y
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.possible = False
            log.warning("a training step cannot be recorded as a CUDA graph (%s); steps are launched one by one", error)
        torch.cuda.synchronize(x.device)
        for tensor, value in kept:
            tensor.copy_(value)
