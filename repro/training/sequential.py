"""One network in training: PyTorch's own modules and SGD."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from repro.training.precision import forward_precision
from repro.training.recipe import Recipe, Scores, scores
from repro.training.replay import Replay


class SingleRun:
    """The runs `indices` of a block, of which there is one. `StackedRuns` is the same for several at once."""

    engine = "sequential"

    def __init__(self, initial: nn.Module, recipe: Recipe, indices: Sequence[int]):
        (self.index,) = indices
        self.indices = [self.index]
        self.network = copy.deepcopy(initial)
        parameter = next(self.network.parameters()).detach()
        self.device, self.precision = parameter.device, recipe.precision
        self.sgd = torch.optim.SGD(
            self.network.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
        for parameter in self.network.parameters():  # zeros act as PyTorch's missing buffers, and can be stored
            self.sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.loss_sum = torch.zeros((), dtype=parameter.dtype, device=self.device)
        self.replay = Replay(self._step, self._changing) if self.device.type == "cuda" else None

    def start_epoch(self, rates: Sequence[float]) -> None:
        """Train with these learning rates, one a run, from now on."""
        (rate,) = rates
        if self.replay and rate != self.sgd.param_groups[0]["lr"]:
            self.replay.forget()
        self.sgd.param_groups[0]["lr"] = rate
        self.loss_sum.zero_()
        self.network.train()

    def step(self, x: Tensor, y: Tensor) -> None:  # [B, ...], [B]
        """One step of SGD on one batch."""
        (self.replay or self._step)(x, y)

    def _step(self, x: Tensor, y: Tensor) -> None:
        with forward_precision(self.device, self.precision):
            loss = cross_entropy(self.network(x), y)
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.loss_sum += loss.detach()

    def finite(self) -> list[bool]:
        """Whether all losses of the epoch were finite, run by run."""
        return [bool(self.loss_sum.isfinite())]

    @torch.no_grad()
    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Scores]:
        """Mean cross-entropy and error of each run, batch norm in eval mode."""
        self.network.eval()
        loss, wrong, count = 0.0, 0, 0
        for x, y in batches:
            with forward_precision(self.device, self.precision):
                logits = self.network(x).to(self.loss_sum.dtype)
            loss += cross_entropy(logits, y, reduction="sum").item()
            wrong += int((logits.argmax(1) != y).sum())
            count += len(y)
        return [scores(loss / count, wrong / count)]

    def keep(self, positions: Sequence[int]) -> None:
        """Forget all runs but these."""
        self.indices = [self.indices[position] for position in positions]

    def model(self, position: int) -> nn.Module:
        """The network of one run, in eval mode; to be used before the next step."""
        return self.network.eval()

    def tensors(self) -> dict[str, Tensor]:
        """Everything training changes, by name and in place: what a checkpoint holds."""
        momenta = (self.sgd.state[parameter]["momentum_buffer"] for parameter in self.network.parameters())
        names = (f"momentum.{name}" for name, _ in self.network.named_parameters())
        return {**self.network.state_dict(), **dict(zip(names, momenta))}

    def _changing(self) -> list[Tensor]:
        """Everything a step changes."""
        return [*self.tensors().values(), self.loss_sum]
