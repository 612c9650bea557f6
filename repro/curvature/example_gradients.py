"""Gradients of single examples with respect to any parameters of any network, many examples at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from repro.curvature import checks
from repro.curvature.evaluation import evaluation
from repro.curvature.inputs import Inputs, count, take
from repro.curvature.parameters import in_place

COMPARED = 2  # examples


class ExampleGradients:
    """J_iᵀ u_{i,k} for examples i and cotangents k of each, by the parameters `names` in that order, flattened.

    Each example gets a copy of these parameters of its own, so one backward pass keeps the examples of a batch apart;
    the other weights are not differentiated. `torch.func.vmap` runs the examples together. A network that it cannot
    run, such as an LSTM, or that has weights where `functional_call` does not reach them, is run example by example:
    the first examples are taken both ways, and compared.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]):
        self.model, self.names = model, list(names)
        self.together: bool | None = None  # whether examples are run together; not known before the first call

    def __call__(self, x: Inputs, cotangents: Tensor) -> Tensor:  # [B, K, C] -> [B, K, P']
        """The gradients on B examples x with one row of logits each, by P' entries; zero where there is no gradient.

        Raises:
            ValueError: torch cannot differentiate the network.
        """
        if self.together is None:
            some = slice(0, COMPARED)
            self.together = self._agree(take(x, some), cotangents[some])
        if self.together:
            try:
                return self._together(x, cotangents)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # it may take a way on these examples that it does not take on others
                self.together = False
        return self._one_by_one(x, cotangents)

    def _agree(self, x: Inputs, cotangents: Tensor) -> bool:
        try:
            found = self._together(x, cotangents)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # also of a network that is at fault itself: then the other way says so
            return False
        expected = self._one_by_one(x, cotangents)
        return bool((found - expected).norm() <= torch.finfo(found.dtype).eps ** 0.5 * expected.norm())

    def _together(self, x: Inputs, cotangents: Tensor) -> Tensor:
        fixed = {name: t.detach() for name, t in [*self.model.named_parameters(), *self.model.named_buffers()]}
        weights = [fixed[name].expand(count(x), *fixed[name].shape).requires_grad_() for name in self.names]

        def logits(own: Sequence[Tensor], example: Inputs) -> Tensor:
            return functional_call(self.model, {**fixed, **dict(zip(self.names, own))}, (take(example, None),))[0]

        with evaluation(self.model):
            return _rows(vmap(logits)(weights, x), weights, cotangents)

    def _one_by_one(self, x: Inputs, cotangents: Tensor) -> Tensor:
        own = dict(self.model.named_parameters())
        leaves, rows = [own[name] for name in self.names], []
        with in_place(self.model, {}, self.names), evaluation(self.model):
            for i in range(count(x)):
                logits = self.model(take(x, slice(i, i + 1)))
                rows.append(_rows(logits, leaves, cotangents[i : i + 1]))
        return torch.cat(rows)


def _rows(logits: Tensor, leaves: Sequence[Tensor], cotangents: Tensor) -> Tensor:  # [B, C], [B, K, C] -> [B, K, P']
    """Gradients by leaves that belong to a single example, or that each example has its own of, as their first axis."""
    B, K, _ = cotangents.shape
    rows = logits.new_zeros(B, K, sum(leaf.numel() for leaf in leaves) // B)
    for k in range(K if logits.requires_grad else 0):
        keep = k + 1 < K
        with checks.differentiable():
            found = torch.autograd.grad(logits, leaves, cotangents[:, k], retain_graph=keep, materialize_grads=True)
        torch.cat([gradient.detach().reshape(B, -1) for gradient in found], dim=1, out=rows[:, k])
    return rows
