"""Attribution in numbers: top eigenvectors of Hess and G against class and cross-class means (the paper has none)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from repro.curvature.checks import class_list
from repro.curvature.class_parts import ClassParts
from repro.curvature.cross_class import SpannedPart
from repro.curvature.exact import exact_spectrum
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.many_classes import class_gram
from repro.linalg.eigenpairs import Eigenpairs, top_eigenpairs
from repro.linalg.operator import LinearOperator, Stopped
from repro.measurements.hessian_spectrum import MATRICES
from repro.measurements.settings import EXACT_LIMIT, Memory, MemorySettings, check_count, vector_bytes
from repro.spectra.exact import PARTS, ExactSpectrum
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network

VERSION = 3
COMPARED: tuple[SpannedPart, ...] = ("class", "cross")  # with eigenvectors; the same part has the span of class


@dataclass
class EigenpairSettings(MemorySettings):
    """How leading eigenpairs are found; see `repro.linalg.eigenpairs.top_eigenpairs`."""

    tolerance: float = 1e-2  # relative residual at which an eigenpair counts as converged (ours)
    max_products: int | None = None  # at most so many products with each matrix; None: 120, or 4 C where that is more
    seed: int = 0  # of the starting vector (ours)

    def products(self, classes: int) -> int:
        """At most so many with each matrix."""
        return max(120, 4 * classes) if self.max_products is None else self.max_products

    def memory(self, network: Network, k: int, *, held: int = 0) -> Memory:
        """How the memory is divided while k eigenpairs are found and `held` vectors are there."""
        vector = vector_bytes(network)
        return self.lanczos_memory(
            vector, steps=self.products(self.classes_of(network)), pairs=k, held=held, matrix="Hess and G"
        )

    def plan(self, network: Network, searches: int, memory: Memory) -> None:
        """Say to whoever watches how many times `largest` will be called."""
        products = self.products(self.classes_of(network))
        current().plan(searches, products, basis=memory.basis, vector=vector_bytes(network))

    def largest(self, A: LinearOperator, k: int, *, classes: int, memory: Memory) -> Eigenpairs:
        """The k algebraically largest eigenpairs of A.

        Raises:
            Stopped: the search was stopped.
        """
        A = current().over(A)
        found = top_eigenpairs(
            A,
            min(k, A.dim),
            tolerance=self.tolerance,
            max_products=self.products(classes),
            memory_budget=memory.basis,
            seed=self.seed,
            by="largest",
        )
        if A.stopped:  # what it has found by then is less than was asked for
            raise Stopped
        return found


@dataclass
class Settings(EigenpairSettings):
    """How many eigenpairs, and how they are found."""

    eigenvectors: int | None = None  # K of each matrix, the largest; None: 2 C, the outliers and as many below (ours)
    exact_limit: int = (
        EXACT_LIMIT  # examples times classes up to which G is taken by its exact spectrum; 0: never (ours)
    )
    # Those with whose class and cross-class means they are compared, with all C logits in the loss; None: all (ours)
    classes: list[int] | None = None

    def __post_init__(self) -> None:
        check_count("eigenvectors", self.eigenvectors, least=1)
        check_count("exact_limit", self.exact_limit, least=0)
        self.classes = class_list(self.classes)


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

    Of K chosen `classes` the parts are what these classes and pairs of them contribute, see `ClassStructure`: 'within'
    is all the rest of G, C above is K, and cross_part has K (K − 1) eigenvalues. G is then taken by Lanczos.
    """
    model, data, chosen, C = network.model, network.batches(), settings.classes, settings.classes_of(network)
    count = 2 * C if settings.eigenvectors is None else settings.eigenvectors
    means, memory = settings.means_bytes(network), settings.memory(network, count, held=C)
    network.check_every_class(chosen)
    for_exact = int(settings.memory_bytes) - 2 * C * vector_bytes(network)  # beside the leading C of both matrices
    parameters, like = network.parameters, next(model.parameters())

    gram_of = partial(class_gram, model, data, parameters=parameters, memory_budget=means, classes=chosen)

    def of_means() -> dict[str, np.ndarray]:
        gram = gram_of(companion=False)
        found = {f"{part}_part": gram.eigenvalues(part) for part in COMPARED}
        precision = torch.finfo(like.dtype).eps
        found |= {f"span_{part}": gram.orthonormal(part, precision).contiguous() for part in COMPARED}
        return {name: value.cpu().numpy() for name, value in found.items()}

    def of_companion() -> dict[str, np.ndarray]:
        return {"companion_class_part": gram_of(companion=True).eigenvalues("class").cpu().numpy()}

    arrays = current().found
    found = current().once(of_means, planned=False)
    spans = {part: torch.from_numpy(found.pop(f"span_{part}")).to(like.device) for part in COMPARED}
    arrays |= found
    arrays |= current().once(of_companion, planned=False)
    exact = chosen is None and len(network.train.labels) * C <= settings.exact_limit
    settings.plan(network, 2, memory)
    top: dict[str, Tensor] = {}

    def of_matrix(name: str) -> dict[str, np.ndarray]:
        by_exact = exact and name == "gauss_newton"
        A = network.matrix(MATRICES[name], memory_budget=memory.graphs)
        pairs = settings.largest(A, min(count, C) if by_exact else count, classes=C, memory=memory)
        leading = pairs.vectors[:, :C].clone()
        del A  # its graphs go before those of the next matrix are made
        if by_exact:
            del pairs
            spectrum = exact_spectrum(model, data, parameters=parameters, knockouts=(), memory_budget=for_exact)
            found = _from_exact(spectrum, count)
        else:
            G = network.matrix(GaussNewton, memory_budget=memory.graphs)
            found = described(pairs, ClassParts(G, chosen), spans)
            del pairs, G
        return {f"{name}_{key}": value for key, value in found.items()} | {"vectors": leading.cpu().numpy()}

    for name in ("hessian", "gauss_newton"):
        found = current().once(partial(of_matrix, name))
        top[name] = torch.from_numpy(found.pop("vectors")).to(like.device)
        arrays |= found
    arrays["hessian_gauss_newton_cosines"] = cosines(top["hessian"].T @ top["gauss_newton"]).cpu().numpy()
    arrays["dim"] = np.array(len(top["hessian"]))
    return arrays


def described(pairs: Eigenpairs, parts: ClassParts, spans: Mapping[SpannedPart, Tensor]) -> dict[str, np.ndarray]:
    """What `measure` returns of one matrix, of its largest eigenpairs.

    Args:
        spans: coefficients [C², rank] of an orthonormal basis of each part's span, see `ClassGram.orthonormal`.
    """
    found = {field: getattr(pairs, field) for field in ("eigenvalues", "residuals", "converged")}
    found |= {f"share_{part}": share for part, share in shares(pairs, parts).items()}
    rows = parts.coordinates(pairs.vectors)
    for part, span in spans.items():
        found[f"overlap_{part}"] = (span.T @ rows).square().sum(dim=0)
    found["class_cosines"] = cosines(spans["class"].T @ rows[:, : len(parts.classes)])
    return {key: value.cpu().numpy() for key, value in found.items()}


def _from_exact(spectrum: ExactSpectrum, count: int) -> dict[str, np.ndarray]:
    """What `measure` returns of one matrix, of the `count` largest eigenvalues of G."""
    values = spectrum.eigenvalues[:count]
    found = {"eigenvalues": values, "residuals": np.zeros(len(values)), "converged": np.ones(len(values), dtype=bool)}
    names = [f"share_{part}" for part in PARTS] + ["overlap_class", "overlap_cross"]
    found |= {name: spectrum.arrays[name][:count] for name in names}
    return found | {"share_residual": np.zeros(len(values)), "class_cosines": spectrum.arrays["class_cosines"]}


def shares(pairs: Eigenpairs, parts: ClassParts) -> dict[str, Tensor]:  # [K] each
    """u^T part u / λ of each eigenvector u: what each part of G, and E = λ − G, contributes to its eigenvalue."""
    found = parts.contributions(pairs.vectors)
    whole = found.pop("whole")
    found["within"] = whole - torch.stack(list(found.values())).sum(dim=0)
    found["residual"] = pairs.eigenvalues - whole
    return {name: value / pairs.eigenvalues for name, value in found.items()}


def cosines(inner: Tensor) -> Tensor:  # [K, L] -> [min(K, L)]
    """Cosines of the principal angles between two spans, the largest first, from inner products of orthonormal bases.

    See Golub & Van Loan 2013, Section 6.4.3.
    """
    return torch.linalg.svdvals(inner).clamp(max=1)
