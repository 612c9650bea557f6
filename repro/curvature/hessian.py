"""The Hessian of the mean loss, and what the Gauss-Newton part leaves of it (Papyan 2020, Section 5)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from repro.curvature.derivatives import Derivatives, Recorded
from repro.curvature.risk import RiskOperator


class Hessian(RiskOperator):
    """Hess = 1/N Σ_i ∂²ℓ(f(x_i; θ), y_i)/∂θ² (plus weight decay times the identity).

    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
    >>> A = Hessian(model, [(x, y)])
    >>> (A @ torch.randn(A.dim)).shape  # 4 * 8 + 8 + 8 * 3 + 3 parameters
    torch.Size([67])
    """

    convex: ClassVar[bool] = False

    def cotangent(self, logits: Tensor, y: Tensor) -> Tensor:  # [B, C], [B] -> [B, C]
        """u = ∂ risk/∂f, so that J^T u is the gradient."""
        return self.errors(logits, y)

    def add_product(self, derivatives: Derivatives, recorded: Recorded, y: Tensor) -> None:
        """Hess v is the derivative of <gradient, v> by θ (Pearlmutter 1994)."""
        derivatives.add_curvature(recorded)


class HessianResidual(Hessian):
    """E = Hess − G = 1/N Σ_i Σ_k (∂ℓ_i/∂f_k) ∂²f_k(x_i)/∂θ², at the cost of one Hessian product.

    For the softmax cross-entropy ∂ℓ_i/∂f_k = p_{i,k} − 1[k = y_i]. Weight decay belongs to G and is not part of E.
    """

    convex: ClassVar[bool] = True

    def cotangent(self, logits: Tensor, y: Tensor) -> Tensor:  # [B, C], [B] -> [B, C]
        """The same u, held fixed: what is left of the derivative is that of the network alone."""
        return super().cotangent(logits, y).detach()

    @property
    def decay(self) -> float:
        """None of the weight decay."""
        return 0.0
