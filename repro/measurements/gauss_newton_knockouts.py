"""The spectrum of G, and of G with each of its four parts knocked out (Papyan 2020, Section 6, Figures 1 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from repro.curvature.class_parts import ClassParts
from repro.curvature.cross_class import SPANNED_PARTS, ClassGram, Knockout, SpannedPart, class_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.many_classes import class_gram
from repro.linalg.operator import LinearOperator, Projected
from repro.measurements.settings import LanczosSettings, check_choice, check_count
from repro.spectra.record import Spectrum
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 2


@dataclass
class Settings(LanczosSettings):
    """How a part is knocked out, and how the spectra are estimated."""

    # "subtraction" G − part (Definition 3.1, likely the figure's), or "projection" onto the complement of the part's
    # span (Definition 3.2)
    knockout: str = "subtraction"
    outliers: int | None = None  # eigenpairs marked in each spectrum; None: C (our reading of the figure)

    usual_steps: ClassVar[int] = 100  # the paper's log spectra take 2048 without reorthogonalisation (likely)

    def __post_init__(self) -> None:
        check_choice("knockout", self.knockout, Knockout)
        check_count("outliers", self.outliers, least=0)


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Quadrature of G and of each knockout on the training set, and the eigenvalues of the parts themselves.

    Subtracting G_within leaves a matrix of rank C (C − 1), whose spectrum is exact: no Lanczos, no probes. Projecting
    it out is not defined at any bearable cost (its span is all the gradients), so 'within' is always subtracted.

    Returns, with <s> one of full, class, cross, within, same (what was knocked out; full: nothing):
        <s>_nodes, <s>_weights [probes, M]: eigenvalues of the mean loss, and their share of all P eigenvalues.
        <s>_eigenvalues, _residuals, _converged, _deflated [k], <s>_dim: see `repro.spectra.record.Spectrum`.
        class_part [C], cross_part [C (C − 2)], same_part [C]: the exact eigenvalues of those parts, descending.
        mass [C, C]: the weights w_{c,c'}, which sum to one.
    """
    network.check_every_class()
    data, C = network.batches(), network.classes
    gram = class_gram(network.model, data, parameters=network.parameters, memory_budget=settings.means_bytes(network))
    arrays = current().found
    arrays |= {f"{part}_part": gram.eigenvalues(part).cpu().numpy() for part in SPANNED_PARTS}
    arrays["mass"] = gram.weights.cpu().numpy()
    means = 3 * C**2 if settings.knockout == "projection" else 0  # the means, and their bases while they are made
    memory = settings.memory(network, outliers=settings.outliers, held=means, matrix="G and its knockouts")
    settings.plan(network, 1 + len(SPANNED_PARTS), memory)
    G = network.matrix(GaussNewton, memory_budget=memory.graphs)
    full = settings.estimate(G, outliers=settings.outliers, classes=C, memory=memory)
    arrays |= full.arrays("full")
    for part in SPANNED_PARTS:
        rest = projected(G, network, part) if means else ClassParts(G).without([part])
        arrays |= settings.estimate(rest, outliers=settings.outliers, classes=C, memory=memory).arrays(part)
    k = C if settings.outliers is None else settings.outliers
    arrays |= _without_within(gram, k, full.steps, G.dim).arrays("within")
    return arrays


def projected(G: GaussNewton, network: Network, part: SpannedPart) -> LinearOperator:
    """G on the complement of a part's span (Definition 3.2); the C² means are held while its basis is made."""
    structure = class_structure(network.model, network.batches(), parameters=network.parameters)
    return Projected(G, structure.basis(part))


def _without_within(gram: ClassGram, k: int, steps: int, P: int) -> Spectrum:
    """The exact spectrum of G − G_within: C (C − 1) eigenvalues of mass 1/P, all others zero.

    Padded to `steps` nodes: the smoothing when drawing depends on their number, and be that of the others.
    """
    found = gram.eigenvalues_of_sum()[: P - 1]
    return Spectrum.exact(found.cpu().numpy(), k=k, dim=P, length=steps)
