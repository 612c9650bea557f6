"""A loss that users bring proves itself on their data, before anything is computed from it.

    it is a mean over examples     the loss of a batch is the mean of the losses of its parts
    its derivatives are its own    ∂ℓ/∂f and (∂²ℓ/∂f²) a by autograd are those by finite differences
    it is convex, for G            ∂²ℓ/∂f² of every example is positive semidefinite

All in float64 where the loss runs in it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repro.curvature.loss import Loss

EXAMPLES = 8  # on which single losses and derivatives are compared
DIRECTIONS = 32  # of one example's outputs along which convexity is tried: all, up to so many


def prove(loss: Loss, outputs: Tensor, y: Tensor, *, convex: bool) -> None:
    """Refuse a loss that is not what `repro.curvature.loss.Loss` says, as far as a batch tells.

    Args:
        convex: whether it must be convex in the outputs.

    Raises:
        ValueError: one sentence says what it is not.
    """
    outputs, y, precision = _in_double(loss, outputs, y)
    _check_mean(loss, outputs, y, precision)
    first, second = loss.errors(outputs, y), loss.curvature(outputs, y, torch.ones_like(outputs))
    if not bool(torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise ValueError(
            f"the derivatives of the loss {loss.name} by the outputs are not finite: look for a root, norm, logarithm"
            " or quotient that it takes at zero"
        )
    _check_derivatives(loss, outputs[:EXAMPLES], y[:EXAMPLES], precision)
    if convex:
        _check_convex(loss, outputs, y)


def _in_double(loss: Loss, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Outputs and targets in the precision in which the loss is tried, and that precision."""
    wide = outputs.double(), y.double() if y.is_floating_point() else y
    try:
        loss.errors(*wide)
        return *wide, loss.total(*wide).dtype
    except ValueError:  # it holds tensors of the network's precision
        return outputs, y, loss.total(outputs, y).dtype


def _check_mean(loss: Loss, outputs: Tensor, y: Tensor, precision: torch.dtype) -> None:
    whole = torch.arange(len(y), device=y.device)
    few = whole[:EXAMPLES]
    for examples, parts in ((whole, whole.tensor_split(2)), (few, few.split(1))):
        parts = [part for part in parts if len(part)]
        found = loss.total(outputs[examples], y[examples])
        totals = torch.stack([loss.total(outputs[part], y[part]) for part in parts])
        allowed = torch.finfo(precision).eps ** 0.5 * float(totals.abs().sum())
        if abs(float(found - totals.sum())) <= allowed:
            continue
        means = sum(float(total) / len(part) for total, part in zip(totals, parts))
        if abs(float(found) / len(examples) - means) <= allowed:
            raise ValueError(
                f"the loss {loss.name} adds up over examples, and curvature here is of their mean: use reduction='mean'"
            )
        cause = "class weights or ignored examples in its mean"
        if y.shape != outputs.shape and y.numel() == outputs.numel():
            cause = f"outputs {list(outputs.shape)} that are broadcast against targets {list(y.shape)}"
        raise ValueError(
            f"the loss {loss.name} of a batch is not the mean of the losses of its examples, so it has no mean over all"
            f" data: look for {cause}"
        )


def _check_derivatives(loss: Loss, outputs: Tensor, y: Tensor, precision: torch.dtype) -> None:
    """Steps are tried in turn, away from kinks at first; one that agrees is enough."""
    steps, relative = ((1e-5, 1e-7, 1e-3), 1e-4) if precision == torch.float64 else ((1e-2, 1e-3), 3e-2)
    generator = torch.Generator().manual_seed(0)
    size = float(outputs.norm()) / math.sqrt(outputs.numel()) or 1.0
    a, away = (size * torch.randn(outputs.shape, generator=generator).to(outputs) for _ in range(2))
    objections = []
    for point in (outputs + 1e-3 * away, outputs):
        for step in steps:
            try:
                objections.append(_objection(loss, point, y, a, step, relative, precision))
            except ValueError:  # the loss is not defined there
                continue
            if not objections[-1]:
                return
    if objections:
        raise ValueError(
            f"the {objections[0]} derivatives of the loss {loss.name} by autograd are not those of its values by finite"
            " differences: look for a part under detach or torch.no_grad, and for operations that are not smooth"
        )


def _objection(
    loss: Loss, f: Tensor, y: Tensor, a: Tensor, step: float, relative: float, precision: torch.dtype
) -> str:
    """Which derivatives along a differ from finite differences; empty if none."""
    values, errors = zip(*((loss.total(g, y), loss.errors(g, y).detach()) for g in (f + step * a, f - step * a)))
    found = loss.errors(f, y).detach()
    rounding = 10 * torch.finfo(precision).eps / step
    allowed = relative * float(found.norm() * a.norm()) + rounding * float(values[0].abs())
    if not abs(float((values[0] - values[1]) / (2 * step) - (found * a).sum())) <= allowed:
        return "first"
    curved = loss.curvature(f, y, a)
    allowed = relative * float(curved.norm()) + rounding * float(found.norm())
    return "" if float(((errors[0] - errors[1]) / (2 * step) - curved).norm()) <= allowed else "second"


def _check_convex(loss: Loss, outputs: Tensor, y: Tensor) -> None:
    """By the Cholesky factors of Q^T (∂²ℓ/∂f²) Q + a little, Q all directions or some at random."""
    examples, K = len(outputs), outputs[0].numel()
    Q = torch.eye(K, dtype=outputs.dtype)
    if K > DIRECTIONS:
        Q = torch.linalg.qr(torch.randn(K, DIRECTIONS, generator=torch.Generator().manual_seed(0)).to(Q))[0]
    Q = Q.to(outputs.device)
    columns = [loss.curvature(outputs, y, q.view_as(outputs[0]).expand_as(outputs)).view(examples, K) @ Q for q in Q.T]
    H = torch.stack(columns, dim=2)
    H = (H + H.mT) / 2
    scale = H.abs().max()
    little = scale * Q.shape[1] * torch.finfo(H.dtype).eps ** 0.75
    negative = torch.linalg.cholesky_ex(H + little * torch.eye(len(H[0]), dtype=H.dtype, device=H.device)).info > 0
    if bool(scale > 0) and bool(negative.any()):
        lowest = float(torch.linalg.eigvalsh(H[negative]).min())
        raise ValueError(
            f"the loss {loss.name} is not convex in the outputs: its second derivative has an eigenvalue {lowest:.3g}"
            " at an example; G and E need a convex loss; Hess alone does not, spectra=['train_hessian']"
        )
