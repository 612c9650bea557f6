"""Singular values of each layer's weights and what the class means explain of them (Papyan 2020, Figure 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from repro.curvature.layers import check_layer_gradients
from repro.curvature.moments import WeightMoments, row_space, weight_moments
from repro.measurements.layer_features import layer_by_layer

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 1


@dataclass
class Settings:
    """None: the weight decay is the training's."""


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Singular values of W^l and of its knockouts by W_class = −(1/η) Ave_c delta_{c,c} h_c^T, η the weight decay.

    W_class is the likely reading of the paper. With stationary weights W = −(1/η) ∂L/∂W; batch norm in train mode keeps
    training from such a point, so the residual is reported.

    Returns arrays over the layers, and for each l = 0, 1, ... singular values, descending:
        layers [L]: names.
        layer<l>_singular [min(O, D)]: of W (convolutions: kernels flattened).       layer<l>_class [C]: of W_class.
        layer<l>_subtracted: of W − W_class.
        layer<l>_scaled: of W − a W_class, a minimising its norm (ours: the direction without the size of W_class).
        layer<l>_projected: of (I − Q Q^T) W (I − R R^T), Q and R spanning the columns and rows of W_class.
        stationarity [L]: ‖W + ∇L/η‖ / ‖W‖.         gradient_cosine, class_cosine [L]: of W with −∇L and with W_class.
        scale [L]: a.
        left_overlap, right_overlap [L]: mean squared cosine of the top C singular vectors of W with Q and with R; for
        random vectors it would be C/O and C/D, `left_chance`, `right_chance` [L].

    Raises:
        ValueError: the network was trained without weight decay, or layers share weights.
    """
    if network.weight_decay <= 0:
        raise ValueError(
            f"{network.cell} was trained without weight decay; W_class = −(1/η) Ave delta h^T is not defined"
        )
    data = network.batches()
    layers = network.layers()
    check_layer_gradients(network.model, data[0][0], layers)
    moments = weight_moments(network.model, data, layers)

    def of_layer(name: str) -> tuple[dict[str, Tensor], dict[str, float]]:
        W = network.model.get_submodule(name).weight.detach().flatten(1).double()  # type: ignore[union-attr, operator]
        return describe(W, moments[name], network.weight_decay)

    return layer_by_layer(enumerate(moments), of_layer)


def describe(W: Tensor, moments: WeightMoments, decay: float) -> tuple[dict[str, Tensor], dict[str, float]]:  # W [O, D]
    """Singular values of W and its knockouts, and the numbers that are drawn over the layers."""
    left, right = moments.shares[:, None] * moments.errors / -decay, moments.features  # [C, O], [C, D]
    W_class, C = left.T @ right, len(left)
    U, singular, Vh = torch.linalg.svd(W, full_matrices=False)
    Q, R = row_space(left), row_space(right)
    scale = (W * W_class).sum() / W_class.square().sum()
    spectra = {
        "singular": singular,
        "class": torch.linalg.svdvals(W_class)[:C],
        "subtracted": torch.linalg.svdvals(W - W_class),
        "scaled": torch.linalg.svdvals(W - scale * W_class),
        "projected": torch.linalg.svdvals(without(without(W.T, Q).T, R)),
    }
    curve = {
        "stationarity": float((W + moments.gradient / decay).norm() / W.norm()),
        "gradient_cosine": cosine(W, -moments.gradient),
        "class_cosine": cosine(W, W_class),
        "scale": float(scale),
        "left_overlap": float((Q @ U[:, :C]).square().sum() / min(C, U.shape[1])),
        "right_overlap": float((R @ Vh[:C].T).square().sum() / min(C, len(Vh))),
        "left_chance": min(1.0, C / W.shape[0]),
        "right_chance": min(1.0, C / W.shape[1]),
    }
    return spectra, curve


def without(A: Tensor, basis: Tensor) -> Tensor:  # [K, D], [rank, D] -> [K, D]
    """The rows of A with their components along the orthonormal rows of `basis` taken out."""
    return A - (A @ basis.T) @ basis


def cosine(A: Tensor, B: Tensor) -> float:
    return float((A * B).sum() / (A.norm() * B.norm()))
