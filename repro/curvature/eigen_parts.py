"""The spectrum of G and of sums of its four parts, when all eigenvalues and the means in eigenvectors are known.

In the coordinates of its eigenvectors G is the diagonal matrix Λ, and class, cross and same are E Eᵀ with few columns E
each. So what is left of G without some of them is Λ − E Eᵀ: a dense matrix again, and no approximation.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor

from repro.spectra.exact import PARTS, Part

SMALL = 64  # a matrix of fewer rows is solved as a dense one


class EigenParts:
    """All eigenvalues of G that may be non-zero, and its class and cross-class means in its eigenvectors.

    Args:
        eigenvalues: [R] in decreasing order, R = min(N (C − 1), P).
        means: [R, C, C], the means in the eigenvectors: [:, c, 0] is √w_c g_c, [:, c, 1] is √w_{c,c} g_{c,c} and
            [:, c, 2:] make up class c's share of G_cross (see `softmax_root.mean_columns`).
        gram: [C, C, C, C], their inner products.
        precision: of the network's arithmetic, relative to one.
    """

    def __init__(self, eigenvalues: Tensor, means: Tensor, gram: Tensor, precision: float):
        self.eigenvalues, self.means, self.gram, self.precision = eigenvalues.clamp(min=0), means, gram, precision

    @property
    def resolution(self) -> float:
        """Eigenvalues below it are zero to rounding, and their eigenvectors any in the kernel.

        G is added up in float64; what rounding in the network changes in its rows enters squared.
        """
        relative = len(self.eigenvalues) ** 0.5 * torch.finfo(torch.float64).eps + self.precision**2
        return float(self.eigenvalues[0]) * relative

    def shares(self) -> dict[Part, Tensor]:  # [R] each
        """uᵀ part u / λ for each eigenpair (λ, u) of G: what each part contributes. They sum to one; NaN without λ."""
        known = torch.where(self.eigenvalues > self.resolution, self.eigenvalues, torch.nan)
        found: dict[Part, Tensor] = {
            part: self._columns([part]).square().sum(dim=1) / known for part in ("class", "cross", "same")
        }
        found["within"] = 1 - torch.stack(list(found.values())).sum(dim=0)
        return {part: found[part] for part in PARTS}

    def of(self, parts: Collection[Part]) -> Tensor:
        """All eigenvalues that may be non-zero, in decreasing order, of the sum of some of the four parts."""
        missing = [part for part in PARTS if part not in parts]
        if "within" in parts:
            return self._dense(self._columns(missing)) if missing else self.eigenvalues
        C = self.means.shape[1]
        chosen = self._places(parts)
        rank = C * ("class" in parts or "same" in parts) + C * (C - 2) * ("cross" in parts)
        gram = self.gram[:, :, :, chosen][:, chosen].flatten(2).flatten(0, 1)
        return torch.linalg.eigvalsh(gram).flip(0)[: min(rank, len(self.eigenvalues))].clamp(min=0)

    def largest_within(self) -> Tensor:  # -> []
        """The largest eigenvalue of G_within: `of(["within"])[0]` to rounding, in a fraction of the time."""
        R, columns = len(self.eigenvalues), self._columns(["class", "cross", "same"])
        if R < SMALL:
            return self._dense(columns)[0]

        def multiply(v: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(v).to(columns)
            return (self.eigenvalues * x - columns @ (columns.T @ x)).cpu().numpy()

        A = scipy.sparse.linalg.LinearOperator((R, R), matvec=multiply, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(R)
        top = scipy.sparse.linalg.eigsh(A, k=1, which="LA", v0=start, return_eigenvectors=False)
        return self.eigenvalues.new_tensor(float(top[0])).clamp(min=0)

    def projected(self, parts: Collection[Part]) -> Tensor:  # -> [R]
        """The eigenvalues of (I − B Bᵀ) G (I − B Bᵀ), B an orthonormal basis of the range of class, cross or both."""
        B = self.basis(parts)
        BL = B * self.eigenvalues[:, None]
        X = B @ ((B.T @ BL) @ B.T - BL.T)
        return self._eigenvalues(X.sub_(BL @ B.T))

    def overlaps(self, part: Part) -> Tensor:  # -> [R]
        """Squared length of the projection of each eigenvector onto the range of a spanned part; NaN without λ."""
        overlaps = self.basis([part]).square().sum(dim=1)
        return torch.where(self.eigenvalues > self.resolution, overlaps, torch.nan)

    def class_cosines(self) -> Tensor:  # -> [C] or fewer
        """Cosines of the principal angles between the top C eigenvectors and span{g_c}, the largest first."""
        return torch.linalg.svdvals(self.basis(["class"])[: self.means.shape[1]]).clamp(max=1)

    def basis(self, parts: Collection[Part]) -> Tensor:  # -> [R, rank]
        """Orthonormal columns that span class, cross or both; G_{c=c'} has the range of G_class.

        The means are brought to the same length first: one of a class that is nearly certain is as much of the span.
        """
        columns = self._columns(["class" if part == "same" else part for part in parts])
        lengths = columns.norm(dim=0)
        columns = columns[:, lengths > 0] / lengths[lengths > 0]
        U, singular, _ = torch.linalg.svd(columns, full_matrices=False)
        return U[:, singular > max(100 * self.precision, 1e-10)]

    def _places(self, parts: Collection[Part]) -> list[int]:
        C = self.means.shape[1]
        places = {"class": [0], "same": [1], "cross": [*range(2, C)], "within": []}
        return [place for part in PARTS if part in parts for place in places[part]]

    def _columns(self, parts: Collection[Part]) -> Tensor:  # -> [R, K]
        return self.means[:, :, self._places(parts)].flatten(1)

    def _dense(self, columns: Tensor) -> Tensor:  # [R, K] -> [R]
        return self._eigenvalues((columns @ columns.T).neg_())

    def _eigenvalues(self, change: Tensor) -> Tensor:  # [R, R] -> [R]
        """Of Λ + change, which is positive semidefinite."""
        change.diagonal().add_(self.eigenvalues)
        return torch.linalg.eigvalsh(change).flip(0).clamp(min=0)
