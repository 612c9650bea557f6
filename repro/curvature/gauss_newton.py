"""The Gauss-Newton part of the Hessian of the mean cross-entropy (Papyan 2020, Section 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.curvature.derivatives import Derivatives, Recorded
from repro.curvature.loss import curvature
from repro.curvature.proof import Need
from repro.curvature.risk import RiskOperator


class GaussNewton(RiskOperator):
    """G = 1/N Σ_i J_i^T (diag(p_i) − p_i p_i^T) J_i (plus weight decay times the identity).

    For the softmax cross-entropy G is also the Fisher information matrix, so it is positive semidefinite and does not
    depend on the labels, unless class weights make it do so.

    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Linear(4, 3).double().eval()
    >>> x, y = torch.randn(30, 4).double(), torch.arange(30) % 3
    >>> G = GaussNewton(model, [(x, y)]).dense()
    >>> bool(torch.linalg.eigvalsh(G).min() > -1e-12)
    True
    """

    need: Need = "tangent"

    def cotangent(self, logits: Tensor, y: Tensor) -> Tensor:  # [B, C], [B] -> [B, C]
        """Any u serves, as J^T u is linear in it; none of its entries is zero, where some operations have no slope."""
        return torch.linspace(0.5, 1.5, logits.numel()).to(logits).view_as(logits).requires_grad_()

    def add_product(self, derivatives: Derivatives, recorded: Recorded, y: Tensor) -> None:
        """J v first, then (diag(p) − p p^T) times it, then J^T of that: all from the graph of J^T u and the logits."""
        p = recorded.logits.detach().softmax(dim=1)  # [B, C]
        derivatives.add_pull_back(recorded, self.weights(y) * curvature(p, derivatives.tangent(recorded)))
