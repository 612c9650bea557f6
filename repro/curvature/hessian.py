"""The Hessian of the mean cross-entropy, and what the Gauss-Newton part leaves of it (Papyan 2020, Section 5)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import one_hot

from repro.curvature.risk import Recorded, RiskOperator


class Hessian(RiskOperator):
    """Hess = 1/N Σ_i ∂²ℓ(f(x_i; θ), y_i)/∂θ² (plus weight decay times the identity)."""

    def cotangent(self, logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:  # -> [B, C]
        return weights * (logits.softmax(dim=1) - one_hot(y, logits.shape[1]))

    def multiply(self, recorded: Recorded, pieces: Sequence[Tensor], v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """∂/∂θ of <J^T u, v> (Pearlmutter 1994)."""
        return self.pull_back(pieces, v)


class HessianResidual(Hessian):
    """E = Hess − G = 1/N Σ_i Σ_k (p_{i,k} − 1[k = y_i]) ∂²f_k(x_i)/∂θ², at the cost of one Hessian product.

    Weight decay belongs to G and is not part of E.
    """

    def cotangent(self, logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:  # -> [B, C]
        return super().cotangent(logits, y, weights).detach()  # held fixed, u leaves f's second derivative alone

    @property
    def decay(self) -> float:
        return 0.0
