"""Second moments H^l of the features of each layer, their class part and knockouts (Papyan 2020, Figures 7 and 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from repro.curvature.layers import layer_weights
from repro.curvature.moments import FeatureMoments, Sharing, feature_moments, projected, rest, row_space
from repro.linalg.dense import eigh
from repro.linalg.operator import may_stop
from repro.measurements.settings import MemorySettings, check_choice
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 1
WORK_MATRICES = 6  # of one layer: H, its eigenvectors, a knockout, and what LAPACK takes


@dataclass
class Settings(MemorySettings):
    """How layers that act at several positions are read."""

    # Of convolutions: "expand", every position is a sample; "reduce", over positions the mean of the features and the
    # sum of the errors (ours; the paper has an MLP)
    sharing: str = "expand"

    def __post_init__(self) -> None:
        check_choice("sharing", self.sharing, Sharing)

    def check_memory(self, sizes: list[int]) -> None:
        """Refuse layers whose second moments, with what diagonalises the largest, take more than the memory."""
        needed = 8 * (sum(size**2 for size in sizes) + WORK_MATRICES * max(sizes) ** 2)
        self.announce(f"second moments of {len(sizes)} layers, the largest {max(sizes)} x {max(sizes)}", needed)


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Exact eigenvalues of H^l = Ave h h^T on the training set, for the input of every layer and the logits.

    Returns arrays over the layers, and for each l = 0, 1, ... (h^0 = x, the last the logits) descending eigenvalues:
        layers [L]: the layer that the features enter, and "logits".
        layer<l>_eigenvalues [D]: of H.            layer<l>_class [C]: of H_class.
        layer<l>_without_class, layer<l>_without_global [D]: of H − H_class = H_within and of H − h_G h_G^T.
        layer<l>_projected [D]: of H after projecting out the class means (Definition 3.2).
        class_ratio [L]: second to smallest eigenvalue of H_class; inf where class means are dependent.
        global_share [L]: squared cosine of the top eigenvector of H with the global mean.
        class_share [L]: tr H_class / tr H.
        class_overlap [L]: mean squared cosine of the top C eigenvectors of H with the span of the class means.
        cosines [L, C, C]: of the class means, the global mean taken off; −1/(C−1) off the diagonal for a simplex.
    """
    network.check_every_class()
    data = network.batches()
    layers = network.layers()
    settings.check_memory([weight[0].numel() for weight in layer_weights(network.model, layers)])
    moments = feature_moments(network.model, data, layers, sharing=settings.sharing)  # type: ignore[arg-type]
    return layer_by_layer(enumerate(moments), lambda layer: describe(moments[layer]))


def layer_by_layer(
    layers: Iterable[tuple[int, str]],
    describe: Callable[[str], tuple[Mapping[str, Tensor] | Mapping[str, np.ndarray], Mapping[str, Any]]],
) -> dict[str, np.ndarray]:
    """What `describe` says of each layer: spectra, as layer<l>_<name>, and other numbers, along a first axis [L].

    Args:
        layers: their numbers l and their names.
    """
    arrays, curves = current().found, list[dict[str, Any]]()
    for index, layer in layers:
        may_stop()
        spectra, curve = describe(layer)
        curves.append({"layers": layer, **curve})
        for name, values in spectra.items():
            arrays[f"layer{index}_{name}"] = values.cpu().numpy() if isinstance(values, Tensor) else values
        arrays |= {name: np.array([curve[name] for curve in curves]) for name in curves[0]}
    return arrays


def describe(moments: FeatureMoments) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Spectra of H and its knockouts, and the numbers that are drawn over the layers."""
    H, rows, mean = moments.second, moments.class_rows(), moments.global_mean
    values, vectors = eigh(H)
    by_class = descending(rows @ rows.T)
    spectra = {
        "eigenvalues": values.flip(0),
        "class": by_class,
        "without_class": descending(rest(H, rows)),
        "without_global": descending(rest(H, mean[None])),
        "projected": descending(projected(H, rows)),
    }
    top = vectors[:, -len(rows) :]
    curve = {
        "class_ratio": float(by_class[1] / by_class[-1].clamp(min=0)),
        "global_share": float((vectors[:, -1] @ mean) ** 2 / mean.square().sum()),
        "class_share": float(by_class.sum() / values.sum()),
        "class_overlap": float((row_space(rows) @ top).square().sum() / top.shape[1]),
        "cosines": mean_cosines(moments.means - mean).cpu().numpy(),
    }
    return spectra, curve


def mean_cosines(rows: Tensor) -> Tensor:  # [C, D] -> [C, C]
    """Cosines of the angles between the rows."""
    unit = torch.nn.functional.normalize(rows, dim=1)
    return unit @ unit.T


def descending(A: Tensor) -> Tensor:  # [D, D] -> [D]
    """Eigenvalues of a symmetric matrix."""
    return torch.linalg.eigvalsh(A).flip(0)
