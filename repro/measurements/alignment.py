"""Attribution in numbers: top eigenvectors of Hess and G against class and cross-class means (the paper has none)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from repro.curvature.cross_class import SPANNED_PARTS, ClassStructure, class_structure, companion_structure
from repro.curvature.exact import exact_spectrum
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian
from repro.linalg.eigenpairs import Eigenpairs, top_eigenpairs
from repro.linalg.operator import LinearOperator
from repro.measurements.settings import EXACT_LIMIT, check_count
from repro.spectra.exact import PARTS, ExactSpectrum

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 3


@dataclass
class EigenpairSettings:
    """How leading eigenpairs are found; see `repro.linalg.eigenpairs.top_eigenpairs`."""

    tolerance: float = 1e-2  # relative residual at which an eigenpair counts as converged (ours)
    max_products: int | None = None  # at most so many products with each matrix; None: 120, or 4 C where that is more
    basis_bytes: float = 8e9  # memory of the Lanczos basis (ours)
    graph_bytes: float = 4e9  # memory for the graphs that the matrix keeps between its products (ours)
    seed: int = 0  # of the starting vector (ours)

    def largest(self, A: LinearOperator, k: int, *, classes: int) -> Eigenpairs:
        """The k algebraically largest eigenpairs of A."""
        return top_eigenpairs(
            A,
            min(k, A.dim),
            tolerance=self.tolerance,
            max_products=max(120, 4 * classes) if self.max_products is None else self.max_products,
            memory_budget=int(self.basis_bytes),
            seed=self.seed,
            by="largest",
        )


@dataclass
class Settings(EigenpairSettings):
    """How many eigenpairs, and how they are found."""

    eigenvectors: int | None = None  # K of each matrix, the largest; None: 2 C, the outliers and as many below (ours)
    exact_limit: int = (
        EXACT_LIMIT  # examples times classes up to which G is taken by its exact spectrum; 0: never (ours)
    )
    exact_bytes: float = 8e9  # memory of the exact spectrum, 24 (N C)^2 at least (ours)

    def __post_init__(self) -> None:
        check_count("eigenvectors", self.eigenvectors, least=1)
        check_count("exact_limit", self.exact_limit, least=0)


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Shares, overlaps and principal angles of the largest eigenpairs of Hess and of G on the training set.

    Those of Hess are by Lanczos with restarts; those of G by its exact spectrum where the data are few enough, of zero
    residual, but for hessian_gauss_newton_cosines, which take eigenvectors as such.

    Returns, for <m> = hessian and gauss_newton:
        <m>_eigenvalues, <m>_residuals (absolute), <m>_converged [K].
        <m>_share_<part> [K]: u^T part u / λ for part = class, cross, same, within, residual (E = Hess − G). They add
            up to one (residual is zero for G).
        <m>_overlap_<part> [K]: squared length of the projection of u onto the span of G_class or G_cross, in [0, 1].
        <m>_class_cosines [C]: cosines of the principal angles between the top C eigenvectors and span{g_c}.
        hessian_gauss_newton_cosines [C]: the same between the top C eigenvectors of Hess and those of G.
        class_part [C], cross_part [C (C − 2)], companion_class_part [C]: eigenvalues of G_class, G_cross and G1.
        dim: P; a random vector overlaps with C directions by C / P.
    """
    network.check_every_class()
    data, C, graphs = network.batches(), network.classes, int(settings.graph_bytes)
    G, H = (kind(network.model, data, memory_budget=graphs) for kind in (GaussNewton, Hessian))
    structure = class_structure(network.model, data)
    bases = {part: structure.basis(part) for part in ("class", "cross")}  # type: ignore[arg-type]
    arrays: dict[str, np.ndarray] = {"dim": np.array(G.dim)}
    top: dict[str, Tensor] = {}
    exact = len(network.train.labels) * C <= settings.exact_limit
    count = 2 * C if settings.eigenvectors is None else settings.eigenvectors
    for name, A in (("hessian", H), ("gauss_newton", G)):
        by_exact = exact and name == "gauss_newton"
        pairs = settings.largest(A, min(count, C) if by_exact else count, classes=C)
        top[name] = pairs.vectors[:, :C]
        if by_exact:
            spectrum = exact_spectrum(network.model, data, knockouts=(), memory_budget=int(settings.exact_bytes))
            arrays |= {f"{name}_{key}": value for key, value in _from_exact(spectrum, count).items()}
            continue
        found = {field: getattr(pairs, field) for field in ("eigenvalues", "residuals", "converged")}
        found |= {f"share_{part}": share for part, share in shares(pairs, G, structure).items()}
        found |= {f"overlap_{part}": overlaps(pairs.vectors, B) for part, B in bases.items()}
        found["class_cosines"] = principal_cosines(top[name], bases["class"])
        arrays |= {f"{name}_{key}": value.cpu().numpy() for key, value in found.items()}
    arrays["hessian_gauss_newton_cosines"] = principal_cosines(top["hessian"], top["gauss_newton"]).cpu().numpy()
    gram, companion = structure.gram(), companion_structure(network.model, data).gram()
    arrays |= {f"{part}_part": gram.eigenvalues(part).cpu().numpy() for part in ("class", "cross")}  # type: ignore[arg-type]
    return arrays | {"companion_class_part": companion.eigenvalues("class").cpu().numpy()}


def _from_exact(spectrum: ExactSpectrum, count: int) -> dict[str, np.ndarray]:
    """What `measure` returns of one matrix, of the `count` largest eigenvalues of G."""
    values = spectrum.eigenvalues[:count]
    found = {"eigenvalues": values, "residuals": np.zeros(len(values)), "converged": np.ones(len(values), dtype=bool)}
    names = [f"share_{part}" for part in PARTS] + ["overlap_class", "overlap_cross"]
    found |= {name: spectrum.arrays[name][:count] for name in names}
    return found | {"share_residual": np.zeros(len(values)), "class_cosines": spectrum.arrays["class_cosines"]}


def shares(pairs: Eigenpairs, G: LinearOperator, structure: ClassStructure) -> dict[str, Tensor]:  # [K] each
    """u^T part u / λ of each eigenvector u: what each part of G, and E = λ − G, contributes to its eigenvalue."""
    U = pairs.vectors
    parts = spanned_contributions(structure, U)
    whole = quadratic(G, U)
    parts["within"] = whole - torch.stack(list(parts.values())).sum(dim=0)
    parts["residual"] = pairs.eigenvalues - whole
    return {name: value / pairs.eigenvalues for name, value in parts.items()}


def spanned_contributions(structure: ClassStructure, U: Tensor) -> dict[str, Tensor]:  # [P, K] -> [K] each
    """u^T part u of each column, for the parts that class and cross-class means span: no product with G."""
    return {part: quadratic(structure.part(part), U) for part in SPANNED_PARTS}


def overlaps(U: Tensor, B: Tensor) -> Tensor:  # [P, K], [P, L] orthonormal -> [K]
    """Squared length of the projection of each column of U onto the span of B."""
    return (B.T @ U).square().sum(dim=0)


def quadratic(A: LinearOperator, U: Tensor) -> Tensor:  # [P, K] -> [K]
    """u^T A u of each column."""
    return ((A @ U) * U).sum(dim=0)


def principal_cosines(A: Tensor, B: Tensor) -> Tensor:  # [P, K], [P, L], orthonormal -> [min(K, L)]
    """Cosines of the principal angles between two spans, the largest first (Golub & Van Loan 2013, Section 6.4.3)."""
    return torch.linalg.svdvals(A.T @ B).clamp(max=1)
