"""Second moments of features and errors, and their class and cross-class parts (Papyan 2020, Section 7, Eqs. 7.5-7.8).

Moments are uncentred, and added up in float64: their spectra span more decades than float32 tells apart. For a layer
that acts at several positions (a convolution) a choice of `sharing` says what one sample of an example is (Eschenhagen
et al. 2023):

    expand    every position is a sample: H = Ave_{i,t} h_t h_t^T, delta likewise
    reduce    one sample an example: the mean of h_t, and the sum of delta_t, over positions

A linear layer on vectors has one position, and both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from repro.curvature import checks
from repro.curvature.batches import Batches, checked_batches
from repro.curvature.classifier import prepared
from repro.curvature.cross_class import SPANNED_PARTS, ClassStructure, structure_of
from repro.curvature.gradients import CrossClassSums
from repro.curvature.layers import Captured, capture, check_errors
from repro.linalg.operator import Dense, LowRank, Projected, orthonormal_basis

Sharing = Literal["expand", "reduce"]


class FeatureMoments(NamedTuple):
    """H = Ave h h^T = H_class + H_within with H_class = Σ_c (n_c/N) h_c h_c^T."""

    second: Tensor  # [D, D]  H
    means: Tensor  # [C, D]  h_c
    shares: Tensor  # [C]  n_c / N, sums to one

    @property
    def global_mean(self) -> Tensor:  # [D]
        return self.shares @ self.means

    def class_rows(self) -> Tensor:  # -> [C, D]
        """Rows √(n_c/N) h_c, whose outer products add up to H_class."""
        return self.shares.sqrt()[:, None] * self.means


class ErrorMoments(NamedTuple):
    """Delta = Σ w delta delta^T = Delta_class + Delta_cross + Delta_within + Delta_{c=c'}, with w = p/N."""

    second: Tensor  # [O, O]  Delta
    counts: Tensor  # [C]  examples of each class
    sums: Tensor  # [C, C, O]  Σ_i w_{i,c,c'} delta_{i,c,c'}
    weights: Tensor  # [C, C]  w_{c,c'}; sums to one

    def structure(self) -> ClassStructure:
        """The decomposition of Delta, which is that of G with errors in the place of gradients."""
        return structure_of(CrossClassSums(self.counts, self.weights, self.sums.clone()))

    def class_means(self) -> Tensor:  # -> [C, O]
        """delta_c, the weighted mean over the examples of class c and all c' ≠ c."""
        return self.structure().class_means()

    def parts(self) -> dict[str, Tensor]:  # -> rows [K, O]
        """Rows whose outer products add up to Delta_class (K = C), Delta_cross (K = C²) and Delta_{c=c'} (K = C)."""
        structure = self.structure()
        return {part: structure.part(part).columns().T for part in SPANNED_PARTS}


class WeightMoments(NamedTuple):
    """What a stationary W = −(1/η) Ave delta_{i,c,c} h_i^T is made of; plain means over the examples of each class."""

    gradient: Tensor  # [O, D]  Ave_i Σ_t delta_{i,c,c,t} h_{i,t}^T, the gradient of the mean loss
    errors: Tensor  # [C, O]  Ave_i Σ_t delta_{i,c,c,t}
    features: Tensor  # [C, D]  h_c, for a convolution the mean over positions too
    shares: Tensor  # [C]  n_c / N


def rest(second: Tensor, rows: Tensor) -> Tensor:  # [D, D], [K, D] -> [D, D]
    """The subtraction knockout A − Σ_k b_k b_k^T (Definition 3.1)."""
    return (Dense(second) - LowRank(rows.T, rows.new_ones(len(rows)))).dense()


def projected(second: Tensor, rows: Tensor) -> Tensor:  # [D, D], [K, D] -> [D, D]
    """The projection knockout (I − B B†) A (I − B B†), B having the given rows as columns (Definition 3.2)."""
    return Projected(Dense(second), row_space(rows).T).dense()


def row_space(rows: Tensor) -> Tensor:  # [K, D] -> [rank, D]
    """Orthonormal rows that span those given, strongest direction first."""
    return orthonormal_basis(rows.T).T


def feature_samples(h: Tensor, sharing: Sharing) -> Tensor:  # [B, T, D] -> [B, T or 1, D]
    """The samples of h that moments average."""
    return h.mean(dim=1, keepdim=True) if sharing == "reduce" else h


def error_samples(delta: Tensor, sharing: Sharing) -> Tensor:  # [B, C, T, O] -> [B, C, T or 1, O]
    """The samples of delta that moments average."""
    return delta.sum(dim=2, keepdim=True) if sharing == "reduce" else delta


def feature_moments(
    model: nn.Module, data: Batches, layers: Sequence[str], *, sharing: Sharing
) -> dict[str, FeatureMoments]:
    """Moments of the input of each layer and, under the name "logits", of the model's output; one forward pass.

    What enters layer l+1 is h^l after its ReLU; the first layer's input is h^0 = x. For a convolution it is the patch
    under the kernel. Memory: D² numbers a layer.
    """
    totals: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    counts = None
    model, data = prepared(model, data)
    for x, y in checked_batches(model, data):
        seen = capture(model, x, layers, bias=False, errors=False)
        counts = _count(counts, y, seen)
        for name, h in {**seen.h, "logits": seen.logits[:, None]}.items():
            h = feature_samples(h, sharing).double()
            _accumulate(totals, name, torch.einsum("btd,bte->de", h, h) / h.shape[1])
            _accumulate(sums, name, _by_class(h.mean(dim=1), y, seen))
    assert counts is not None  # there is a batch
    for name, total in totals.items():
        check_not_zero(total, f"the features that enter layer {name!r}")
    N = counts.sum()
    return {
        name: FeatureMoments(totals[name] / N, sums[name] / counts.clamp(min=1)[:, None], counts / N) for name in totals
    }


def error_moments(
    model: nn.Module, data: Batches, layers: Sequence[str], *, sharing: Sharing
) -> dict[str, ErrorMoments]:
    """Moments of the errors of each layer, all C would-be labels of a batch from one forward and C backward passes.

    Memory: O² + C² O numbers a layer, and one batch's errors of all layers.
    """
    totals: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    counts = weights = None
    model, data = prepared(model, data)
    check_errors(model, data, layers)
    for x, y in checked_batches(model, data):
        seen = capture(model, x, layers, bias=False)  # a bias changes no error
        counts = _count(counts, y, seen)
        p = seen.p.double()
        weights = _by_class(p, y, seen) + (0 if weights is None else weights)
        for name, delta in seen.delta.items():
            delta = error_samples(delta, sharing).double()
            scaled = p[:, :, None, None] * delta
            _accumulate(totals, name, scaled.flatten(0, 2).T @ delta.flatten(0, 2) / delta.shape[2])
            by_class = _by_class(scaled.mean(dim=2).flatten(1), y, seen)
            _accumulate(sums, name, by_class.reshape(*weights.shape, -1))
    assert counts is not None  # there is a batch
    assert weights is not None
    for name, total in totals.items():
        check_not_zero(total, f"the errors of layer {name!r}")
    N = counts.sum()
    return {name: ErrorMoments(totals[name] / N, counts, sums[name] / N, weights / N) for name in totals}


def weight_moments(model: nn.Module, data: Batches, layers: Sequence[str]) -> dict[str, WeightMoments]:
    """Gradient of each layer's weights and class means of its errors at the true label, without biases."""
    totals: dict[str, Tensor] = {}
    counts = None
    model, data = prepared(model, data)
    check_errors(model, data, layers)
    for x, y in checked_batches(model, data):
        seen = capture(model, x, layers, bias=False)
        counts = _count(counts, y, seen)
        for name in layers:
            h, delta = seen.h[name].double(), seen.delta[name][torch.arange(len(y)), y].double()  # [B, T, D], [B, T, O]
            _accumulate(totals, f"{name} gradient", torch.einsum("bto,btd->od", delta, h))
            _accumulate(totals, f"{name} errors", _by_class(delta.sum(dim=1), y, seen))
            _accumulate(totals, f"{name} features", _by_class(h.mean(dim=1), y, seen))
    assert counts is not None  # there is a batch
    for name in layers:
        check_not_zero(totals[f"{name} errors"], f"the errors of layer {name!r}")
    N, n = counts.sum(), counts.clamp(min=1)[:, None]  # a class without examples has share zero
    return {
        name: WeightMoments(
            totals[f"{name} gradient"] / N, totals[f"{name} errors"] / n, totals[f"{name} features"] / n, counts / N
        )
        for name in layers
    }


def check_not_zero(total: Tensor, what: str) -> None:
    """Refuse features or errors of a layer that are all zero, as the errors below a head that is initialised to zero.

    Raises:
        ValueError: they are.
    """
    if not total.any():
        raise ValueError(
            f"{what} are all zero, so they have no spectrum: its units are dead, or the head is initialised to zero;"
            " train the network, or choose other layers"
        )


def _accumulate(totals: dict[str, Tensor], name: str, value: Tensor) -> None:
    if name in totals:
        totals[name] += value
    else:
        totals[name] = value


def _by_class(rows: Tensor, y: Tensor, seen: Captured) -> Tensor:  # [B, K] -> [C, K]
    """Sum of the rows of each class."""
    return one_hot(y, seen.p.shape[1]).to(rows.dtype).T @ rows


def _count(counts: Tensor | None, y: Tensor, seen: Captured) -> Tensor:  # -> [C]
    checks.check_logits(seen.logits, y)
    new = torch.bincount(y, minlength=seen.p.shape[1]).double()
    return new if counts is None else counts + new
