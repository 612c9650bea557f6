"""Outliers and misclassification in multinomial logistic regression (Papyan 2020, Section 8; as Figure 14 a guess)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from repro.curvature import logistic

VERSION = 1


@dataclass
class Settings:
    """The problem, and the signal-to-noise ratios s = t² at which it is looked at."""

    classes: int = 10  # C, as in the data sets (ours)
    features: int = 20  # D; the theorem needs D >= C (ours)
    examples: int = 10000  # points of each sample (ours)
    snr: float = 4.0  # s of the spectra (ours)
    snrs: list[float] = field(default_factory=lambda: [0.25, 0.5, 1, 2, 4, 6, 9, 12, 16, 20])  # s of the curves (ours)
    seed: int = 0


def measure(settings: Settings) -> dict[str, np.ndarray]:
    """Theorem 8.1 beside samples: under its constant probabilities, and under the true softmax ones.

    alpha, the theorem's probability of the wrong classes, is set to the Bayes error at each signal-to-noise ratio.

    Returns:
        levels, multiplicities [4]: the theorem's eigenvalues at `snr`, outliers first.
        expected_eigenvalues, constant_eigenvalues, softmax_eigenvalues [C D]: of Lemma 8.1's matrix, of a sample with
            constant probabilities and of one with the softmax of the Bayes classifier, descending.
        alpha: the Bayes error at `snr`.
        snrs, bayes_error [K]; outlier_ratio, minibulk_ratio [K]: the theorem's levels over its bulk.
        softmax_outlier_ratio, softmax_minibulk_ratio [K]: of the samples with softmax probabilities: the mean of the
            top C − 1 eigenvalues, and of the next C (C − 2), over the median of the other non-zero ones.
        error_rate [K]: misclassification on the samples.
        dimensions [2]: C and D.
    """
    classes, features, examples, snr = settings.classes, settings.features, settings.examples, settings.snr
    shape = {"classes": classes, "features": features}
    generator = torch.Generator().manual_seed(settings.seed)
    alpha = logistic.bayes_error(snr, classes)
    x, y = logistic.sample(**shape, snr=snr, examples=examples, generator=generator)
    values, counts = logistic.levels(**shape, snr=snr, alpha=alpha)
    matrices = {
        "expected": logistic.expected_gauss_newton(**shape, snr=snr, alpha=alpha),
        "constant": logistic.constant_gauss_newton(x, y, classes=classes, alpha=alpha),
        "softmax": logistic.softmax_gauss_newton(x, classes=classes, snr=snr),
    }
    rows = [_at(s, shape, examples, generator) for s in settings.snrs]
    return {
        "dimensions": np.array([classes, features]),
        "alpha": np.array(alpha),
        "levels": values.numpy(),
        "multiplicities": counts.numpy(),
        **{f"{name}_eigenvalues": torch.linalg.eigvalsh(A).flip(0).numpy() for name, A in matrices.items()},
        **{name: np.array([row[name] for row in rows]) for name in rows[0]},
    }


def _at(snr: float, shape: dict[str, int], examples: int, generator: torch.Generator) -> dict[str, float]:
    """One point of the curves."""
    C = shape["classes"]
    error = logistic.bayes_error(snr, C)
    outlier, minibulk, bulk, _ = logistic.levels(**shape, snr=snr, alpha=error).values
    x, y = logistic.sample(**shape, snr=snr, examples=examples, generator=generator)
    measured = torch.linalg.eigvalsh(logistic.softmax_gauss_newton(x, classes=C, snr=snr)).flip(0)
    level = _bulk(measured, shape)
    return {
        "snrs": snr,
        "bayes_error": error,
        "error_rate": float((x[:, :C].argmax(dim=1) != y).double().mean()),
        "outlier_ratio": float(outlier / bulk),
        "minibulk_ratio": float(minibulk / bulk),
        "softmax_outlier_ratio": float(measured[: C - 1].mean() / level),
        "softmax_minibulk_ratio": float(measured[C - 1 : C - 1 + C * (C - 2)].mean() / level),
    }


def _bulk(eigenvalues: Tensor, shape: dict[str, int]) -> Tensor:  # [C D] descending -> []
    """Median of the non-zero eigenvalues, of which there are D (C − 1), below the leading C − 1 + C (C − 2)."""
    C, D = shape["classes"], shape["features"]
    return eigenvalues[C - 1 + C * (C - 2) : D * (C - 1)].median()
