"""Several networks trained at once, their parameters and buffers stacked along a first axis (torch.func.vmap).

Launches are shared by the whole stack, the first layer's input too; each network keeps its own learning rate. It pays
where launches dominate, on GPUs at small batches; on a CPU it loses to one network after the other (docs/benchmarks).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import batch_norm, cross_entropy
from torch.overrides import TorchFunctionMode

from repro.training.precision import forward_precision
from repro.training.recipe import Recipe, Scores, scores


class StackedRuns:
    """The runs `indices` of a block, R of them; the same methods as `SingleRun`.

    Nothing mixes the slices, so a network that diverges leaves the others alone.
    """

    engine = "stacked"

    def __init__(self, initial: nn.Module, recipe: Recipe, indices: Sequence[int]):
        def stack(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
            return {name: t.detach().expand(len(indices), *t.shape).clone() for name, t in tensors}

        self.indices, self.recipe = list(indices), recipe
        self.network = copy.deepcopy(initial)  # its code is used, its tensors are not
        self.parameters = stack(initial.named_parameters())
        self.buffers = stack(initial.named_buffers())
        self.momenta = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        parameter = next(iter(self.parameters.values()))
        self.device, self.dtype = parameter.device, parameter.dtype

    def start_epoch(self, rates: Sequence[float]) -> None:
        """Train with these learning rates, one a run, from now on."""
        self.rates = torch.tensor(rates, dtype=self.dtype, device=self.device)
        self.loss_sums = torch.zeros_like(self.rates)
        self.network.train()

    def step(self, x: Tensor, y: Tensor) -> None:  # [B, ...], [B]
        """One step of SGD on one batch, the same for all runs."""
        parameters, momenta = list(self.parameters.values()), list(self.momenta.values())
        for p in parameters:
            p.requires_grad_()
        losses = self._losses(x, y)  # [R]
        gradients = torch.autograd.grad(losses.sum(), parameters)
        for p in parameters:
            p.requires_grad_(False)
        torch._foreach_mul_(momenta, self.recipe.momentum)
        torch._foreach_add_(momenta, gradients)
        torch._foreach_add_(momenta, parameters, alpha=self.recipe.weight_decay)
        for p, m in zip(parameters, momenta):
            p.addcmul_(m, self.rates.view(-1, *[1] * (p.ndim - 1)), value=-1)
        self.loss_sums += losses.detach()

    def finite(self) -> list[bool]:
        """Whether all losses of the epoch were finite, run by run."""
        return self.loss_sums.isfinite().tolist()

    @torch.no_grad()
    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Scores]:
        """Mean cross-entropy and error of each run, batch norm in eval mode."""
        self.network.eval()
        losses, wrong, count = torch.zeros(len(self.indices)), torch.zeros(len(self.indices)), 0
        for x, y in batches:
            with self._precision():
                logits = vmap(self._logits, (0, 0, None))(self.parameters, self.buffers, x).to(self.dtype)  # [R, B, C]
            y = y.expand(len(self.indices), -1)
            losses = losses.to(logits) + cross_entropy(logits.transpose(1, 2), y, reduction="none").sum(dim=1)
            wrong = wrong.to(logits) + (logits.argmax(2) != y).sum(dim=1)
            count += y.shape[1]
        return [scores(loss, error) for loss, error in zip((losses / count).tolist(), (wrong / count).tolist())]

    def keep(self, positions: Sequence[int]) -> None:
        """Forget all runs but these, and give back their memory."""
        self.indices = [self.indices[position] for position in positions]
        for tensors in (self.parameters, self.buffers, self.momenta):
            tensors.update({name: tensor[list(positions)] for name, tensor in tensors.items()})

    def model(self, position: int) -> nn.Module:
        """A copy of the network of one run, in eval mode."""
        network = copy.deepcopy(self.network)
        network.load_state_dict({name: t[position] for name, t in {**self.parameters, **self.buffers}.items()})
        return network.eval()

    def tensors(self) -> dict[str, Tensor]:
        """Everything training changes, by name and in place: what a checkpoint holds."""
        momenta = {f"momentum.{name}": tensor for name, tensor in self.momenta.items()}
        return {**self.parameters, **self.buffers, **momenta}

    def _logits(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(self.network, (parameters, buffers), (x,))

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:  # [R]
        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            return cross_entropy(self._logits(parameters, buffers, x), y)

        with self._precision():
            return vmap(loss)(self.parameters, self.buffers)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """That of the recipe, forward; batch norm in that of its statistics: CUDA has no other in vmap."""
        full = FullBatchNorm() if self.recipe.precision == "bf16" else nullcontext()
        with forward_precision(self.device, self.recipe.precision), full:
            yield


class FullBatchNorm(TorchFunctionMode):
    """While active, batch norm computes in the precision of its weights."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is batch_norm:
            x, mean, *rest = args
            args = (x if mean is None else x.to(mean.dtype), mean, *rest)
        return function(*args, **(kwargs or {}))
