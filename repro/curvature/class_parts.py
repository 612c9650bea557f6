"""Products with the parts of G, and what they contribute to a vector, without their C² means (Papyan 2020, Eq. 6.4).

Let t_i = J_i v [C] be the derivative of example i's logits along v, s_i = (diag(p_i) − p_i p_iᵀ) t_i, and σ_c [C] the
sum of s_i / N over the examples of class c. The sums of gradients that the means consist of satisfy

    <Σ_{i of class c} p_{i,c,c'} g_{i,c,c'} / N, v> = −σ_{c,c'},

so the rows of a part (see `cross_class.ClassStructure`) are combinations L_c [R, C] of them, which weights decide:

    part v = Σ_i J_iᵀ (diag(p_i) − p_i p_iᵀ) L_cᵀ L_c σ_c / N,    c the class of i.

G without some of its parts is thus G with other t_i: a product costs what one with G costs, and nothing of the size of
the means, C² P numbers, is ever held.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from repro.curvature.checks import check_range, class_list
from repro.curvature.cross_class import SPANNED_PARTS, SpannedPart, check_has_parts, class_totals, inverse_root
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.loss import curvature, errors
from repro.curvature.risk import RiskOperator
from repro.linalg.operator import LinearOperator, orthonormal_basis


class ClassParts:
    """The class part, the cross part and G_{c=c'} of a G, known by the derivatives of its logits.

    Of K chosen classes these are the terms that `cross_class.ClassStructure` has of them; they take the σ_{c,c'} of
    chosen pairs alone, and C in the shapes below is K.

    Args:
        classes: those chosen; None for all.

    Raises:
        ValueError: G has weight decay or class weights, which its parts do not have; a class that it does not have.
    """

    def __init__(self, G: GaussNewton, classes: Sequence[int] | None = None):
        check_has_parts(G)
        self.G, self.examples, total = G, len(G.labels), G.probabilities.shape[1]
        wanted = class_list(classes) or list(range(total))
        check_range(wanted, total)
        self.classes = torch.tensor(wanted, device=G.device)
        mass = G.mass_of(self.classes).double()  # [C, all classes]
        self.weights = mass[:, self.classes]
        self.rows = row_factors(self.weights, mass.index_fill(1, self.classes, 0).sum(dim=1))
        self.members = (G.labels[:, None] == self.classes).double()  # [N, C]

    def factors(self, part: SpannedPart) -> Tensor:  # -> [C, R, C]
        """L_c of each class for a part."""
        own = torch.eye(len(self.rows), dtype=torch.bool, device=self.rows.device)
        if part == "cross":
            return self.rows.masked_fill(own[:, :, None], 0)
        if part == "class":
            return self.rows[own][:, None]
        return (inverse_root(self.weights.diagonal()).diag())[:, None]

    def without(self, parts: Collection[SpannedPart]) -> LinearOperator:
        """G minus some of the parts; all three leave G_within."""
        return Remainder(self, sum(L.mT @ L for L in map(self.factors, parts)))  # type: ignore[arg-type]

    def sums(self, s: Tensor) -> Tensor:  # [V, N, all classes] -> [V, C, C]
        """σ, in float64."""
        return torch.einsum("nc,knj->kcj", self.members, s[:, :, self.classes].double()) / self.examples

    def contributions(self, U: Tensor) -> dict[str, Tensor]:  # [P, K] -> [K] each
        """uᵀ part u of each column u for the three parts, and uᵀ G u under "whole"."""
        t = self.G.tangents(U)
        s = self.weighted(t)
        sums = self.sums(s)
        found = {p: torch.einsum("crj,kcj->kcr", self.factors(p), sums).square().sum(dim=(1, 2)) for p in SPANNED_PARTS}
        whole = (t.double() * s.double()).sum(dim=(1, 2)) / self.examples
        return {name: value.to(U) for name, value in (found | {"whole": whole}).items()}  # type: ignore[operator]

    def coordinates(self, U: Tensor) -> Tensor:  # [P, K] -> [C², K]
        """Inner products of the rows (c, c') of `ClassStructure` with each column, in float64."""
        sums = self.sums(self.weighted(self.G.tangents(U)))
        return -torch.einsum("crj,kcj->crk", self.rows, sums).flatten(0, 1)

    def weighted(self, t: Tensor) -> Tensor:  # [K, N, C] -> [K, N, C]
        """(diag(p_i) − p_i p_iᵀ) t_i of each example."""
        p = self.G.probabilities
        return torch.stack([curvature(p, of_vector) for of_vector in t])


class Remainder(LinearOperator):
    """G minus parts of it: (1/N) Σ_i J_iᵀ (diag(p_i) − p_i p_iᵀ) (t_i − M_c σ_c), M_c = Σ L_cᵀ L_c over the parts."""

    def __init__(self, parts: ClassParts, M: Tensor):  # M [C, C, C]
        G = parts.G
        super().__init__(torch.empty(1, dtype=G.dtype, device=G.device).expand(G.dim))
        self.parts, self.M = parts, M

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        RiskOperator.counted += V.shape[1]
        parts = self.parts
        t = parts.G.tangents(V)
        taken = torch.einsum("cij,kcj->kci", self.M, parts.sums(parts.weighted(t)))
        t.index_add_(2, parts.classes, torch.einsum("nc,kci->kni", parts.members, taken).to(t), alpha=-1)
        return parts.G.pull_back(parts.weighted(t) / parts.examples)


def class_mean_span(G: GaussNewton) -> Tensor:  # -> [P, rank]
    """Orthonormal columns that span the class means g_c of the gradients; a class without examples adds none.

    As Σ_{c'} p_{i,c'} g_{i,c,c'} = 0, w_c g_c is minus the sum of p_{i,c} g_{i,c,c} / N, of gradients for the own label
    alone. Each is brought to the same length, as one of a class that is nearly certain is as much of the span. It takes
    a backward pass for each class, and N C² numbers beside the columns.
    """
    y = G.labels
    own = G.probabilities.gather(1, y[:, None]) * errors(G.probabilities, y)  # [N, C]
    members = one_hot(y, own.shape[1]).to(own)
    members = members[:, members.any(dim=0)]
    columns = G.pull_back(members.T[:, :, None] * own)
    lengths = columns.norm(dim=0)
    return orthonormal_basis(columns[:, lengths > 0] / lengths[lengths > 0])


def row_factors(weights: Tensor, others: Tensor | None = None) -> Tensor:  # [C, C], [C] -> [C, C, C]
    """L_c for all rows (c, c'), from the weights w_{c,c'}, in the place of sums of gradients: see `ClassStructure`.

    Row (c, c) is √w_c g_c = −(the own sum) / √w_c, row (c, c') is √w_{c,c'} (g_{c,c'} − g_c); zero without weight.
    """
    scale, totals = inverse_root(weights), inverse_root(class_totals(weights, others))
    rows = torch.diag_embed(scale)
    for c in range(len(weights)):
        rows[c, :, c] += weights[c].sqrt() * totals[c] ** 2
        rows[c, c] = 0
        rows[c, c, c] = -totals[c]
    return rows
