"""Second moments Delta^l of the errors of each layer, their parts and knockouts (Papyan 2020, Figures 9 and 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from repro.curvature.layers import layer_weights
from repro.curvature.moments import ErrorMoments, error_moments, projected, rest, row_space
from repro.linalg.dense import eigh
from repro.measurements.layer_features import Settings, descending, layer_by_layer, mean_cosines

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 1


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Exact eigenvalues of Delta^l = Σ w delta delta^T on the training set, for the output of every layer's linear map.

    Returns arrays over the layers, and for each l = 0, 1, ... (the last one the logits) eigenvalues, descending:
        layers [L]: names.
        layer<l>_eigenvalues [O]: of Delta.
        layer<l>_class [C], layer<l>_cross [C²], layer<l>_same [C]: of Delta_class, Delta_cross, Delta_{c=c'}.
        layer<l>_without_class, layer<l>_without_cross, layer<l>_without_same [O]: of Delta minus one of them.
        layer<l>_within [O]: of Delta minus all three.
        layer<l>_projected [O]: of Delta after projecting out all class and cross-class means.
        class_ratio [L]: largest eigenvalue of Delta_class to its (C−1)-th; at the logits the C-th is zero.
        shares [L, 4]: the trace of the class, cross, within and c = c' part over that of Delta.
        class_overlap [L]: mean squared cosine of the top C − 1 eigenvectors of Delta with the span of the class means.
        cosines [L, C, C]: of the class means delta_c.
    """
    network.check_every_class()
    data = network.batches()
    layers, sharing = network.layers(), settings.sharing
    settings.check_memory([len(weight) for weight in layer_weights(network.model, layers)])
    moments = error_moments(network.model, data, layers, sharing=sharing)  # type: ignore[arg-type]
    return layer_by_layer(enumerate(moments), lambda layer: describe(moments[layer]))


def describe(moments: ErrorMoments) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Spectra of Delta, of its parts and knockouts, and the numbers that are drawn over the layers."""
    Delta, parts = moments.second, moments.parts()
    together = torch.cat(list(parts.values()))
    values, vectors = eigh(Delta)
    spectra = {"eigenvalues": values.flip(0), "within": descending(rest(Delta, together))}
    for name, rows in parts.items():
        spectra[name] = descending(rows @ rows.T)
        spectra[f"without_{name}"] = descending(rest(Delta, rows))
    spectra["projected"] = descending(projected(Delta, together))
    C = len(parts["class"])
    top, basis = vectors[:, -(C - 1) :], row_space(parts["class"])[: C - 1]
    shares = torch.stack([spectra[name].sum() for name in ("class", "cross", "within", "same")]) / values.sum()
    curve = {
        "class_ratio": float(spectra["class"][0] / spectra["class"][C - 2].clamp(min=0)),
        "cosines": mean_cosines(moments.class_means()).cpu().numpy(),
        "class_overlap": float((basis @ top).square().sum() / top.shape[1]),
        "shares": shares.cpu().numpy(),
    }
    return spectra, curve
