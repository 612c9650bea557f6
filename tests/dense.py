"""Dense matrices and exact spectra of the tiny networks, to compare measurements with."""

import numpy as np
import torch
from torch import Tensor

from repro.curvature.cross_class import class_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.network import Network


def eigenvalues(A: Tensor) -> np.ndarray:
    """Descending."""
    return torch.linalg.eigvalsh(A).flip(0).numpy()


def by_magnitude(values: np.ndarray) -> np.ndarray:
    return values[np.argsort(-np.abs(values))]


def dense_parts(network: Network, classes: list[int] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """G and its four parts, those of some classes with all the rest of G in the place of G_within."""
    structure = class_structure(network.model, network.batches(), classes=classes)
    G = GaussNewton(network.model, network.batches()).dense()
    parts = {name: structure.part(name).dense() for name in ("class", "cross", "same")}
    return G, parts | {"within": G - sum(parts.values())}


def assert_mean(samples: np.ndarray, expected: float) -> None:
    """The mean of independent probes lies within three and a half of its standard errors."""
    assert abs(samples.mean() - expected) < 3.5 * samples.std(ddof=1) / np.sqrt(len(samples))
