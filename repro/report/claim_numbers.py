"""The numbers that decide the paper's claims, each from the arrays of one stored measurement (numpy only).

C outliers or C − 1? G_class has rank C, but one direction of the logits is flat, so that C − 1 are expected; numbers
about "the outliers" take the largest C − 1 eigenvalues, and the count itself is a claim of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import spearmanr

from repro.spectra.exact import over_epochs
from repro.spectra.record import Spectrum

Arrays = Mapping[str, np.ndarray]


def descending(values: np.ndarray) -> np.ndarray:
    return np.sort(values)[::-1]


def trend(values: np.ndarray) -> float:
    """Spearman's rank correlation of finite values with their position: 1 rises all along, −1 falls."""
    values = values[np.isfinite(values)]
    return float(spearmanr(np.arange(len(values)), values).statistic)


# hessian_spectrum


def outlier_to_bulk(arrays: Arrays, name: str) -> float:
    """The (C−1)-th largest eigenvalue over the largest, in magnitude, of all that are not among the top C."""
    spectrum = Spectrum.from_arrays(arrays, name)
    return float(descending(spectrum.eigenvalues)[-2] / spectrum.bulk().largest)


def outlier_difference(arrays: Arrays) -> float:
    """Median of |λ_k(Hess) − λ_k(G)| / λ_k(Hess) over the outliers, on training data."""
    hessian, gauss_newton = (
        descending(Spectrum.from_arrays(arrays, f"train_{matrix}").eigenvalues)[:-1]
        for matrix in ("hessian", "gauss_newton")
    )
    return float(np.median(np.abs(hessian - gauss_newton) / np.abs(hessian)))


def residual_share_of_bulk(arrays: Arrays) -> float:
    """tr E² over tr E² + tr G², both without the outliers of G, on training data."""
    bulk_of_G = Spectrum.from_arrays(arrays, "train_gauss_newton").bulk().moment(2)
    E = Spectrum.from_arrays(arrays, "train_residual").moment(2)
    return E / (E + bulk_of_G)


# exact_spectrum, gauss_newton_knockouts


def outliers_left(arrays: Arrays, knocked_out: str) -> float:
    """Sum of the C − 1 largest eigenvalues after a knockout, over the same sum before."""
    count = len(arrays["class_part"]) - 1
    if (exact := f"subtraction_{knocked_out}") in arrays:
        left, before = arrays[exact][:count], arrays["eigenvalues"][:count]
    else:
        spectra = (Spectrum.from_arrays(arrays, name) for name in (knocked_out, "full"))
        left, before = (descending(spectrum.eigenvalues)[:count] for spectrum in spectra)
    return float(left.clip(min=0).sum() / before.sum())


# alignment


def overlapping(arrays: Arrays, matrix: str) -> int:
    """How many of the top eigenvectors lie by more than one half in the span of the class means."""
    return int((arrays[f"{matrix}_overlap_class"] > 0.5).sum())


def classes(arrays: Arrays) -> int:
    return len(arrays["class_part"])


def outlier_share(arrays: Arrays, name: str) -> float:
    """Median over the outliers of a share or overlap."""
    return float(np.median(arrays[name][: classes(arrays) - 1]))


def mini_bulk_overlap(arrays: Arrays) -> float:
    """Mean overlap with the cross-class span of G's eigenvectors from the C-th on, as far as they are measured."""
    return float(arrays["gauss_newton_overlap_cross"][classes(arrays) - 1 :].mean())


def companion_difference(arrays: Arrays) -> float:
    """Median relative difference of Hess's outliers and the eigenvalues of the companion's G1."""
    outliers = arrays["hessian_eigenvalues"][: classes(arrays) - 1]
    return float(np.median(np.abs(descending(arrays["companion_class_part"])[: len(outliers)] - outliers) / outliers))


# layers


def kronecker_gain(arrays: Arrays, layer: int) -> float:
    """Distance of CFAC's log spectrum to that of G^l over KFAC's; below one, CFAC is the better."""
    kfac, cfac, _ = arrays["wasserstein"][layer]
    return float(cfac / kfac)


# logistic_regression


def theorem_error(arrays: Arrays) -> float:
    """Largest relative difference of the theorem's levels and the mean eigenvalues of a sample, zero level apart."""
    ends = np.cumsum(arrays["multiplicities"])
    groups = np.split(arrays["constant_eigenvalues"], ends[:-1])[:3]
    found = np.array([group.mean() for group in groups])
    return float(np.abs(found / arrays["levels"][:3] - 1).max())


# exact_spectrum, dynamics


def gap_change(arrays: Arrays) -> float:
    """Range, over the later half of training, of log10 of G_class's mean eigenvalue over G_within's largest.

    Raises:
        KeyError: there are not two checkpoints in the later half.
    """
    epochs = arrays["epochs"]
    late = [at for at, epoch in enumerate(epochs) if epoch >= epochs[-1] / 2]
    if len(late) < 2:
        raise KeyError("epochs")
    if "within_largest" in arrays:  # exact_spectrum
        spectra = list(over_epochs(arrays).values())
        means = np.array([spectra[at].part("class").mean() for at in late])
        largest = np.array([spectra[at].arrays["within_largest"] for at in late])
    else:
        dim = int(arrays["gauss_newton_dim"])
        means = arrays["class_part"][late].mean(axis=1)
        largest = np.array([Spectrum.from_arrays(arrays, "within", at=at, dim=dim).largest for at in late])
    return float(np.ptp(np.log10(means / largest)))
