"""The class/cross-class decomposition G = G_class + G_cross + G_within + G_{c=c'} (Papyan 2020, Eq. 6.4, App. A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from repro.curvature.batches import Batches
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.gradients import CrossClassSums, cross_class_sums
from repro.curvature.origin import Origin
from repro.curvature.parameters import Selection
from repro.curvature.risk import RiskOperator
from repro.linalg.operator import LinearOperator, LowRank, Projected, may_stop, orthonormal_basis
from repro.spectra.exact import Part

SpannedPart = Literal["class", "cross", "same"]  # the parts that class and cross-class means span
Knockout = Literal["subtraction", "projection"]
SPANNED_PARTS: tuple[SpannedPart, ...] = ("class", "cross", "same")
PIECE = 1 << 16  # parameters
BLOCKS = 16
COMPANION_POWER = 0.5  # of p_{i,c,c'} in the companion's vectors


class ClassStructure(NamedTuple):
    """The parts of G that class and cross-class means span, kept as factors (C² x P numbers).

    With weights w_{c,c'} and means g_{c,c'} of the gradients of class c for the label c', w_c = Σ_{c'≠c} w_{c,c'} and
    g_c = Σ_{c'≠c} w_{c,c'} g_{c,c'} / w_c (Section 6). A class without examples has weight zero.

    Of K chosen classes it has those terms of the three parts in which c and c' are among them: Σ_c w_c g_c g_c^T over
    the chosen c, and Σ_{c,c'} w_{c,c'} (g_{c,c'} − g_c)(g_{c,c'} − g_c)^T over chosen pairs. The terms themselves stay
    as they are: N is the number of all examples, p_i is over all C classes, and w_c and g_c are over all labels c' ≠ c.
    So a knockout subtracts what these classes and pairs contribute, and `within_part` is all the rest of G: positive
    semidefinite, with the terms of the other classes in it. C in the shapes below is then K.

    >>> import torch
    >>> from torch import nn
    >>> from repro.curvature.gauss_newton import GaussNewton
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    >>> data = [(torch.randn(30, 4).double(), torch.arange(30) % 3)]
    >>> G, parts = GaussNewton(model, data), class_structure(model, data)
    >>> total = parts.class_part + parts.cross_part + parts.same_part + parts.within_part(G)  # Eq. 6.4
    >>> torch.allclose(total.dense(), G.dense())
    True
    """

    weights: Tensor  # [C, C]
    rows: Tensor  # [C, C, P]  √w_c g_c at (c, c), √w_{c,c'} (g_{c,c'} − g_c) at (c, c')
    same_part: LowRank  # G_{c=c'} = Σ_c w_{c,c} g_{c,c} g_{c,c}^T, rank <= C
    origin: Origin | None = None  # what it was computed from, where that is known
    classes: Tensor | None = None  # [K] those chosen, in the order of the rows; None for all
    others: Tensor | None = None  # [K] Σ w_{c,c'} over the labels that were not chosen; None where none is left out

    @property
    def class_part(self) -> LowRank:
        """G_class = Σ_c w_c g_c g_c^T, rank <= C."""
        columns = self.rows.diagonal()  # [P, C]
        return LowRank(columns, columns.new_ones(columns.shape[1]))

    def class_means(self) -> Tensor:  # -> [C, P]
        """The class means g_c; zero for a class without weight."""
        return inverse_root(class_totals(self.weights, self.others))[:, None] * self.rows.diagonal().T

    @property
    def cross_part(self) -> LowRank:
        """G_cross = Σ_c Σ_{c'≠c} w_{c,c'} (g_{c,c'} − g_c)(g_{c,c'} − g_c)^T, of the rank that `cross_rank` says."""
        others = 1 - torch.eye(len(self.rows), dtype=self.rows.dtype, device=self.rows.device)
        return LowRank(self.rows.flatten(0, 1).T, others.flatten())

    def part(self, name: SpannedPart) -> LowRank:
        """One of the three parts by name."""
        return {"class": self.class_part, "cross": self.cross_part, "same": self.same_part}[name]

    def within_part(self, G: LinearOperator) -> LinearOperator:
        """G_within = G minus the other three: exact; a product with it is one product with G and no further pass.

        Raises:
            ValueError: G is not the Gauss-Newton part, or is of other weights, parameters, data or with weight decay.
        """
        if isinstance(G, RiskOperator) and not isinstance(G, GaussNewton):
            raise ValueError(f"G_within is a part of a GaussNewton, not of a {type(G).__name__}")
        self._check_same(G)
        return G - self.class_part - self.cross_part - self.same_part

    def knockout(self, G: LinearOperator, part: Part, *, how: Knockout) -> LinearOperator:
        """G without one of its parts (Definitions 3.1-3.2): G − part, or (I − BB^T) G (I − BB^T), B spanning the part.

        The class part and G_{c=c'} span the same space (w_c g_c = −w_{c,c} g_{c,c}): a projection removes both. Of two
        classes the cross part is zero, and nothing is removed.

        Raises:
            ValueError: projection of G_within, which spans more than can be held; another word than these; a G as
                `within_part` refuses it.
        """
        if part not in (*SPANNED_PARTS, "within") or how not in ("subtraction", "projection"):
            raise ValueError(
                f"a knockout is subtraction or projection of class, cross, within or same, not the {how!r} of {part!r}"
            )
        self._check_same(G)
        if how == "projection":
            if part == "within":
                raise ValueError("G_within has no small basis to project out; use how='subtraction' for it")
            return Projected(G, self.basis(part))
        if part == "within":  # what is left is the sum of the others: no product with G
            return self.class_part + self.cross_part + self.same_part
        return G - self.part(part)

    def basis(self, part: SpannedPart) -> Tensor:  # [P, rank]
        """Orthonormal columns that span the range of a part, the largest eigenvalues of the part first.

        There are none if the part is zero, as G_cross is for two classes.
        """
        C = len(self.weights)
        return orthonormal_basis(self.part(part).columns())[:, : cross_rank(C, self.others) if part == "cross" else C]

    def _check_same(self, G: LinearOperator) -> None:
        if G.dim != self.rows.shape[2]:
            raise ValueError(f"G is of {G.dim} parameters, the class structure of {self.rows.shape[2]}")
        if isinstance(G, RiskOperator):
            check_has_parts(G)
            if self.origin:
                self.origin.check_same(G.origin(self.classes))

    def gram(self) -> ClassGram:
        """The inner products from which the eigenvalues of the three parts follow."""
        rows, C = self.rows.flatten(0, 1), len(self.rows)
        same = self.same_part.columns().T  # [C, P]
        short = rows.shape[1] < C * C
        products = None if short else _gram(rows)
        found = ClassGram(self.weights.double(), products, _gram(same), rows if short else None)
        return found if self.others is None else found._replace(others=self.others.double())


class ClassGram(NamedTuple):
    """Inner products over parameters of the rows of a `ClassStructure`, in float64, in the order (c, c').

    Where there are fewer parameters than rows, P < C², it has the rows themselves: eigenvalues then take P³ operations
    in place of C⁶, and C⁴ numbers are held only if someone asks for them.
    """

    weights: Tensor  # [C, C]
    products: Tensor | None  # [C², C²] of √w_c g_c and √w_{c,c'} (g_{c,c'} − g_c), or else
    same: Tensor  # [C, C] of √w_{c,c} g_{c,c}
    short_rows: Tensor | None = None  # [C², P]
    others: Tensor | None = None  # as in `ClassStructure`

    @property
    def rows(self) -> Tensor:  # [C², C²]
        """The inner products of all rows; computed at each call where P < C²."""
        return self.among(torch.ones_like(self.weights, dtype=torch.bool)) if self.products is None else self.products

    def among(self, chosen: Tensor) -> Tensor:  # [C, C] bool -> [K, K]
        """The inner products of some of the rows."""
        chosen = chosen.flatten()
        if self.short_rows is not None:
            return _gram(self.short_rows[chosen])
        assert self.products is not None
        return self.products[chosen][:, chosen]

    def eigenvalues(self, part: SpannedPart) -> Tensor:
        """All non-zero eigenvalues of a part in decreasing order: C of class and same, `cross_rank` of cross."""
        C = len(self.weights)
        if part == "same":
            return _leading_eigenvalues(self.same, C)
        if part == "class":
            return _leading_eigenvalues(self.among(self._own), C)
        if self.short_rows is not None:
            return _leading_eigenvalues(_gram(self.short_rows[~self._own.flatten()].T), cross_rank(C, self.others))
        return _leading_eigenvalues(self.among(~self._own), cross_rank(C, self.others))

    def eigenvalues_of_sum(self) -> Tensor:  # -> [C + cross_rank]
        """The eigenvalues of G_class + G_cross + G_{c=c'}, in decreasing order.

        Class c's column of G_{c=c'} is parallel to that of G_class, so both are one longer column; the companion's is
        not.
        """
        C = len(self.weights)
        own = self.among(self._own).diagonal()
        stretch = torch.where(own > 0, 1 + self.same.diagonal() / own, 1).sqrt()
        scale = torch.ones_like(self.weights).diagonal_scatter(stretch).flatten()
        rank = C + cross_rank(C, self.others)
        if self.short_rows is not None:
            return _leading_eigenvalues(_gram((scale.to(self.short_rows)[:, None] * self.short_rows).T), rank)
        return _leading_eigenvalues(scale[:, None] * self.rows * scale, rank)

    @property
    def _own(self) -> Tensor:  # [C, C]
        return torch.eye(len(self.weights), dtype=torch.bool, device=self.weights.device)

    def orthonormal(self, part: SpannedPart, precision: float) -> Tensor:  # -> [C², rank]
        """Coefficients with which the rows make up orthonormal vectors that span the class or the cross part.

        The rows are brought to the same length first: one of a class that is nearly certain is as much of the span.
        The same part has the span of the class part.

        Args:
            precision: of the network's arithmetic, relative to one; directions hardly longer count as rounding.
        """
        C, own = len(self.weights), self._own.flatten()
        chosen, rank = (~own, cross_rank(C, self.others)) if part == "cross" else (own, C)
        rows = self.short_rows
        squares = self.rows.diagonal() if rows is None else rows.double().square().sum(dim=1)
        scale = inverse_root(torch.where(chosen, squares, 0))[:, None]
        A = scale * (self.rows * scale.T if rows is None else rows)
        values, vectors = torch.linalg.eigh(A if rows is None else _gram(A.T))
        values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
        kept = values > max(100 * precision, 1e-7) ** 2
        values, vectors = values[kept], vectors[:, kept]
        return scale * (vectors / values.sqrt() if rows is None else A @ vectors / values)

    def class_means(self) -> Tensor:  # [C, C]
        """Inner products of the class means g_c alone, which take no memory beside the result."""
        scale = inverse_root(class_totals(self.weights, self.others))
        return scale[:, None] * self.among(self._own) * scale

    def means(self) -> Tensor:  # [C², C²]
        """Inner products of the means themselves: of g_c at (c, c) and of g_{c,c'} at (c, c')."""
        C, own = len(self.weights), self._own
        totals = class_totals(self.weights, self.others)
        scale = inverse_root(torch.where(own, totals[:, None], self.weights)).flatten()
        gram = (scale[:, None] * self.rows * scale).view(C, C, C * C)
        for _ in range(2):  # g_{c,c'} = (g_{c,c'} − g_c) + g_c, for the rows, then for the columns
            gram = gram + gram.diagonal().T[:, None] * ~own[:, :, None]
            gram = gram.flatten(0, 1).T.reshape(C, C, C * C)
        return gram.flatten(0, 1)


def class_structure(
    model: nn.Module,
    data: Batches,
    *,
    parameters: Selection = None,
    entries: tuple[int, int] | None = None,
    classes: Sequence[int] | None = None,
) -> ClassStructure:
    """The decomposition (6.4) of G of `model` on `data`, in one pass of (1 + 2 C) / 3 gradients.

    Args as in `cross_class_sums`; the rows take its memory, C² x P numbers, or K² x P of K chosen classes.
    """
    return structure_of(cross_class_sums(model, data, parameters=parameters, entries=entries, classes=classes))


def companion_structure(
    model: nn.Module,
    data: Batches,
    *,
    parameters: Selection = None,
    entries: tuple[int, int] | None = None,
    classes: Sequence[int] | None = None,
) -> ClassStructure:
    """The older, unweighted decomposition G = G0 + G1 + G2 + G3 (Papyan 2019, arXiv 1901.08244).

    Its vectors are δ_{i,c,c'} = √p_{i,c,c'} g_{i,c,c'} (there with a minus, which no part sees) and its means plain:
    G0 = Σ_c n_c/N δ_{c,c} δ_{c,c}^T is `same_part`, G1 = (C−1) Σ_c n_c/N δ_c δ_c^T `class_part`,
    G2 = (C−1) Σ_c n_c/N Σ_c `cross_part` and G3 `within_part`, with δ_c and Σ_c the mean and the covariance of
    δ_{c,c'} over c' ≠ c. So `weights[c, c']` = n_c/N for every c'.
    """
    power = COMPANION_POWER
    found = cross_class_sums(model, data, parameters=parameters, entries=entries, power=power, classes=classes)
    return structure_of(found, companion=True)


def structure_of(found: CrossClassSums, *, companion: bool = False) -> ClassStructure:
    """The decomposition from the sums over cross-classes, which become its rows without a copy.

    Args:
        found: from `cross_class_sums`, with power 1/2 for the companion. Its last axis may be any coordinates in which
            the gradients are linear.
        companion: the unweighted decomposition instead of the paper's.
    """
    counts, mass, sums, origin, chosen = found
    left = None if chosen is None or not chosen.left else chosen
    classes, others = None if chosen is None else chosen.classes, None if left is None else left.mass
    if not companion:
        class_weights, own = _center(mass, sums, others), mass.diagonal()
        # w_{c,c} g_{c,c} = −w_c g_c, so G_{c=c'} needs no columns of its own
        same = torch.where(own >= torch.finfo(own.dtype).tiny, class_weights / own, 0)
        return ClassStructure(mass, sums, LowRank(sums.diagonal(), same), origin, classes, others)
    shares = counts.to(mass.dtype) / (counts.sum() if chosen is None else chosen.examples)  # n_c/N
    weights = shares[:, None].expand_as(mass).contiguous()
    columns = sums.diagonal() * inverse_root(shares)  # [P, C]
    for c, row in enumerate(sums):
        row[c] -= row.sum(dim=0)  # minus the sum over c' ≠ c, which for the paper's weights is there already
    if left is not None and left.sums is not None:
        sums.diagonal().sub_(left.sums.T)
        others = left.left * shares
    _center(weights, sums, others)
    same_part = LowRank(columns, columns.new_ones(columns.shape[1]))
    return ClassStructure(weights, sums, same_part, origin, classes, others)


def check_has_parts(G: RiskOperator) -> None:
    """Refuse a G that the decomposition (6.4) is not of.

    Raises:
        ValueError: it has weight decay or class weights, or is of another loss than the cross-entropy of class labels.
    """
    if G.weight_decay or G.cross_entropy().class_weights is not None:
        raise ValueError("G has weight decay or class weights, which its parts do not have: compute a G without them")


def inverse_root(w: Tensor) -> Tensor:
    """w^(-1/2), and zero where w is zero but for underflow: a mean over nothing has no weight."""
    positive = w >= torch.finfo(w.dtype).tiny
    return torch.where(positive, w, 1).rsqrt() * positive


def _leading_eigenvalues(gram: Tensor, count: int) -> Tensor:  # [n, n] -> [count]
    """In decreasing order, none of them negative; zeros follow where there are fewer."""
    found = torch.linalg.eigvalsh(gram).flip(0)[:count].clamp(min=0)
    return torch.cat([found, found.new_zeros(count - len(found))])


def _gram(rows: Tensor) -> Tensor:  # [K, P] -> [K, K]
    """Inner products of all rows, block by block: half the products, no temporary as large as the result."""
    K = len(rows)
    gram = torch.empty(K, K, dtype=torch.float64, device=rows.device)
    step = max(1, -(-K // BLOCKS))
    for a in range(0, K, step):
        may_stop()
        gram[a : a + step, : a + step] = _inner_products(rows[a : a + step], rows[: a + step])
        gram[:a, a : a + step] = gram[a : a + step, :a].T
    return gram


def _inner_products(A: Tensor, B: Tensor) -> Tensor:  # [K, P], [L, P] -> [K, L]
    """A B^T, added up in float64 over pieces: over millions of parameters a float32 sum keeps only four digits."""
    total = torch.zeros(len(A), len(B), dtype=torch.float64, device=A.device)
    for a, b in zip(A.split(PIECE, dim=1), B.split(PIECE, dim=1)):
        total += a @ b.T
    return total


def class_totals(weights: Tensor, others: Tensor | None = None) -> Tensor:  # [C, C], [C] -> [C]
    """w_c = Σ_{c'≠c} w_{c,c'}, not as a difference with w_{c,c}, which dominates at a fit.

    Args:
        others: what labels that are not among `weights` add to it.
    """
    totals = (weights - weights.diagonal().diag()).sum(dim=1)
    return totals if others is None else totals + others


def cross_rank(classes: int, others: Tensor | None) -> int:
    """How many eigenvalues of the cross part may differ from zero.

    Of the C − 1 rows of a class one follows from the rest, as Σ_{c'≠c} w_{c,c'} (g_{c,c'} − g_c) = 0, unless the sum is
    over some of the labels alone.
    """
    return classes * (classes - (2 if others is None else 1))


def _center(weights: Tensor, sums: Tensor, others: Tensor | None) -> Tensor:  # [C, C], [C, C, P], [C] -> w_c [C]
    """Turn the sums w_{c,c'} g_{c,c'} into the rows of `ClassStructure`, in place: without a second copy of them.

    sums[c, c] must hold minus the sum over c' ≠ c. For the paper's weights it is that by itself (Σ_{c'} p g = 0), and
    more accurately than added up: the terms of the sum cancel where p_c is small.
    """
    class_weights = class_totals(weights, others)
    scale, class_scale = inverse_root(weights), inverse_root(class_weights)
    for c in range(len(weights)):
        class_row = -class_scale[c] * sums[c, c]  # √w_c g_c
        sums[c] *= scale[c][:, None]
        sums[c].addr_(weights[c].sqrt(), class_row * class_scale[c], alpha=-1)
        sums[c, c] = class_row
    return class_weights
