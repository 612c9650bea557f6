"""G as a sum of N (C − 1) outer products, and class and cross-class means as combinations of its rows.

With q = √p of one example, a unit vector, diag(p) − p pᵀ = D (I − q qᵀ) D, D = diag(q), and I − q qᵀ = Z Zᵀ for
orthonormal columns Z [C, C−1]. So G = Σ_{i,k} b_{i,k} b_{i,k}ᵀ with C − 1 rows an example, one fewer than labels. The
columns of Z come from the Householder reflection of q onto the axis of the largest probability a:

    b_k = √(p_k / N) (g_k − τ g_a),   k ≠ a,   τ = q_a / (1 + q_a),

g_k = Jᵀ (p − y_k) being the gradient for the label k. Every row keeps its relative precision when p_a is one to
rounding and the other probabilities underflow: nothing is ever subtracted from one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot


class SoftmaxRoot(NamedTuple):
    """The factor of diag(p) − p pᵀ for each of B examples, from logarithms of probabilities in float64."""

    log_p: Tensor  # [B, C]

    @property
    def pivot(self) -> Tensor:  # [B]
        """The label a with the largest probability."""
        return self.log_p.argmax(dim=1)

    @property
    def labels(self) -> Tensor:  # [B, C-1]
        """The label k of each row: all but the pivot, in order."""
        return others(self.pivot, self.log_p.shape[1])

    @property
    def scale(self) -> Tensor:  # [B, C-1]
        """√p_k of each row; it underflows where p_k is below 1e-600."""
        return (self.log_p.gather(1, self.labels) / 2).exp()

    def combine(self, errors: Tensor) -> Tensor:  # [B, C, ...] -> [B, C-1, ...]
        """g_k − τ g_a of any quantity that is linear in the gradients for the C labels, such as a layer's errors."""
        C = self.log_p.shape[1]
        q = (self.log_p.amax(dim=1) / 2).exp()
        tau = (q / (1 + q)).to(errors.dtype).view(-1, *[1] * (errors.ndim - 1))
        flat = errors.flatten(0, 1)
        offset = torch.arange(len(errors), device=errors.device) * C
        rows = flat[self.labels + offset[:, None]]
        return rows.sub_(tau * flat[self.pivot + offset][:, None])

    def cotangents(self) -> Tensor:  # -> [B, C-1, C]
        """u with Jᵀ u = g_k − τ g_a: p_j / (1 + q_a) − 1[j = k], and q_a at the pivot."""
        C, q = self.log_p.shape[1], (self.log_p.amax(dim=1) / 2).exp()
        u = (self.log_p.exp() / (1 + q)[:, None])[:, None] - one_hot(self.labels, C)
        return u.masked_scatter(one_hot(self.pivot, C)[:, None].bool().expand_as(u), q.repeat_interleave(C - 1))


def softmax_root(logits: Tensor) -> SoftmaxRoot:  # [B, C]
    """The factor at the probabilities softmax(logits)."""
    return SoftmaxRoot(logits.double().log_softmax(dim=1))


def others(pivot: Tensor, C: int) -> Tensor:  # [...] -> [..., C-1]
    """The numbers 0 .. C−1 without the pivot, in order."""
    k = torch.arange(C - 1, device=pivot.device)
    return k + (k >= pivot[..., None])


def complement(q: Tensor, pivot: Tensor) -> Tensor:  # [B, C], [B] -> [B, C, C-1]
    """Orthonormal columns perpendicular to each unit vector q >= 0, from its reflection onto the axis `pivot`.

    Column k is e_k − q_k (q + e_a) / (1 + q_a). Where q_k is tiny so is all of the column but its one.
    """
    C = q.shape[1]
    k = others(pivot, C)
    rest, qa = q.gather(1, k), q.gather(1, pivot[:, None])  # [B, C-1], [B, 1]
    Z = -(q / (1 + qa))[:, :, None] * rest[:, None]
    Z = torch.where(one_hot(pivot, C)[:, :, None].bool(), -rest[:, None], Z)
    return Z + one_hot(k, C).transpose(1, 2)


class ClassWeights(NamedTuple):
    """Logarithms of the weights w_{c,c'} and w_c of Section 6; −inf for a class without examples."""

    log_pairs: Tensor  # [C, C]
    log_classes: Tensor  # [C]  of w_c = Σ_{c'≠c} w_{c,c'}
    examples: int

    @property
    def mass(self) -> Tensor:  # [C, C]
        """The weights w_{c,c'}, which sum to one."""
        return self.log_pairs.exp()


def class_weights(log_p: Tensor, y: Tensor) -> ClassWeights:  # [N, C], [N]
    """Sums of probabilities by class in logarithms, so that a class with certain predictions keeps its means."""
    N, C = log_p.shape
    empty = log_p.new_full((C,), -math.inf)
    rows = [log_p[y == c].logsumexp(dim=0) if bool((y == c).any()) else empty for c in range(C)]
    pairs = torch.stack(rows) - math.log(N)
    off = pairs.masked_fill(torch.eye(C, dtype=torch.bool, device=pairs.device), -math.inf)
    return ClassWeights(pairs, off.logsumexp(dim=1), N)


def mean_columns(root: SoftmaxRoot, y: Tensor, weights: ClassWeights) -> Tensor:  # -> [B, C-1, C, C]
    """Coefficients M with which the rows b of B examples make up the parts of G: part = bᵀ M Mᵀ b.

    [:, :, c, 0] gives √w_c g_c of class c and [:, :, c, 1] gives √w_{c,c} g_{c,c}. [:, :, c, 2:] give G_cross, from the
    C − 1 vectors √w_{c,c'} (g_{c,c'} − g_c): these have one linear relation, and C − 2 orthonormal combinations of them
    perpendicular to it have the same outer products. An example has coefficients in its own class alone.
    """
    log_p, pivot = root.log_p, root.pivot
    B, C = log_p.shape
    log_N, rows = math.log(weights.examples), torch.arange(B, device=y.device)
    Z = complement((log_p / 2).exp(), pivot)  # [B, C, C-1]
    m = ((log_p - log_N - weights.log_pairs[y]) / 2).exp()[:, :, None] * Z  # the row √w_{c,c'} g_{c,c'}
    spread = log_N + weights.log_classes[y]
    own = log_p[rows, y]
    sure = ((own[:, None] + log_p.gather(1, root.labels) - spread[:, None]) / 2).exp()
    unsure = -((own - spread) / 2).clamp(max=0).exp()[:, None] * Z[rows, y]
    mean = torch.where((pivot == y)[:, None], sure, unsure)  # −√(p_c / N w_c) Z[c], as Zᵀ q = 0
    compact = torch.cat([mean[:, None], m[rows, y][:, None], _cross_rows(m, mean, y, weights)], dim=1)  # [B, C, C-1]
    columns = log_p.new_zeros(B, C - 1, C, C)
    columns[rows, :, y] = compact.transpose(1, 2)
    return columns


def _cross_rows(m: Tensor, mean: Tensor, y: Tensor, weights: ClassWeights) -> Tensor:  # [B, C, C-1] -> [B, C-2, C-1]
    """m_j − a_j (mean + m_b) / (1 + a_b) with a = √(w_{c,j} / w_c), b its largest entry: the reflection in c' ≠ c."""
    B, C, _ = m.shape
    share = (weights.log_pairs - weights.log_classes[:, None]).fill_diagonal_(-math.inf)[y]  # [B, C]
    largest = share.argmax(dim=1)
    low, high = torch.minimum(y, largest), torch.maximum(y, largest)
    j = torch.arange(C - 2, device=y.device).expand(B, -1)
    j = j + (j >= low[:, None])
    j = j + (j >= high[:, None])  # all labels but c and b
    a = (share / 2).exp()
    reflected = (mean + m[torch.arange(B), largest]) / (1 + a.gather(1, largest[:, None]))
    return m.gather(1, j[:, :, None].expand(-1, -1, C - 1)) - a.gather(1, j)[:, :, None] * reflected[:, None]
