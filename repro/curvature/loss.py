"""What curvature asks of a loss, and the softmax cross-entropy of class labels, with all its digits at a fit.

For logits f [C] and a label y, with p = softmax(f) and e_y the y-th unit vector,

    ℓ(f, y) = −log p_y,    ∂ℓ/∂f = p − e_y,    ∂²ℓ/∂f² = diag(p) − p p^T.

Where a network fits its data, p_y is one to rounding: p_y − 1 computed as a difference holds no digit, and neither does
1 − p_y. The small probabilities do keep theirs. All functions below therefore take p_y − 1 as −Σ_{k≠y} p_k.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from repro.curvature import checks


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


class Loss:
    """A loss ℓ(f, y) of one example's outputs f and target y, and its first two derivatives by f.

    The risk is Σ_i w_i ℓ(f_i, y_i) / Σ_i w_i over all examples, however they are divided into batches. Below, `outputs`
    [B, ...] are those of a batch, and `y` [B, ...] its targets as `checked` returned them. `other_losses.find_loss`
    makes a `Loss` of what users have.

    Attributes:
        name: for people.
        convex: whether ∂²ℓ/∂f² is known to be positive semidefinite; `prove` finds out where it is not.
    """

    name: str
    convex: ClassVar[bool] = True

    def checked(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The targets in the form that the other methods take.

        Raises:
            ValueError: outputs or targets are none of this loss; one sentence says what is needed.
        """
        raise NotImplementedError

    def weights(self, y: Tensor) -> Tensor | float:  # -> [B, 1] or one for all
        """w of each example."""
        return 1.0

    def total(self, outputs: Tensor, y: Tensor) -> Tensor:  # -> []
        """Σ_i w_i ℓ(f_i, y_i) over the batch."""
        raise NotImplementedError

    def errors(self, outputs: Tensor, y: Tensor) -> Tensor:  # -> [B, ...]
        """∂ℓ/∂f of each example, as a function of the outputs that may be differentiated once more."""
        raise NotImplementedError

    def curvature(self, outputs: Tensor, y: Tensor, a: Tensor) -> Tensor:  # a [B, ...] -> [B, ...]
        """(∂²ℓ/∂f²) a of each example, without a graph."""
        raise NotImplementedError

    def doubt(self, outputs: Tensor, y: Tensor) -> str:
        """A sentence where this loss of these outputs is likely not what is meant; empty otherwise."""
        return ""

    def prove(self, outputs: Tensor, y: Tensor, *, convex: bool) -> None:
        """Refuse a loss that is not what this class is made for; those of known formulas need no proof.

        Args:
            convex: whether it must be convex in the outputs.

        Raises:
            ValueError: it is no mean over examples, its derivatives are not its derivatives, or it is not convex.
        """


class LossOfLogits(Loss):
    """A cross-entropy of p = softmax(f): its second derivative does not depend on the target."""

    def curvature(self, outputs: Tensor, y: Tensor, a: Tensor) -> Tensor:
        return curvature(outputs.softmax(dim=1), a)

    def doubt(self, outputs: Tensor, y: Tensor) -> str:
        if bool((outputs >= 0).all()) and bool(((outputs.sum(dim=1) - 1).abs() < 1e-4).all()):
            return (
                "the model's outputs are probabilities already, and the cross-entropy applies softmax to them once"
                " more: leave the softmax out of the model, so that it returns logits"
            )
        return ""


class SoftmaxCrossEntropy(LossOfLogits):
    """−log p_y of class labels y, p = softmax(f); `class_weights` [C] are w_i = class_weights[y_i]."""

    name = "cross-entropy"

    def __init__(self, class_weights: Tensor | None = None):
        self.class_weights = class_weights

    def checked(self, outputs: Tensor, y: Tensor) -> Tensor:  # [B, C], [B] -> [B]
        checks.check_labels(y)
        checks.check_logits(outputs, y)
        checks.check_class_weights(self.class_weights, outputs.shape[1], outputs)
        return y.long()

    def weights(self, y: Tensor) -> Tensor | float:
        return 1.0 if self.class_weights is None else self.class_weights[y][:, None]

    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        found = cross_entropies(outputs, y)
        return (found if self.class_weights is None else self.class_weights[y] * found).sum(dtype=torch.float64)

    def errors(self, outputs: Tensor, y: Tensor) -> Tensor:
        return ErrorsOfLogits.apply(outputs, y)
