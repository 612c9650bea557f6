"""Multinomial logistic regression on Gaussian classes: the spectrum of E G in closed form (Papyan 2020, Section 8).

x_{i,c} = t e_c + z with z ~ N(0, I_D), D >= C; s = t² is the signal-to-noise ratio. The parameters are W [D, C] with
logits W^T x, flattened by rows, so that G = Ave x x^T ⊗ (diag p − p p^T). Theorem 8.1 takes p as constant in each
class: p_{c,c} = 1 − alpha and p_{c,c'} = alpha / (C − 1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor


class Levels(NamedTuple):
    """The distinct eigenvalues of E G in decreasing order (Theorem 8.1), and how often each occurs."""

    values: Tensor  # [4]  outliers, mini-bulk, bulk, zero; float64
    multiplicities: Tensor  # [4]  C, C (C − 2), (D − C)(C − 1), D; int64


def levels(*, classes: int, features: int, snr: float, alpha: float) -> Levels:
    """Theorem 8.1. With beta = alpha / (C − 1) and kappa = 2 − beta C the first three are beta times
    snr (1 − alpha) + kappa, snr / C + kappa, and kappa.

    The order assumes 1 − alpha >= 1/C, that is a classifier no worse than chance.
    """
    _check(classes, features, alpha)
    C, beta = classes, alpha / (classes - 1)
    kappa = 2 - beta * C
    values = [beta * (snr * (1 - alpha) + kappa), beta * (snr / C + kappa), beta * kappa, 0.0]
    counts = [C, C * (C - 2), (features - C) * (C - 1), features]
    return Levels(torch.tensor(values, dtype=torch.float64), torch.tensor(counts))


def constant_covariances(classes: int, alpha: float) -> Tensor:  # -> [C, C, C]
    """U^c = diag(p_c) − p_c p_c^T of the constant, symmetric probabilities."""
    p = torch.full((classes, classes), alpha / (classes - 1), dtype=torch.float64)
    p.fill_diagonal_(1 - alpha)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def expected_gauss_newton(*, classes: int, features: int, snr: float, alpha: float) -> Tensor:  # -> [D C, D C]
    """Lemma 8.1: E G = (s/C) blkdiag(U^1, ..., U^C, 0) + I_D ⊗ Ave_c U^c."""
    _check(classes, features, alpha)
    U = constant_covariances(classes, alpha)
    bulk = torch.kron(torch.eye(features, dtype=torch.float64), U.mean(dim=0))
    C = classes
    bulk[: C * C, : C * C] += torch.block_diag(*(snr / C * U))
    return bulk


def sample(
    *, classes: int, features: int, snr: float, examples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`examples` points x [N, D] in float64, classes in turn, and their labels y [N]."""
    y = torch.arange(examples) % classes
    x = torch.randn(examples, features, dtype=torch.float64, generator=generator)
    x[torch.arange(examples), y] += snr**0.5
    return x, y


def constant_gauss_newton(x: Tensor, y: Tensor, *, classes: int, alpha: float) -> Tensor:  # [N, D], [N] -> [D C, D C]
    """G of a sample under the theorem's constant probabilities: Σ_c (1/N Σ_{i in c} x x^T) ⊗ U^c."""
    U = constant_covariances(classes, alpha)
    return sum((torch.kron(x[y == c].T @ x[y == c] / len(x), U[c]) for c in range(classes)), torch.zeros(()))


def softmax_gauss_newton(x: Tensor, *, classes: int, snr: float, batch: int = 1024) -> Tensor:  # [N, D] -> [D C, D C]
    """G of a sample at the Bayes classifier, whose probabilities softmax(t x_1, ..., t x_C) depend on x."""
    D = x.shape[1]
    total = x.new_zeros(D * D, classes * classes)
    for rows in x.split(batch):
        p = (snr**0.5 * rows[:, :classes]).softmax(dim=1)
        U = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        total += (rows[:, :, None] * rows[:, None, :]).flatten(1).T @ U.flatten(1)
    return (total / len(x)).reshape(D, D, classes, classes).transpose(1, 2).reshape(D * classes, D * classes)


def bayes_error(snr: float, classes: int, nodes: int = 200) -> float:
    """1 − E Φ(t + Z)^{C−1}, the misclassification rate of argmax_c x_c, by Gauss-Hermite quadrature."""
    z, weights = hermegauss(nodes)
    right = torch.special.log_ndtr(torch.from_numpy(z) + snr**0.5) * (classes - 1)
    return float(-torch.expm1(right) @ torch.from_numpy(weights / np.sqrt(2 * np.pi)))


def _check(classes: int, features: int, alpha: float) -> None:
    if not features >= classes >= 2:
        raise ValueError(f"{classes} classes in {features} features; Theorem 8.1 needs D >= C >= 2")
    if not 0 <= alpha <= 1 - 1 / classes:
        raise ValueError(f"alpha = {alpha} is not between 0 and 1 − 1/C, the error of guessing")
