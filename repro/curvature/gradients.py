"""Weighted gradients g_{i,c,c'} summed over classes and cross-classes, in one pass (Papyan 2020, Eq. 6.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from repro.curvature import checks
from repro.curvature.batches import Batches, by_class, checked_batches
from repro.curvature.classifier import prepared
from repro.curvature.evaluation import evaluation
from repro.curvature.inputs import Inputs, rows
from repro.curvature.loss import errors
from repro.curvature.origin import Origin, origin_of
from repro.curvature.parameters import Parameters, Selection, in_place, tensors_of
from repro.curvature.proof import prove


class CrossClassSums(NamedTuple):
    """Sums over the examples of class c with the label c' put in the place of their own, divided by N.

    `sums[c, c']` = 1/N Σ_i p_{i,c,c'}^power g_{i,c,c'}, where g_{i,c,c'} = J_i^T (p_i − y_{c'}) is the gradient of the
    cross-entropy of example i of class c for the label c'. The classes may differ in size.
    """

    counts: Tensor  # [C] examples of each class, int64
    mass: Tensor  # [C, C] 1/N Σ_i p_{i,c,c'}: the weights w_{c,c'} of Section 6; they sum to one
    sums: Tensor  # [C, C, P], or of the chosen entries of the parameter vector alone
    origin: Origin | None = None  # what they were computed from, where that is known


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
        ValueError: no data, a model in train mode, unfit parameters, inputs or labels, see `checks`; a network whose
            gradients are not its derivatives, see `repro.curvature.proof`.
    """
    model, data = prepared(model, data)
    data = list(checked_batches(model, data))
    checks.check_deterministic(model)
    target = _Target(model, parameters, entries)
    weights = {name: tensor.detach() for name, tensor in tensors_of(model).items()}
    prove(model, target.layout, weights, data, need="gradient", fast=False)
    found: CrossClassSums | None = None
    with in_place(model, {}, target.names), evaluation(model):
        for c, x in by_class(data):
            logits = target.logits(x, c)
            p = logits.detach().softmax(dim=1)  # [B, C]
            found = found or _zeros(p, target.size)
            found.counts[c] += len(p)
            found.mass[c] += p.sum(dim=0)
            for k in range(p.shape[1]):
                cotangent = p[:, k : k + 1] ** power * errors(p, k)
                target.add_gradient(found.sums[c, k], logits, cotangent, keep_graph=k + 1 < p.shape[1])
    assert found is not None  # there is a batch, and it is not empty
    examples = int(found.counts.sum())
    counts, mass, sums = found.counts, found.mass.div_(examples), found.sums.div_(examples)
    return CrossClassSums(counts, mass, sums, origin_of(target.layout.names, weights, counts, mass))


def _zeros(p: Tensor, size: int) -> CrossClassSums:
    C = p.shape[1]
    return CrossClassSums(
        torch.zeros(C, dtype=torch.int64, device=p.device), p.new_zeros(C, C), p.new_zeros(C, C, size)
    )


class _Target:
    """Some entries of the flattened parameters, and gradients with respect to them alone."""

    def __init__(self, model: nn.Module, parameters: Selection, entries: tuple[int, int] | None):
        self.layout = Parameters(model, parameters)
        first, last = entries or (0, self.layout.dim)
        self.size, self.model = last - first, model
        own = dict(model.named_parameters())
        self.pieces: list[tuple[Tensor, slice, slice]] = []  # a parameter, part of it, its place in the result
        self.names: list[str] = []
        for name, place in self.layout.slices.items():
            a, b = max(first, place.start), min(last, place.stop)
            if a < b:
                self.pieces.append((own[name], slice(a - place.start, b - place.start), slice(a - first, b - first)))
                self.names.append(name)

    def logits(self, x: Inputs, c: int) -> Tensor:  # inputs of class c -> [rows, C]
        y = torch.full((rows(x),), c, device=self.pieces[0][0].device)
        checks.check_batch(x, y, self.pieces[0][0])
        logits = self.model(x)
        checks.check_logits(logits, y, self.pieces[0][0])
        return logits

    def add_gradient(self, to: Tensor, logits: Tensor, cotangent: Tensor, *, keep_graph: bool) -> None:  # to [P]
        if not logits.requires_grad:  # the output depends on none of these parameters
            return
        leaves = [leaf for leaf, _, _ in self.pieces]
        with checks.differentiable():
            gradients = torch.autograd.grad(logits, leaves, cotangent, retain_graph=keep_graph, materialize_grads=True)
        for gradient, (_, part, place) in zip(gradients, self.pieces):
            to[place] += gradient.flatten()[part]
