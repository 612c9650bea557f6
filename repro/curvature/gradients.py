"""Weighted gradients g_{i,c,c'} summed over classes and cross-classes, in one pass (Papyan 2020, Eq. 6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from repro.curvature import checks
from repro.curvature.risk import Batches, Parameters, Selection


class CrossClassSums(NamedTuple):
    """Sums over the examples of class c with the label c' put in the place of their own, divided by N.

    `sums[c, c']` = 1/N Σ_i p_{i,c,c'}^power g_{i,c,c'}, where g_{i,c,c'} = J_i^T (p_i − y_{c'}) is the gradient of the
    cross-entropy of example i of class c for the label c'. The classes may differ in size.
    """

    counts: Tensor  # [C] examples of each class, int64
    mass: Tensor  # [C, C] 1/N Σ_i p_{i,c,c'}: the weights w_{c,c'} of Section 6; they sum to one
    sums: Tensor  # [C, C, P], or of the chosen entries of the parameter vector alone


def cross_class_sums(
    model: nn.Module,
    data: Batches,
    *,
    parameters: Selection = None,
    entries: tuple[int, int] | None = None,
    power: float = 1,
) -> CrossClassSums:
    """Stream Σ_i p_{i,c,c'}^power g_{i,c,c'} / N for every class c and cross-class c'.

    The examples are regrouped into batches of one class; each batch costs one forward pass, which its C backward passes
    (one for each c') share: (1 + 2 C) / 3 gradients in all. Memory: the C² sums and one batch.

    Args:
        parameters: Which parameters to differentiate, as in `repro.curvature.risk.Parameters`.
        entries: First and one past last entry of their flattened vector to keep; None keeps all.
        power: 1 for the weighted gradients of the paper, 1/2 for those of its companion.

    Raises:
        ValueError: no data, a model in train mode, unfit parameters, inputs or labels; see `checks`.
    """
    checks.check_deterministic(model)
    target = _Target(model, parameters, entries)
    found: CrossClassSums | None = None
    for c, x in by_class(data):
        logits = target.logits(x, c)
        p = logits.detach().softmax(dim=1)  # [B, C]
        found = found or _zeros(p, target.size)
        found.counts[c] += len(x)
        found.mass[c] += p.sum(dim=0)
        for k in range(p.shape[1]):
            cotangent = p.clone()  # [B, C]: p − y_k, but its k-th entry p_k − 1 would cancel where p_k is nearly one
            cotangent[:, k] = 0
            cotangent[:, k] = -cotangent.sum(dim=1)
            cotangent *= p[:, k : k + 1] ** power
            target.add_gradient(found.sums[c, k], logits, cotangent, keep_graph=k + 1 < p.shape[1])
    if found is None:
        raise ValueError("no data: cross-class sums need at least one batch of examples")
    examples = int(found.counts.sum())
    return CrossClassSums(found.counts, found.mass.div_(examples), found.sums.div_(examples))


def by_class(data: Batches) -> Iterator[tuple[int, Tensor]]:
    """Regroup batches so that each holds one class alone: yields (class, inputs), about as large as they came."""
    waiting: dict[int, list[Tensor]] = {}
    for x, y in data:
        for c in y.unique().tolist():
            waiting.setdefault(c, []).append(x[y == c])
            if sum(map(len, waiting[c])) >= len(x):
                yield c, torch.cat(waiting.pop(c))
    for c in sorted(waiting):
        yield c, torch.cat(waiting[c])


def _zeros(p: Tensor, size: int) -> CrossClassSums:
    C = p.shape[1]
    return CrossClassSums(
        torch.zeros(C, dtype=torch.int64, device=p.device), p.new_zeros(C, C), p.new_zeros(C, C, size)
    )


class _Target:
    """Some entries of the flattened parameters, and gradients with respect to them alone."""

    def __init__(self, model: nn.Module, parameters: Selection, entries: tuple[int, int] | None):
        layout = Parameters(model, parameters)
        first, last = entries or (0, layout.dim)
        self.size, self.model = last - first, model
        self.state = {name: p.detach() for name, p in model.named_parameters()}
        self.pieces: list[tuple[str, slice, slice]] = []  # name, part of that parameter, its place in the result
        for name, place in layout.slices.items():
            a, b = max(first, place.start), min(last, place.stop)
            if a < b:
                self.pieces.append((name, slice(a - place.start, b - place.start), slice(a - first, b - first)))
                self.state[name].requires_grad_()  # of those alone autograd keeps a graph

    def logits(self, x: Tensor, c: int) -> Tensor:  # inputs of class c -> [B, C]
        y = torch.full((len(x),), c, device=x.device)
        checks.check_batch(x, y, next(iter(self.state.values())))
        with torch.enable_grad():
            logits = functional_call(self.model, self.state, (x,))
        checks.check_logits(logits, y)
        return logits

    def add_gradient(self, to: Tensor, logits: Tensor, cotangent: Tensor, *, keep_graph: bool) -> None:  # to [P]
        if not logits.requires_grad:  # the output depends on none of these parameters
            return
        leaves = [self.state[name] for name, _, _ in self.pieces]
        gradients = torch.autograd.grad(logits, leaves, cotangent, retain_graph=keep_graph, materialize_grads=True)
        for gradient, (_, part, place) in zip(gradients, self.pieces):
            to[place] += gradient.flatten()[part]
