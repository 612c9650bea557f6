"""The Gauss-Newton part of the Hessian of the mean cross-entropy (Papyan 2020, Section 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.curvature.risk import Recorded, RiskOperator


class GaussNewton(RiskOperator):
    """G = 1/N Σ_i J_i^T (diag(p_i) − p_i p_i^T) J_i (plus weight decay times the identity).

    For the softmax cross-entropy G is also the Fisher information matrix, so it is positive semidefinite and does not
    depend on the labels (on the class weights' choice of them apart).
    """

    def cotangent(self, logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:  # -> [B, C]
        return torch.zeros_like(logits).requires_grad_()  # any value: J^T u is linear in u

    def multiply(self, recorded: Recorded, v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """J v is ∂/∂u of <J^T u, v>, so the recorded J^T u serves J v as well; the recorded logits serve J^T."""
        g, t = zip(*[(g, t) for g, t in zip(recorded.gradient, v) if g.requires_grad])
        (Jv,) = torch.autograd.grad(g, recorded.cotangent, t, retain_graph=True)
        p = recorded.logits.detach().softmax(dim=1)  # [B, C]
        HJv = recorded.weights * p * (Jv - (p * Jv).sum(dim=1, keepdim=True))  # (diag(p) − p p^T) J v
        return torch.autograd.grad(recorded.logits, self._leaves, HJv, retain_graph=True, materialize_grads=True)
