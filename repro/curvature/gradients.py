"""Weighted gradients g_{i,c,c'} summed over classes and cross-classes, in one pass (Papyan 2020, Eq. 6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repro.curvature import checks
from repro.curvature.batches import Batches, by_class, checked_batches
from repro.curvature.classifier import prepared
from repro.curvature.evaluation import evaluation
from repro.curvature.function import logits_of
from repro.curvature.inputs import Inputs, rows
from repro.curvature.loss import errors
from repro.curvature.origin import Origin, origin_of
from repro.curvature.parameters import Parameters, Selection, in_place, tensors_of
from repro.curvature.proof import prove


class Chosen(NamedTuple):
    """K of the C classes, and what the labels that were not chosen add up to."""

    classes: Tensor  # [K] in the order in which they were asked for, int64
    left: int  # C − K
    examples: int  # N
    mass: Tensor  # [K] 1/N Σ_i Σ p_{i,c,c'} over the labels c' that were not chosen
    sums: Tensor | None  # [K, P] the same of `CrossClassSums.sums`; None for power 1, where no one needs them


class CrossClassSums(NamedTuple):
    """Sums over the examples of class c with the label c' put in the place of their own, divided by N.

    `sums[c, c']` = 1/N Σ_i p_{i,c,c'}^power g_{i,c,c'}, where g_{i,c,c'} = J_i^T (p_i − y_{c'}) is the gradient of the
    cross-entropy of example i of class c for the label c'. The classes may differ in size. Where classes were chosen,
    c and c' are among these, and C below is their number; N is that of all examples, and p_i is over all classes.
    """

    counts: Tensor  # [C] examples of each class, int64
    mass: Tensor  # [C, C] 1/N Σ_i p_{i,c,c'}: the weights w_{c,c'} of Section 6; those of all classes sum to one
    sums: Tensor  # [C, C, P], or of the chosen entries of the parameter vector alone
    origin: Origin | None = None  # what they were computed from, where that is known
    chosen: Chosen | None = None


def cross_class_sums(
    model: nn.Module,
    data: Batches,
    *,
    parameters: Selection = None,
    entries: tuple[int, int] | None = None,
    power: float = 1,
    classes: Sequence[int] | None = None,
) -> CrossClassSums:
    """Stream Σ_i p_{i,c,c'}^power g_{i,c,c'} / N for every class c and cross-class c'.

    The examples are regrouped into batches of one class; each batch costs one forward pass, which its C backward passes
    (one for each c') share: (1 + 2 C) / 3 gradients in all. Memory: the C² sums and one batch. Of K chosen classes it
    is K² sums, and (1 + 2 K) / 3 gradients of their examples.

    Args:
        parameters: Which parameters to differentiate, as in `repro.curvature.risk.Parameters`.
        entries: First and one past last entry of their flattened vector to keep; None keeps all.
        power: 1 for the weighted gradients of the paper, 1/2 for those of its companion.
        classes: those that c and c' run over; None for all.

    Raises:
        ValueError: no data, a model in train mode, unfit parameters, inputs or labels, see `checks`; a network whose
            gradients are not its derivatives, see `repro.curvature.proof`; classes of which there is no example.
    """
    model, data = prepared(model, data)
    data = list(checked_batches(model, data))
    checks.check_deterministic(model)
    target = _Target(model, parameters, entries)
    weights = {name: tensor.detach() for name, tensor in tensors_of(model).items()}
    prove(model, target.layout, weights, data, need="gradient", fast=False)
    wanted, examples = checks.class_list(classes), sum(len(y) for _, y in data)
    found: CrossClassSums | None = None
    with in_place(model, {}, target.names), evaluation(model):
        for c, x in by_class(data, wanted):
            logits = target.logits(x, c)
            p = logits.detach().softmax(dim=1)  # [B, C]
            found = found or _zeros(p, target.size, wanted, examples, rest=power != 1)
            labels, chosen = wanted or list(range(p.shape[1])), found.chosen
            row, rest = labels.index(c), chosen is not None and chosen.sums is not None
            found.counts[row] += len(p)
            found.mass[row] += p[:, labels].sum(dim=0)
            for column, k in enumerate(labels):
                cotangent = p[:, k : k + 1] ** power * errors(p, k)
                more = rest or column + 1 < len(labels)
                target.add_gradient(found.sums[row, column], logits, cotangent, keep_graph=more)
            if chosen is not None:
                chosen.mass[row] += p.index_fill(1, chosen.classes, 0).sum()
                if chosen.sums is not None:
                    w = (p**power).index_fill(1, chosen.classes, 0)
                    target.add_gradient(chosen.sums[row], logits, w.sum(dim=1, keepdim=True) * p - w, keep_graph=False)
    if found is None:  # of all classes there is an example: there is a batch, and it is not empty
        checks.check_range(wanted or (), logits_of(model, data[0][0]).shape[1])
        raise ValueError(f"there is no example of the classes {wanted}")
    for total in (found.mass, found.sums, *([found.chosen.mass, found.chosen.sums] if found.chosen else [])):
        if total is not None:
            total.div_(examples)
    return found._replace(origin=origin_of(target.layout.names, weights, found.counts, found.mass))


def _zeros(p: Tensor, size: int, classes: list[int] | None, examples: int, *, rest: bool) -> CrossClassSums:
    C = p.shape[1]
    K, chosen = C, None
    if classes is not None:
        checks.check_range(classes, C)
        K = len(classes)
        sums = p.new_zeros(K, size) if rest else None
        chosen = Chosen(torch.tensor(classes, device=p.device), C - K, examples, p.new_zeros(K), sums)
    counts = torch.zeros(K, dtype=torch.int64, device=p.device)
    return CrossClassSums(counts, p.new_zeros(K, K), p.new_zeros(K, K, size), chosen=chosen)


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
