"""The softmax cross-entropy and its first two derivatives by the logits, with all their digits at a fit.

For logits f [C] and a label y, with p = softmax(f) and e_y the y-th unit vector,

    ℓ(f, y) = −log p_y,    ∂ℓ/∂f = p − e_y,    ∂²ℓ/∂f² = diag(p) − p p^T.

Where a network fits its data, p_y is one to rounding: p_y − 1 computed as a difference holds no digit, and neither does
1 − p_y. The small probabilities do keep theirs. All functions below therefore take p_y − 1 as −Σ_{k≠y} p_k.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def cross_entropies(logits: Tensor, y: Tensor) -> Tensor:  # [B, C], [B] -> [B]
    """The cross-entropy of each example, as log(1 + Σ_{k≠y} exp(f_k − f_y)): relatively accurate also near zero."""
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf).logsumexp(dim=1)
    return torch.logaddexp(others - own, torch.zeros_like(own))


def errors(p: Tensor, y: Tensor | int) -> Tensor:  # [B, C], [B] or one label for all -> [B, C]
    """p − e_y, the derivative of the cross-entropy by the logits; p are softmax probabilities."""
    labels = torch.full_like(p[:, :1], y, dtype=torch.int64) if isinstance(y, int) else y[:, None]
    others = p.scatter(1, labels, 0)
    return others.scatter(1, labels, -others.sum(dim=1, keepdim=True))


def curvature(p: Tensor, a: Tensor) -> Tensor:  # [B, C], [B, C] -> [B, C]
    """(diag(p) − p p^T) a, the second derivative of the cross-entropy times a; constants lie in its kernel.

    So a may be shifted to be zero at the most probable class, and what remains does not cancel where p is nearly one.
    """
    a = a - a.gather(1, p.argmax(dim=1, keepdim=True))
    return p * (a - (p * a).sum(dim=1, keepdim=True))


class ErrorsOfLogits(Function):
    """`errors(softmax(logits), y)` as a function of the logits that may be differentiated once more, as accurately."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, y: Tensor) -> Tensor:
        p = logits.softmax(dim=1)
        ctx.save_for_backward(p)
        return errors(p, y)

    @staticmethod
    def backward(ctx: Any, a: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        return curvature(p, a), None
