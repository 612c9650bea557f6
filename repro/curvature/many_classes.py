"""Gram matrices of the C² means where C² x P numbers do not fit: a hundred classes (Papyan 2020, CIFAR100).

With few positions per class the means of a layer never need to exist. As Σ_t delta_t ⊗ h_t over the examples of a class
they are rows of errors, [C, nT, O], beside the class's features [nT, D], and the inner products of classes c and d are

    <g_{c,c'}, g_{d,d'}> = Σ_t <delta_{c,c',t}, Σ_s <h_{c,t}, h_{d,s}> delta_{d,d',s}>:

nT (1 + nT/C) O multiplications an entry instead of D O. The other parameters are taken by slices of θ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repro.curvature import checks
from repro.curvature.batches import Batches, checked_batches
from repro.curvature.classifier import prepared
from repro.curvature.cross_class import COMPANION_POWER, ClassGram, class_structure, companion_structure, structure_of
from repro.curvature.function import logits_of
from repro.curvature.gradients import CrossClassSums
from repro.curvature.inputs import Positions
from repro.curvature.layers import capture, factored_layers
from repro.curvature.parameters import Parameters, Selection
from repro.linalg.operator import may_stop

Sizes = dict[str, tuple[int, int, int]]  # layer -> positions T, features D, outputs O


class Passes(NamedTuple):
    """What each pass over the data takes up."""

    layers: list[Sizes]  # whose errors and features are held together
    rest: list[str]  # names of the other parameters, a vector θ' of their own
    slices: list[tuple[int, int]]  # first and one past last entry of θ' whose means are held together


def class_gram(
    model: nn.Module,
    data: Batches,
    *,
    memory_budget: int,
    parameters: Selection = None,
    companion: bool = False,
    classes: Sequence[int] | None = None,
) -> ClassGram:
    """`class_structure(...).gram()`, exact, for C² means that need not fit in memory.

    On top of the budget come one batch with its C errors, an eighth of the budget to multiply with, and twice the
    result, C⁴ numbers in float64. Where there are fewer parameters than means and these fit, the result is the means.

    Args:
        memory_budget: bytes for what is held between batches.
        parameters: as in `repro.curvature.risk.Parameters`.
        companion: the unweighted decomposition of `companion_structure` instead.
        classes: some of the classes, see `ClassStructure`; their means are taken by slices of θ alone.

    Raises:
        ValueError: the budget does not hold C² means of a single entry; data or a model that `checks` refuses.
    """
    model, data = prepared(model, data)
    checks.check_deterministic(model)
    wanted, counts = checks.class_list(classes), _class_sizes(model, data)
    if wanted is not None:
        checks.check_range(wanted, len(counts))
        counts = counts[wanted]
    factored = wanted is None
    passes = plan_passes(model, data, counts, memory_budget=memory_budget, parameters=parameters, factored=factored)
    structure = companion_structure if companion else class_structure
    total: ClassGram | None = None
    for entries in passes.slices:
        part = structure(model, data, parameters=passes.rest, entries=entries, classes=wanted).gram()
        if len(passes.slices) > 1 or passes.layers:
            part = part._replace(products=part.rows, short_rows=None)  # those of some of the parameters
        total = _add(total, part)
    for sizes in passes.layers:
        held = _Held(model, data, counts, sizes, power=COMPANION_POWER if companion else 1)
        for name in sizes:
            total = _add(total, _factored_gram(*held.pop(name), companion=companion))
    assert total is not None  # a model has parameters: there is at least one pass
    return total


def plan_passes(
    model: nn.Module,
    data: Batches,
    counts: Tensor,
    *,
    memory_budget: int,
    parameters: Selection = None,
    factored: bool = True,
) -> Passes:
    """Which layers go by their errors and features and how the rest is sliced; one pass where all means fit.

    Args:
        factored: whether layers may go by errors and features.

    Raises:
        ValueError: the budget does not hold C² means of a single entry.
    """
    model, data = prepared(model, data)
    layout = Parameters(model, parameters)
    (x, _), like = data[0], next(model.parameters())
    C, n, number = len(counts), int(counts.max()), like.element_size()
    if memory_budget < C**2 * number:
        raise ValueError(f"a budget of {memory_budget} bytes does not hold one entry of {C}² means: {C**2 * number}")
    layers: list[Sizes] = []
    rest, free = list(layout.names), 0
    if factored and memory_budget < C**2 * number * layout.dim and not isinstance(x, Positions):
        for name, (T, D, O) in factored_layers(model, x).items():
            own = {f"{name}.{suffix}" for suffix, _ in model.get_submodule(name).named_parameters()}
            held = C * n * T * (C * O + D) * number
            if not own <= set(layout.names) or n * T * (n * T + C) >= C * D or held > memory_budget:
                continue
            if held > free:
                layers.append({})
                free = memory_budget
            layers[-1][name] = (T, D, O)
            free -= held
            rest = [other for other in rest if other not in own]
    size, dim = memory_budget // (C**2 * number), Parameters(model, rest).dim if rest else 0
    return Passes(layers, rest, [(first, min(first + size, dim)) for first in range(0, dim, size)])


def _class_sizes(model: nn.Module, data: Batches) -> Tensor:  # -> [C]
    """How many examples each class has; labels and inputs are checked on the way."""
    counts: Tensor | None = None
    for x, y in checked_batches(model, data):
        if counts is None:
            logits = logits_of(model, x)
            checks.check_logits(logits, y)
            counts = torch.zeros(logits.shape[1], dtype=torch.int64, device=y.device)
        counts += y.bincount(minlength=len(counts))
    assert counts is not None  # there is a batch
    return counts


class _Held:
    """Weighted errors and features of some layers for all examples, by class, from one pass over the data.

    Classes are padded with zeros to the size of the largest, so that all errors of a layer are one tensor.
    """

    def __init__(self, model: nn.Module, data: Batches, counts: Tensor, sizes: Sizes, *, power: float):
        C, n, like = len(counts), int(counts.max()), next(model.parameters()).detach()
        self.counts, self.mass, filled = counts, like.new_zeros(C, C), [0] * C
        self.errors = {name: like.new_zeros(C, C, n, T, O) for name, (T, _, O) in sizes.items()}
        self.features = {name: like.new_zeros(C, n, T, D) for name, (T, D, _) in sizes.items()}
        for x, y in checked_batches(model, data):
            seen = capture(model, x, list(sizes), bias=True)
            weights = (seen.p**power / counts.sum())[:, :, None, None]  # [B, C, 1, 1]
            for c in y.unique().tolist():
                own = (y == c).nonzero()[:, 0]
                place = slice(filled[c], filled[c] + len(own))
                filled[c] += len(own)
                self.mass[c] += seen.p[own].sum(dim=0) / counts.sum()
                for name in sizes:
                    self.errors[name][c, :, place] = (weights[own] * seen.delta[name][own]).transpose(0, 1)
                    self.features[name][c, place] = seen.h[name][own]

    def pop(self, name: str) -> tuple[CrossClassSums, Tensor, Tensor]:
        """The class sums in coordinates of errors, the errors [C, C, nT, O] they are a view of, features [C, nT, D]."""
        errors = self.errors.pop(name).flatten(2, 3)
        features = self.features.pop(name).flatten(1, 2)
        return CrossClassSums(self.counts, self.mass, errors.flatten(2)), errors, features


def _factored_gram(found: CrossClassSums, errors: Tensor, features: Tensor, *, companion: bool) -> ClassGram:
    """The Gram matrix of one layer. Centring acts on labels alone, so it is the same for errors as for gradients."""
    structure = structure_of(found, companion=companion)
    same = structure.same_part.columns()  # [nTO, C]
    rows, same = structure.rows.view_as(errors), same.T.reshape(len(errors), *errors.shape[2:])
    C = len(rows)
    gram = torch.empty(C * C, C * C, dtype=torch.float64, device=rows.device)
    same_gram = gram.new_empty(C, C)
    step = max(1, C // 8)
    for d in range(0, C, step):
        others = slice(d, d + step)
        for c in range(d, C):
            may_stop()
            K = features[c] @ features[others].transpose(1, 2)  # [step, nT, nT]
            mixed = (K[:, None] @ rows[others]).flatten(0, 1).flatten(1)  # [step C, nTO]
            block = (rows[c].flatten(1) @ mixed.T).double()  # [C, step C]
            gram[c * C : (c + 1) * C, d * C : d * C + len(mixed)] = block
            gram[d * C : d * C + len(mixed), c * C : (c + 1) * C] = block.T
            same_gram[c, others] = same_gram[others, c] = ((K @ same[others]) * same[c]).sum(dim=(1, 2)).double()
    return ClassGram(structure.weights.double(), gram, same_gram)


def _add(total: ClassGram | None, part: ClassGram) -> ClassGram:
    if total is None:
        return part
    assert total.products is not None  # of all parameters at once there is but one
    total.products.add_(part.rows)
    total.same.add_(part.same)
    return total
