"""Spectra of Hess, G and E = Hess − G on training and test data: top C eigenpairs and quadrature (Sections 4 and 5)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual
from repro.curvature.inputs import Inputs
from repro.curvature.risk import RiskOperator
from repro.measurements.settings import LanczosSettings, check_count
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network

VERSION = 3
ANY_LOSS = True
MATRICES: dict[str, type[RiskOperator]] = {"hessian": Hessian, "gauss_newton": GaussNewton, "residual": HessianResidual}


@dataclass
class Settings(LanczosSettings):
    """Which spectra, `<split>_<matrix>` each, and how they are estimated."""

    # None: train and test Hessian of Figure 3 (certain) and the parts of Figure 4 on training data (likely); without
    # test data, those on training data
    spectra: list[str] | None = None
    # Test spectra are those of the first so many test examples of each class; None: of all (our reading of the paper)
    test_per_class: int | None = None
    outliers: int | None = None  # eigenpairs taken out of each, k; None: C, as in the paper (certain)

    def __post_init__(self) -> None:
        check_count("outliers", self.outliers, least=0)
        check_count("test_per_class", self.test_per_class, least=1)
        for name in self.spectra or ():
            split, _, matrix = name.partition("_")
            if split not in ("train", "test") or matrix not in MATRICES:
                raise ValueError(f"spectra: {name!r} is not <train or test>_<{', '.join(MATRICES)}>")


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Leading eigenpairs (by magnitude) and Gauss quadrature of each of the spectra, from the same Lanczos runs.

    Returns, for each <s> of `spectra`, where <s> is <layer>/<split>_<matrix> for a network `by_layer`:
        <s>_nodes, <s>_weights [probes, M]: eigenvalues of the mean loss, and their share of all P eigenvalues.
        <s>_eigenvalues, _residuals (absolute), _converged, _deflated [k]: see `repro.spectra.record.Spectrum`.
        <s>_dim: P.
        test_examples: how many test examples there are in the test spectra, if there are test spectra.
    """
    arrays = current().found
    names = settings.spectra or usual_spectra(network)
    data = {split: batches(network, split, settings) for split in {name.partition("_")[0] for name in names}}
    memory = settings.memory(network, outliers=settings.outliers, matrix="Hess, G and E")
    settings.plan(network, len(names) * len(network.parts), memory)
    if not network.loss.convex and any(not name.endswith("hessian") for name in names):
        network.matrix(GaussNewton, memory_budget=0)  # refuses a loss without G before hours of Hess
    for (prefix, part), name in itertools.product(network.parts.items(), names):
        split, _, matrix = name.partition("_")
        memory = settings.memory(part, outliers=settings.outliers, matrix="Hess, G and E")
        A = part.matrix(MATRICES[matrix], memory_budget=memory.graphs, data=data[split])
        found = settings.estimate(A, outliers=settings.outliers, classes=network.classes, memory=memory)
        arrays |= found.arrays(prefix + name)
        if split == "test":
            arrays["test_examples"] = np.array(sum(len(y) for _, y in data[split]))
    return arrays


def batches(network: Network, split: str, settings: Settings) -> list[tuple[Inputs, Tensor]]:
    """The data of a spectrum: all training examples, and the test examples that are wanted."""
    if split == "train" or network.test is None or settings.test_per_class is None:
        return network.batches(split)
    network.check_class_structure("test_per_class, a number of examples of each class,")
    return network.test.first_of_each_class(settings.test_per_class).batches(network.batch_size)


def usual_spectra(network: Network) -> list[str]:
    """Train and test Hessian, and the parts of the former; without test data, those on training data."""
    test = [] if network.test is None else ["test_hessian"]
    return ["train_hessian", *test, "train_gauss_newton", "train_residual"]
