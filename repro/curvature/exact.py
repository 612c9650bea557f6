"""Every eigenvalue of G, exactly, and where each comes from (Papyan 2020, Section 6, without Lanczos).

G = Σ b bᵀ over N (C − 1) rows b, so its non-zero eigenvalues are those of the matrix K of their inner products, however
many parameters there are; a network with fewer parameters than rows goes by G itself. Class and cross-class means are
combinations of rows, so the spectra of the four parts and of G without them follow from K by dense algebra alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from repro.curvature import checks
from repro.curvature.classifier import prepared
from repro.curvature.cross_class import SPANNED_PARTS, Knockout
from repro.curvature.eigen_parts import EigenParts
from repro.curvature.evaluation import evaluation
from repro.curvature.example_gradients import ExampleGradients
from repro.curvature.function import logits_of
from repro.curvature.inputs import Inputs, join, one_row_each, split, take
from repro.curvature.layers import SOME
from repro.curvature.parameters import in_place
from repro.curvature.proof import prove_gradients
from repro.curvature.risk import Batches, Parameters, Selection
from repro.curvature.row_gram import row_gram, small_batches
from repro.curvature.row_plan import TEMPORARY, Plan, make_plan
from repro.curvature.softmax_root import ClassWeights, SoftmaxRoot, class_weights, mean_columns, softmax_root
from repro.linalg.coordinates import eigen_coordinates
from repro.spectra.exact import PARTS, ExactSpectrum, Part, knockout_name

SUBTRACTED: list[tuple[Part, ...]] = [
    ("class",),
    ("cross",),
    ("same",),
    ("class", "cross"),
    ("within",),
    ("class", "cross", "same"),  # leaves G_within
]
PROJECTED: list[tuple[Part, ...]] = [("class",), ("cross",), ("class", "cross")]

log = logging.getLogger(__name__)


class Examined(NamedTuple):
    """All examples, after one pass over the data."""

    data: list[tuple[Inputs, Tensor]]
    root: SoftmaxRoot  # of their N logits
    labels: Tensor  # [N]

    @property
    def classes(self) -> int:
        """C."""
        return self.root.log_p.shape[1]

    @property
    def few(self) -> Inputs:
        """The first examples, each with a single row of logits."""
        x = self.data[0][0]
        return join([take(one_row_each(one), slice(0, 1)) for one in split(take(x, slice(0, SOME)), 1)])

    @property
    def rows(self) -> int:
        """N (C − 1)."""
        return len(self.labels) * (self.classes - 1)


def exact_spectrum(
    model: nn.Module,
    data: Batches,
    *,
    parameters: Selection = None,
    knockouts: Sequence[Knockout] = ("subtraction",),
    memory_budget: int = 8 << 30,
) -> ExactSpectrum:
    """All eigenvalues of G of `model` on `data`, what each part contributes to each, and the spectra without the parts.

    Exact to rounding: relative to the largest eigenvalue about 1e-14 for a network in float64, and for one in float32
    what its gradients are. Time: 2 (1 + 2 C) / 3 gradients of the data, N² C² times the cost of an inner product of
    gradients (see `row_plan`), and some N³ C³ for the eigenvalues, several times with knockouts.

    Args:
        model, data, parameters: as for `repro.curvature.gauss_newton.GaussNewton`.
        knockouts: which ones to compute: "subtraction", "projection" (Definitions 3.1 and 3.2), both or none.
        memory_budget: bytes. At least 24 (N (C − 1))² are needed, or 24 P² where that is less.

    Raises:
        ValueError: more memory is needed; data or a model that `checks` refuses; a network whose gradients are not its
            derivatives, see `repro.curvature.proof`; a knockout of another name.
    """
    wanted = _checked(knockouts)
    model, batches = prepared(model, data)
    examples = examine(model, batches)
    layout = Parameters(model, parameters)
    by_parameters = layout.dim < examples.rows
    n, (N, C), device = min(layout.dim, examples.rows), examples.root.log_p.shape, examples.labels.device
    matrix = f"{n} parameters" if by_parameters else f"the inner products of {n} rows"
    _check_memory(dense_memory(n, C, device), memory_budget, matrix)
    check_derivatives(model, examples, layout)
    weights = class_weights(examples.root.log_p, examples.labels)  # C² numbers
    if by_parameters:
        _say_memory(dense_memory(n, C, device), matrix)
        solved = _from_parameters(model, layout, examples, weights)
    else:
        plan = make_plan(model, examples.few, layout, examples=N, classes=C, budget=memory_budget - 8 * n * n)
        _say_memory(max(dense_memory(n, C, device), 8 * n * n + plan.held + 4 * plan.temporary), matrix)
        solved = _from_rows(model, plan, examples, weights)
    return _record(solved, wanted, layout.dim, weights)


def _checked(knockouts: Sequence[Knockout]) -> tuple[str, ...]:
    wanted = (knockouts,) if isinstance(knockouts, str) else tuple(knockouts)
    if unknown := [how for how in wanted if how not in ("subtraction", "projection")]:
        raise ValueError(f"a knockout is 'subtraction' or 'projection', not {unknown[0]!r}")
    return wanted


def examine(model: nn.Module, data: Batches) -> Examined:
    """Check model and data in one pass, and keep the probabilities; both as `classifier.prepared` gives them."""
    checks.check_deterministic(model)
    like = next(model.parameters())
    batches, roots = list(data), []
    for i, (x, y) in enumerate(batches):
        checks.check_batch(x, y, like)
        batches[i] = x, y.long()
        logits = logits_of(model, x)
        checks.check_logits(logits, y)
        if logits.shape[1] < 2:
            raise ValueError("the model has 1 logit: cross-entropy and its curvature need at least 2 classes")
        roots.append(softmax_root(logits).log_p)
    log_p, y = torch.cat(roots), torch.cat([y for _, y in batches])
    return Examined(batches, SoftmaxRoot(log_p), y)


def dense_memory(n: int, classes: int, device: torch.device) -> int:
    """Bytes that the eigenvalues of an n x n matrix and the means in its eigenvectors take at their peak."""
    matrices = 3 if device.type == "cpu" else 4
    return 8 * n * (matrices * n + 5 * classes**2)


def _check_memory(needed: int, budget: int, matrix: str) -> None:
    if needed > budget:
        raise ValueError(
            f"the exact spectrum of G comes from {matrix} and needs {needed / 2**30:.1f} GiB of memory, more than"
            f" memory_budget = {budget / 2**30:.1f} GiB: raise it, take fewer examples, or estimate the spectrum by"
            " Lanczos (repro.knockouts)"
        )


def _say_memory(peak: int, matrix: str) -> None:
    log.info("exact spectrum of G from %s: %.2f GiB at most", matrix, peak / 2**30)


def _from_rows(model: nn.Module, plan: Plan, examples: Examined, weights: ClassWeights) -> EigenParts:
    """By the inner products of the rows."""
    K = _checked_finite(row_gram(model, examples.data, examples.root, plan))
    M = mean_columns(examples.root, examples.labels, weights).flatten(0, 1).flatten(1)  # [n, C²]
    KM = K @ M
    gram = M.T @ KM
    eigenvalues, turned = eigen_coordinates(K, torch.cat([M, KM], dim=1))
    return _parts(model, eigenvalues, _means(eigenvalues, turned, KM.norm(dim=0)), gram)


def _means(eigenvalues: Tensor, turned: Tensor, sizes: Tensor) -> Tensor:  # [n], [n, 2 C²], [C²] -> [n, C²]
    """The means Rᵀ m in the eigenvectors Rᵀ y / √λ of G: √λ <y, m>, or <y, K m> / √λ where that is rounded less."""
    root = eigenvalues.clamp(min=0).sqrt()[:, None]
    m, Km = turned.chunk(2, dim=1)
    return torch.where(sizes < eigenvalues[:, None], Km / torch.where(root > 0, root, 1), root * m)


def _from_parameters(model: nn.Module, layout: Parameters, examples: Examined, weights: ClassWeights) -> EigenParts:
    """By G itself, for a network with fewer parameters than there are rows."""
    C, P, log_p = examples.classes, layout.dim, examples.root.log_p
    like = next(model.parameters())
    G, means = log_p.new_zeros(P, P), log_p.new_zeros(P, C * C)
    gradients = ExampleGradients(model, layout.names)
    for x, place in small_batches(examples.data, 16 * (C - 1) * P, TEMPORARY[log_p.device.type]):
        root = SoftmaxRoot(log_p[place])
        rows = gradients(x, root.cotangents().to(like.dtype)).double()
        rows = (rows * (root.scale / len(log_p) ** 0.5)[:, :, None]).flatten(0, 1)  # [B (C-1), P]
        G.addmm_(rows.T, rows)
        means.addmm_(rows.T, mean_columns(root, examples.labels[place], weights).flatten(0, 1).flatten(1))
    gram = means.T @ means
    return _parts(model, *eigen_coordinates(_checked_finite(G), means), gram)


def _parts(model: nn.Module, eigenvalues: Tensor, means: Tensor, gram: Tensor) -> EigenParts:
    C = round(len(gram) ** 0.5)
    precision = torch.finfo(next(model.parameters()).dtype).eps
    return EigenParts(eigenvalues, means.view(-1, C, C), gram.view(C, C, C, C), precision)


def _checked_finite(matrix: Tensor) -> Tensor:
    if not bool(torch.isfinite(matrix.diagonal().sum())):
        raise ValueError("gradients of the network overflow, so G is not finite: check weights and inputs")
    return matrix


def check_derivatives(model: nn.Module, examples: Examined, layout: Parameters) -> None:
    """Refuse parameters of which none enters the logits, and a network whose gradients are not its derivatives.

    Raises:
        ValueError: see `repro.curvature.proof`.
    """
    with in_place(model, {}, layout.names), evaluation(model):
        logits = model(take(examples.few, slice(0, 1)))
    if not logits.requires_grad:
        raise ValueError(f"the model's output depends on none of the parameters {layout.names}")
    prove_gradients(model, layout, examples.data)


def _record(solved: EigenParts, knockouts: Sequence[str], dim: int, weights: ClassWeights) -> ExactSpectrum:
    """Everything as numbers."""
    found: dict[str, Tensor] = {"eigenvalues": solved.eigenvalues}
    found |= {f"share_{part}": share for part, share in solved.shares().items()}
    found |= {f"overlap_{part}": solved.overlaps(part) for part in SPANNED_PARTS[:2]}
    found["class_cosines"] = solved.class_cosines()
    found |= {f"{part}_part": solved.of([part]) for part in SPANNED_PARTS}
    found["within_largest"] = solved.largest_within()
    if "subtraction" in knockouts:
        for parts in SUBTRACTED:
            left = [part for part in PARTS if part not in parts]
            found[knockout_name(parts, "subtraction")] = solved.of(left)
    if "projection" in knockouts:
        found |= {knockout_name(parts, "projection"): solved.projected(parts) for parts in PROJECTED}
    arrays = {name: value.cpu().numpy() for name, value in (found | {"mass": weights.mass}).items()}
    return ExactSpectrum({**arrays, "dim": np.array(dim), "resolution": np.array(solved.resolution)})
