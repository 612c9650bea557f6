"""The Gauss-Newton part of the Hessian of the mean loss (Papyan 2020, Section 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.curvature.derivatives import Derivatives, Recorded
from repro.curvature.proof import Need
from repro.curvature.risk import RiskOperator


class GaussNewton(RiskOperator):
    """G = 1/N Σ_i J_i^T (∂²ℓ/∂f²)_i J_i (plus weight decay times the identity), positive semidefinite.

    For the softmax cross-entropy ∂²ℓ/∂f² = diag(p) − p p^T. There G is also the Fisher information matrix, and does not
    depend on the labels unless class weights make it do so.

    Raises:
        ValueError: as `RiskOperator`, and a loss that is not convex in the outputs.

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
        """J v first, then ∂²ℓ/∂f² times it, then J^T of that: all from the graph of J^T u and the logits."""
        curved = self.loss_function.curvature(recorded.logits.detach(), y, derivatives.tangent(recorded))
        derivatives.add_pull_back(recorded, self.weights(y) * curved)

    def tangents(self, V: Tensor) -> Tensor:  # [P, K] -> [K, N, C]
        """J_i v of each example i, in the order of the data, and each column v."""
        derivatives = self._ready(V)
        rows = V.detach().T.contiguous()
        unused = torch.empty_like(rows[0])
        found = []
        with derivatives.active():
            for i, outputs in enumerate(self.outputs):
                recorded = self._recorded(derivatives, i)
                of_batch = rows.new_zeros(len(rows), *outputs.shape)
                for v, Jv in zip(rows, of_batch):
                    with derivatives.along(v, unused, first=False):
                        if recorded is not None:
                            Jv.copy_(derivatives.tangent(recorded))
                found.append(of_batch)
        return torch.cat(found, dim=1)

    def pull_back(self, W: Tensor) -> Tensor:  # [K, N, C] -> [P, K]
        """Σ_i J_i^T w_i for each of K."""
        out = W.new_empty(len(W), self.dim)
        derivatives = self._ready(out.T)
        with derivatives.active():
            begin = 0
            for i, (_, y) in enumerate(self.data):
                recorded = self._recorded(derivatives, i)
                for w, row in zip(W[:, begin : begin + len(y)], out):
                    with derivatives.along(row, row, first=i == 0):
                        if recorded is not None:
                            derivatives.add_pull_back(recorded, w)
                begin += len(y)
        return self._finite(out).T
