"""Spectra of G^l beside KFAC, CFAC and EKFAC of each layer (Papyan 2020, Figures 11 and 12)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.kfac import (
    Diagonal,
    cfac,
    class_mean_cosines,
    ekfac_eigenvalues,
    kfac_eigenvalues,
    kronecker_factors,
)
from repro.curvature.layers import (
    Batches,
    LayerGaussNewton,
    LayerSamples,
    LayerStream,
    check_layer_gradients,
    layer_names,
)
from repro.curvature.moments import Sharing
from repro.linalg.operator import LinearOperator
from repro.measurements.settings import LanczosSettings, check_choice, check_count
from repro.spectra.broadening import wasserstein
from repro.spectra.record import Spectrum

if TYPE_CHECKING:
    from repro.network import Network

APPROXIMATIONS = ("kfac", "cfac", "ekfac")


VERSION = 2


@dataclass
class Settings(LanczosSettings):
    """Which layers, and how their spectra are estimated and compared."""

    # The steps of Lanczos are the linear spectra's: the paper's 2048 for log spectra is likely, and too dear (ours)
    layers: list[int] | None = None  # positions in the order of execution, negative ones from the end; None: all
    outliers: int | None = None  # leading eigenvalues compared, k; None: C, the number of classes (ours)
    exact_limit: int = 1500  # parameters up to which G^l and CFAC are formed and diagonalised instead (ours)
    epsilon: float = 1e-5  # distances are taken on the axis ln(λ + epsilon λ_1(G^l)) (ours; Lanczos sees no finer)
    sharing: str = "expand"  # convolutions: "expand" is KFC, "reduce" takes positions for uncorrelated (ours)
    samples_bytes: float = 4e9  # memory of one layer's samples, beyond which every product recomputes them (ours)
    basis_bytes: float = 4e9  # memory of the Lanczos basis, M x P numbers; beyond it the run restarts (ours)

    def __post_init__(self) -> None:
        check_choice("sharing", self.sharing, Sharing)
        check_count("outliers", self.outliers, least=1)


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Spectra of the exact G^l of each layer and of its three Kronecker approximations, and how far these are off.

    All four are diagonalised up to `exact_limit` parameters, and beyond it seen through the same Lanczos runs, so that
    they are blurred alike; the leading eigenvalues of KFAC and EKFAC are exact in any case.

    Returns arrays over the layers, and <a> one of exact (G^l), kfac, cfac, ekfac for each measured layer l:
        layers [L], positions [L]: names, and their l in the order of execution.
        layer<l>_<a>_nodes, _weights, _eigenvalues, ...: see `repro.spectra.record.Spectrum`.
        layer<l>_errors [O], layer<l>_features [D]: eigenvalues of Delta and H; their products times T are KFAC's.
        wasserstein [L, 3]: of the log spectra of kfac, cfac, ekfac to that of G^l; the logarithm of a mean factor.
        resolution [L]: the same distance between KFAC's eigenvalues and Lanczos on KFAC: how much Lanczos blurs.
        top_errors [L, 3, k]: (approximate − exact) / exact leading eigenvalues by rank; NaN beyond the rank of G^l.
        class_cosines [L, C]: of g_c with delta_c ⊗ h_c.

    Raises:
        ValueError: a layer is grouped, executed twice or not at all, or shares its weight.
    """
    data, layers = network.batches(), settings.layers
    names = layer_names(network.model, data[0][0])
    check_layer_gradients(network.model, data[0][0][:2], names)
    if layers is not None and (unknown := [l for l in layers if not -len(names) <= l < len(names)]):
        raise ValueError(f"layers: there is no layer {unknown[0]}; the network has {len(names)}, counted from 0")
    positions = range(len(names)) if layers is None else sorted(range(len(names))[l] for l in layers)
    arrays: dict[str, np.ndarray] = {
        "layers": np.array([names[l] for l in positions]),
        "positions": np.array(positions),
    }
    curves = []
    for l in positions:
        samples, G = layer_matrix(network.model, data, names[l], settings)
        spectra, curve = measure_layer(samples, G, network.classes, settings)
        curves.append(curve)
        arrays |= {f"layer{l}_{name}": values for name, values in spectra.items()}
    return arrays | {name: np.stack([curve[name] for curve in curves]) for name in curves[0]}


def measure_layer(
    samples: Iterable[LayerSamples], G: LinearOperator, classes: int, settings: Settings
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Spectra of one layer's matrices, and the numbers that are compared over the layers."""
    k = classes if settings.outliers is None else settings.outliers
    factors = kronecker_factors(samples, sharing=settings.sharing)  # type: ignore[arg-type]
    known = {"kfac": kfac_eigenvalues(factors), "ekfac": ekfac_eigenvalues(samples, factors)}
    matrices = {"exact": G, "cfac": cfac(factors.to(G.dtype)), **{name: Diagonal(known[name]) for name in known}}
    found = {name: estimate(A, k, classes, settings) for name, A in matrices.items()}
    found |= {name: found[name].named(values[:k].cpu().numpy()) for name, values in known.items()}
    spectra: dict[str, np.ndarray] = {}
    for name, of_matrix in found.items():
        spectra |= of_matrix.arrays(name)
    for name, factor in zip(("errors", "features"), factors.average()):
        spectra[name] = torch.linalg.eigvalsh(factor).flip(0).cpu().numpy()
    blur = distance(found["kfac"], exactly(known["kfac"], k), settings.epsilon * found["exact"].eigenvalues[0])
    cosines = class_mean_cosines(samples).cpu().numpy()
    return spectra, compare(found, k, settings.epsilon) | {"resolution": np.array(blur), "class_cosines": cosines}


def layer_matrix(
    model: nn.Module, data: Batches, layer: str, settings: Settings
) -> tuple[Iterable[LayerSamples], LinearOperator]:
    """The samples of a layer and its G^l: kept if they fit the budget, else streamed and by the whole network."""
    stream = LayerStream(model, data, layer)
    first = next(iter(stream))
    size = sum(tensor.nbytes for tensor in first) / len(first.h) * sum(len(y) for _, y in data)
    if size <= settings.samples_bytes:
        samples = list(stream)
        return samples, LayerGaussNewton(samples)
    own = [f"{layer}.{name}" for name, _ in model.get_submodule(layer).named_parameters()]
    return stream, GaussNewton(model, data, parameters=own, memory_budget=int(settings.graph_bytes))


def estimate(A: LinearOperator, k: int, classes: int, settings: Settings) -> Spectrum:
    """The spectrum of A: all eigenvalues of a small matrix, Lanczos quadrature of a large one."""
    if A.dim > settings.exact_limit:
        return settings.estimate(A, outliers=k, classes=classes)
    eye = torch.eye(A.dim, dtype=A.dtype, device=A.device)
    dense = torch.cat([A @ columns for columns in eye.split(32, dim=1)], dim=1).double()
    return exactly(torch.linalg.eigvalsh((dense + dense.T) / 2), k)


def exactly(eigenvalues: Tensor, k: int) -> Spectrum:  # [P]
    """The spectrum of a matrix of which all eigenvalues are known."""
    return Spectrum.exact(eigenvalues.double().cpu().numpy(), k=k)


def distance(a: Spectrum, b: Spectrum, floor: float) -> float:
    """Wasserstein distance of two spectra on the axis ln(λ + floor)."""
    return wasserstein(a.nodes, a.weights, b.nodes, b.weights, epsilon=floor)


def compare(found: dict[str, Spectrum], k: int, epsilon: float) -> dict[str, np.ndarray]:
    """How far the approximations' spectra, and their k leading eigenvalues, are from those of G^l."""
    exact = found["exact"]
    floor = epsilon * float(exact.eigenvalues[0])
    top = {name: np.full(k, np.nan) for name in found}  # a layer smaller than k has fewer
    for name, spectrum in found.items():
        top[name][: len(spectrum.eigenvalues)] = spectrum.eigenvalues
    present = np.where(top["exact"] > 0, top["exact"], np.nan)
    return {
        "wasserstein": np.array([distance(exact, found[name], floor) for name in APPROXIMATIONS]),
        "top_errors": np.stack([top[name] / present - 1 for name in APPROXIMATIONS]),
    }
