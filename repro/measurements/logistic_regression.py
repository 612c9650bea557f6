"""Outliers and misclassification in multinomial logistic regression (Papyan 2020, Section 8; as Figure 14 a guess)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from repro.curvature import logistic


def measure(
    *, classes: int, features: int, examples: int, snr: float, snrs: Sequence[float], seed: int
) -> dict[str, np.ndarray]:
    """Theorem 8.1 beside samples: under its constant probabilities, and under the true softmax ones.

    alpha, the theorem's probability of the wrong classes, is set to the Bayes error at each signal-to-noise ratio.

    Args:
        classes, features: C and D of the problem.
        examples: points of each sample.
        snr: s = t² of the spectra.
        snrs: s of the curves.

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
    shape = {"classes": classes, "features": features}
    generator = torch.Generator().manual_seed(seed)
    alpha = logistic.bayes_error(snr, classes)
    x, y = logistic.sample(**shape, snr=snr, examples=examples, generator=generator)
    values, counts = logistic.levels(**shape, snr=snr, alpha=alpha)
    matrices = {
        "expected": logistic.expected_gauss_newton(**shape, snr=snr, alpha=alpha),
        "constant": logistic.constant_gauss_newton(x, y, classes=classes, alpha=alpha),
        "softmax": logistic.softmax_gauss_newton(x, classes=classes, snr=snr),
    }
    rows = [_at(s, shape, examples, generator) for s in snrs]
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
