"""Spectra of G^l beside KFAC, CFAC and EKFAC of each layer (Papyan 2020, Figures 11 and 12)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

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
    LayerBytes,
    LayerGaussNewton,
    LayerSamples,
    LayerStream,
    check_layer_gradients,
)
from repro.curvature.moments import Sharing
from repro.linalg.operator import LinearOperator
from repro.measurements.layer_features import layer_by_layer
from repro.measurements.settings import LanczosSettings, Memory, check_choice, check_count
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

    def __post_init__(self) -> None:
        check_choice("sharing", self.sharing, Sharing)
        check_count("outliers", self.outliers, least=1)

    def layer_memory(self, layer: LayerBytes, *, keep: bool, classes: int) -> Memory:
        """How the memory is divided for the spectra of one layer, whose factors and samples are held all the while."""
        both = 3 / 2  # in float64, and in the network's own precision
        factors = both * classes * (layer.features_moment + layer.errors_moment)
        return self.lanczos_memory(
            layer.weight,
            steps=self.lanczos_steps(classes),
            pairs=classes if self.outliers is None else self.outliers,
            held=(factors + keep * layer.samples) / layer.weight,
            matrix=f"layer {layer.name}",
        )


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
    names = network.layers()
    check_layer_gradients(network.model, data[0][0], names)
    if layers is not None and (unknown := [l for l in layers if not -len(names) <= l < len(names)]):
        raise ValueError(f"layers: there is no layer {unknown[0]}; the network has {len(names)}, counted from 0")
    positions = range(len(names)) if layers is None else sorted(range(len(names))[l] for l in layers)

    def describe(layer: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        stream = LayerStream(network.model, data, layer)
        size = stream.nbytes()
        keep = size.samples <= settings.memory_bytes / 4
        memory = settings.layer_memory(size, keep=keep, classes=network.classes)
        samples, G = layer_matrix(stream, keep=keep, graphs=memory.graphs)
        spectra, curve = measure_layer(samples, G, network.classes, settings, memory)
        return spectra, curve | {"positions": names.index(layer)}

    return layer_by_layer(((l, names[l]) for l in positions), describe)


def measure_layer(
    samples: Iterable[LayerSamples], G: LinearOperator, classes: int, settings: Settings, memory: Memory
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Spectra of one layer's matrices, and the numbers that are compared over the layers."""
    k = classes if settings.outliers is None else settings.outliers
    factors = kronecker_factors(samples, sharing=settings.sharing)  # type: ignore[arg-type]
    known = {"kfac": kfac_eigenvalues(factors), "ekfac": ekfac_eigenvalues(samples, factors)}
    found: dict[str, Spectrum] = {}
    for name in ("exact", *APPROXIMATIONS):  # one matrix after the other: the factors of a wide layer are gigabytes
        A = G if name == "exact" else cfac(factors, G.dtype) if name == "cfac" else Diagonal(known[name].to(G.dtype))
        found[name] = estimate(A, k, classes, settings, memory)
        del A
    found |= {name: found[name].named(values[:k].cpu().numpy()) for name, values in known.items()}
    spectra: dict[str, np.ndarray] = {}
    for name, of_matrix in found.items():
        spectra |= of_matrix.arrays(name)
    for name, factor in zip(("errors", "features"), factors.average()):
        spectra[name] = torch.linalg.eigvalsh(factor).flip(0).cpu().numpy()
    blur = distance(found["kfac"], exactly(known["kfac"], k), settings.epsilon * found["exact"].eigenvalues[0])
    cosines = class_mean_cosines(samples).cpu().numpy()
    return spectra, compare(found, k, settings.epsilon) | {"resolution": np.array(blur), "class_cosines": cosines}


def layer_matrix(stream: LayerStream, *, keep: bool, graphs: int) -> tuple[Iterable[LayerSamples], LinearOperator]:
    """The samples of a layer and its G^l: kept, or else streamed and G^l by the whole network, which keeps `graphs`."""
    if keep:
        samples = list(stream)
        return samples, LayerGaussNewton(samples)
    own = [f"{stream.layer}.{name}" for name, _ in stream.model.get_submodule(stream.layer).named_parameters()]
    return stream, GaussNewton(stream.model, stream.data, parameters=own, memory_budget=graphs)


def estimate(A: LinearOperator, k: int, classes: int, settings: Settings, memory: Memory) -> Spectrum:
    """The spectrum of A: all eigenvalues of a small matrix, Lanczos quadrature of a large one."""
    if A.dim > settings.exact_limit:
        return settings.estimate(A, outliers=k, classes=classes, memory=memory, whole=True)
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
