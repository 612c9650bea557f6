"""The Gauss-Newton part of the Hessian of the mean cross-entropy (Papyan 2020, Section 6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from repro.curvature.risk import Recorded, RiskOperator


class GaussNewton(RiskOperator):
    """G = 1/N Σ_i J_i^T (diag(p_i) − p_i p_i^T) J_i (plus weight decay times the identity).

    For the softmax cross-entropy G is also the Fisher information matrix, so it is positive semidefinite and does not
    depend on the labels (on the class weights' choice of them apart).
    """

    curved = False

    def cotangent(self, logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:  # -> [B, C]
        return torch.zeros_like(logits).requires_grad_()  # any value: J^T u is linear in u

    def multiply(self, recorded: Recorded, pieces: Sequence[Tensor], v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """J v is ∂/∂u of <J^T u, v>, so the recorded J^T u serves J v as well; the recorded logits serve J^T."""
        (Jv,) = torch.autograd.grad(pieces, recorded.cotangent, v, retain_graph=True)
        p = recorded.logits.detach().softmax(dim=1)  # [B, C]
        Jv = Jv - Jv.gather(1, p.argmax(dim=1, keepdim=True))  # H has constants in its kernel: no cancellation at p = 1
        HJv = recorded.weights * p * (Jv - (p * Jv).sum(dim=1, keepdim=True))  # (diag(p) − p p^T) J v
        return self.pull_back([recorded.logits], [HJv])
