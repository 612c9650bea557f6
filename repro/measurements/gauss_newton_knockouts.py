"""The spectrum of G, and of G with each of its four parts knocked out (Papyan 2020, Section 6, Figures 1 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from repro.curvature.checks import class_list
from repro.curvature.class_parts import ClassParts
from repro.curvature.cross_class import SPANNED_PARTS, Knockout, SpannedPart, class_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.many_classes import class_gram
from repro.linalg.operator import LinearOperator, Projected
from repro.measurements.settings import LanczosSettings, check_choice, check_count
from repro.spectra.record import Spectrum
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 3


@dataclass
class Settings(LanczosSettings):
    """How a part is knocked out, and how the spectra are estimated."""

    # "subtraction" G − part (Definition 3.1, likely the figure's), or "projection" onto the complement of the part's
    # span (Definition 3.2)
    knockout: str = "subtraction"
    outliers: int | None = None  # eigenpairs marked in each spectrum; None: C (our reading of the figure)
    # Those whose class and cross-class means the parts consist of, with all C logits in the loss; None: all (ours)
    classes: list[int] | None = None

    usual_steps: ClassVar[int] = 100  # the paper's log spectra take 2048 without reorthogonalisation (likely)

    def __post_init__(self) -> None:
        check_choice("knockout", self.knockout, Knockout)
        check_count("outliers", self.outliers, least=0)
        self.classes = class_list(self.classes)


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Quadrature of G and of each knockout on the training set, and the eigenvalues of the parts themselves.

    Subtracting G_within leaves a matrix of rank C (C − 1), whose spectrum is exact: no Lanczos, no probes. Projecting
    it out is not defined at any bearable cost (its span is all the gradients), so 'within' is always subtracted.

    Returns, with <s> one of full, class, cross, within, same (what was knocked out; full: nothing):
        <s>_nodes, <s>_weights [probes, M]: eigenvalues of the mean loss, and their share of all P eigenvalues.
        <s>_eigenvalues, _residuals, _converged, _deflated [k], <s>_dim: see `repro.spectra.record.Spectrum`.
        class_part [C], cross_part [C (C − 2)], same_part [C]: the exact eigenvalues of those parts, descending.
        mass [C, C]: the weights w_{c,c'}, which sum to one.

    Of K chosen `classes` a knockout takes away what these classes and pairs of them contribute, see `ClassStructure`:
    'within' is all the rest of G and leaves rank K², C above is K in their order, cross_part has K (K − 1) eigenvalues,
    and the weights are some of those that sum to one.
    """
    chosen, data = settings.classes, network.batches()
    C, budget = settings.classes_of(network), settings.means_bytes(network)
    network.check_every_class(chosen)

    def of_means() -> dict[str, np.ndarray]:
        gram = class_gram(network.model, data, parameters=network.parameters, memory_budget=budget, classes=chosen)
        found = {f"{part}_part": gram.eigenvalues(part).cpu().numpy() for part in SPANNED_PARTS}
        return found | {"mass": gram.weights.cpu().numpy(), "sum": gram.eigenvalues_of_sum().cpu().numpy()}

    arrays = current().found
    arrays |= current().once(of_means, planned=False)
    of_sum = arrays.pop("sum")
    means = 3 * C**2 if settings.knockout == "projection" else 0  # the means, and their bases while they are made
    memory = settings.memory(network, outliers=settings.outliers, held=means, matrix="G and its knockouts")
    settings.plan(network, 1 + len(SPANNED_PARTS), memory)
    G = network.matrix(GaussNewton, memory_budget=memory.graphs)
    full = settings.estimate(G, outliers=settings.outliers, classes=C, memory=memory)
    arrays |= full.arrays("full")
    for part in SPANNED_PARTS:
        rest = projected(G, network, part, chosen) if means else ClassParts(G, chosen).without([part])
        arrays |= settings.estimate(rest, outliers=settings.outliers, classes=C, memory=memory).arrays(part)
    k = C if settings.outliers is None else settings.outliers
    arrays |= _without_within(of_sum, k, full.steps, G.dim).arrays("within")
    return arrays


def projected(G: GaussNewton, network: Network, part: SpannedPart, classes: list[int] | None) -> LinearOperator:
    """G on the complement of a part's span (Definition 3.2); the C² means are held while its basis is made."""
    structure = class_structure(network.model, network.batches(), parameters=network.parameters, classes=classes)
    return Projected(G, structure.basis(part))


def _without_within(eigenvalues: np.ndarray, k: int, steps: int, P: int) -> Spectrum:
    """The exact spectrum of G − G_within: C (C − 1) eigenvalues, or K² of K chosen classes; all others are zero.

    Padded to `steps` nodes: the smoothing when drawing depends on their number, and be that of the others.
    """
    return Spectrum.exact(eigenvalues[: P - 1], k=k, dim=P, length=steps)
