"""What the paper claims, each claim as a number of one measurement with the bound that makes it hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from repro.report import claim_numbers as numbers
from repro.report.claim_numbers import Arrays


class Claim(NamedTuple):
    """One claim of the paper as a number of one measurement, and the bound that makes it hold; the bound is ours.

    Raises:
        KeyError: by `compute`, where the experiment measured less than it takes.
    """

    section: str  # where the paper makes it
    statement: str
    number: str  # what `compute` returns, in words
    measurement: str
    compute: Callable[[Arrays], float]
    relation: str  # ">=" or "<="
    bound: float
    figure: str  # the number of the figure that shows it
    model: str = ""  # the networks it is about; empty: all
    why: str = ""  # where it is known why it may fail here: "scale: ...", "training: ..." or "statement: ..."
    fallback: str = ""  # another measurement with what `compute` takes, for cells that the first has not

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.relation == ">=" else value <= self.bound


SHORT = "training: the outliers turn into the span of the class means late; few epochs leave some of them out of it"
FLAT = "statement: one direction of the logits is flat, so that C − 1 are expected"
MERGED = "scale: with some tens of images per class the eigenvalues of G_cross lie inside the bulk, as Figure x10 shows"
COMPANION = "statement: of the companion paper, whose G1 leaves out the weights that G_class has"
FREE = "training: batch norm leaves the size of the weights free, so that SGD ends at no stationary point"

SPECTRUM = [
    Claim("4, Fig 3", "The training Hessian has outliers beyond its bulk",
          "the (C−1)-th eigenvalue over the bulk's edge", "hessian_spectrum",
          lambda a: numbers.outlier_to_bulk(a, "train_hessian"), ">=", 1.2, "3"),
    Claim("4, Fig 3", "The test Hessian has outliers beyond its bulk",
          "the (C−1)-th eigenvalue over the bulk's edge", "hessian_spectrum",
          lambda a: numbers.outlier_to_bulk(a, "test_hessian"), ">=", 1.2, "3"),
    Claim("5, Fig 4", "The outliers of Hess are those of G",
          "median relative difference of the top C−1 eigenvalues", "hessian_spectrum",
          numbers.outlier_difference, "<=", 0.1, "4"),
    Claim("5, Fig 4", "The bulk of Hess comes largely from E",
          "tr E² over tr E² + tr G² without G's outliers", "hessian_spectrum",
          numbers.residual_share_of_bulk, ">=", 0.5, "4"),
]  # fmt: skip
STRUCTURE = [
    Claim("6, Fig 5", "Knocking out G_class removes the outliers of G",
          "sum of the top C−1 eigenvalues that is left", "exact_spectrum",
          lambda a: numbers.outliers_left(a, "class"), "<=", 0.5, "5", fallback="gauss_newton_knockouts"),
    Claim("6, Fig 5", "Knocking out G_cross leaves the outliers",
          "sum of the top C−1 eigenvalues that is left", "exact_spectrum",
          lambda a: numbers.outliers_left(a, "cross"), ">=", 0.9, "5", fallback="gauss_newton_knockouts"),
    Claim("6, Fig 5", "Knocking out G_{c=c'} changes nothing visible",
          "sum of the top C−1 eigenvalues that is left", "exact_spectrum",
          lambda a: numbers.outliers_left(a, "same"), ">=", 0.9, "5", fallback="gauss_newton_knockouts"),
    Claim("6", "Outliers of Hess: there are at least C−1",
          "eigenvectors more than half in span{g_c}, over C−1", "alignment",
          lambda a: numbers.overlapping(a, "hessian") / (numbers.classes(a) - 1), ">=", 1, "x2", why=SHORT),
    Claim("4, 6", "Outliers of Hess: there are C (a replication finds C−1)",
          "eigenvectors more than half in span{g_c}, over C", "alignment",
          lambda a: numbers.overlapping(a, "hessian") / numbers.classes(a), ">=", 1, "x2", why=FLAT),
    Claim("6", "The outliers of G are attributed to G_class",
          "median share of G_class in the top C−1 eigenvalues", "alignment",
          lambda a: numbers.outlier_share(a, "gauss_newton_share_class"), ">=", 0.5, "x2", why=SHORT),
    Claim("5", "E contributes little to the outliers of Hess",
          "median share of E in the top C−1 eigenvalues", "alignment",
          lambda a: abs(numbers.outlier_share(a, "hessian_share_residual")), "<=", 0.1, "x2"),
    Claim("5, 6", "Hess and G share the eigenspace of their outliers",
          "cosine of the (C−1)-th principal angle", "alignment",
          lambda a: a["hessian_gauss_newton_cosines"][-2], ">=", 0.9, "x2"),
    Claim("6", "That eigenspace is the span of the class means",
          "cosine of the (C−1)-th principal angle", "alignment",
          lambda a: a["hessian_class_cosines"][-2], ">=", 0.7, "x2", why=SHORT),
    Claim("6, Fig 5", "The mini-bulk is attributed to G_cross",
          "mean overlap with its span of the eigenvectors below the outliers", "alignment",
          numbers.mini_bulk_overlap, ">=", 0.5, "x2", why=MERGED),
    Claim("companion M19", "Outliers of Hess agree with the eigenvalues of G1",
          "median relative difference", "alignment",
          numbers.companion_difference, "<=", 0.25, "x4", why=COMPANION),
    Claim("6, Fig 6", "The distance of G_class to G_within changes little",
          "range of log10 of their ratio over the checkpoints of the later half of training", "exact_spectrum",
          numbers.gap_change, "<=", 0.5, "6", fallback="dynamics"),
]  # fmt: skip
LAYERS = [
    Claim("7, Figs 7-8", "The largest outlier of the features goes with the global mean",
          "median over layers of their squared cosine", "layer_features",
          lambda a: np.median(a["global_share"][:-1]), ">=", 0.9, "8", "mlp"),
    Claim("7, Figs 7-8", "The outliers of the features are the class means",
          "overlap with their span at the last hidden layer", "layer_features",
          lambda a: a["class_overlap"][-2], ">=", 0.9, "8", "mlp"),
    Claim("7, Figs 7-8", "Feature outliers emerge with depth",
          "rank correlation of layer and tr H_class / tr H", "layer_features",
          lambda a: numbers.trend(a["class_share"][:-1]), ">=", 0.5, "8", "mlp"),
    Claim("7, Figs 7-8", "Class means of features become orthogonal with depth",
          "rank correlation of layer and the ratio of their second to smallest eigenvalue", "layer_features",
          lambda a: numbers.trend(a["class_ratio"][:-1]), "<=", -0.5, "8", "mlp"),
    Claim("7, Figs 9-10", "The outliers of the errors are the class means near the output",
          "overlap with their span at the last hidden layer", "layer_errors",
          lambda a: a["class_overlap"][-2], ">=", 0.9, "10", "mlp"),
    Claim("7, Figs 9-10", "Error outliers are lost towards the input",
          "rank correlation of layer and overlap", "layer_errors",
          lambda a: numbers.trend(a["class_overlap"]), ">=", 0.5, "10", "mlp"),
    Claim("7, Figs 9-10", "Class means of errors are nearly orthogonal at the last layer",
          "ratio of their largest to (C−1)-th eigenvalue at the logits", "layer_errors",
          lambda a: a["class_ratio"][-1], "<=", 10, "10", "mlp"),
    Claim("7, Figs 11-12", "CFAC is closer to G^l than KFAC near the output",
          "CFAC's distance over KFAC's at the last layer but one", "kronecker_factors",
          lambda a: numbers.kronecker_gain(a, -2), "<=", 0.5, "12", "mlp"),
    Claim("7, Figs 11-12", "CFAC gains nothing near the input",
          "CFAC's distance over KFAC's at the second layer", "kronecker_factors",
          lambda a: numbers.kronecker_gain(a, 1), ">=", 0.8, "12", "mlp"),
    Claim("7", "Gradient class means are Kronecker products, g_c ≈ δ_c ⊗ h_c",
          "median cosine at the last layer", "kronecker_factors",
          lambda a: np.median(a["class_cosines"][-1]), ">=", 0.9, "12", "mlp"),
    Claim("7, Fig 13", "The top C singular vectors of W come from W_class",
          "median over layers of the right singular vectors' overlap", "weights",
          lambda a: np.median(a["right_overlap"]), ">=", 0.5, "13", "mlp"),
    Claim("7", "Weights are stationary, W = −∇L/η", "median over layers of ‖W + ∇L/η‖ / ‖W‖", "weights",
          lambda a: np.median(a["stationarity"]), "<=", 0.1, "13", "mlp", why=FREE),
]  # fmt: skip
LOGISTIC = [
    Claim("8, Theorem 8.1", "Outliers, mini-bulk and bulk lie where the theorem puts them",
          "largest relative difference of the three levels in a sample", "logistic_regression",
          numbers.theorem_error, "<=", 0.1, "14"),
    Claim("8.2", "The outlier-to-bulk ratio grows as misclassification falls",
          "rank correlation of measured ratio and signal-to-noise", "logistic_regression",
          lambda a: numbers.trend(a["softmax_outlier_ratio"]), ">=", 0.9, "14"),
]  # fmt: skip
CLAIMS = SPECTRUM + STRUCTURE + LAYERS + LOGISTIC
