"""Losses other than the cross-entropy of class labels, for Hess, G and E; what users have is turned into them here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from repro.curvature import checks, loss_proof
from repro.curvature.loss import Loss, LossOfLogits, SoftmaxCrossEntropy, curvature

LossLike = Loss | Callable[[Tensor, Tensor], Tensor] | None


def find_loss(given: Any, targets: Tensor, class_weights: Tensor | None = None) -> Loss:
    """The loss that a user means.

    None and torch's cross-entropy, mean squared error and binary cross-entropy with logits, each as a module or a
    function, are computed by their formulas, with all digits at a fit. Any other function of outputs and targets is
    differentiated by autograd.

    Args:
        targets: those of the first batch: integers are class labels, floating-point numbers [B, C] their probabilities.
        class_weights: [C], of the cross-entropy of class labels.

    Raises:
        TypeError: it is no function.
        ValueError: it is a sum over examples, or has settings that no mean over all examples has.

    >>> y = torch.tensor([0, 1, 1])
    >>> [find_loss(loss, y).name for loss in (None, nn.CrossEntropyLoss(label_smoothing=0.1), F.mse_loss, F.huber_loss)]
    ['cross-entropy', 'cross-entropy of soft labels', 'mean squared error', 'huber_loss']
    """
    given = getattr(given, "_orig_mod", getattr(given, "_torchdynamo_orig_callable", given))  # what torch.compile wraps
    if isinstance(given, type) or not (given is None or isinstance(given, Loss) or callable(given)):
        shown = f"the class {given.__name__}" if isinstance(given, type) else repr(given)
        raise TypeError(f"loss is {shown}: a function (outputs, targets) -> loss is needed, such as nn.MSELoss()")
    if getattr(given, "reduction", "mean") == "sum":
        raise ValueError("the loss adds up over examples, and curvature here is of their mean: use reduction='mean'")
    if class_weights is not None and isinstance(given, nn.CrossEntropyLoss):
        raise ValueError("class weights are given once: class_weights without loss, or nn.CrossEntropyLoss(weight=...)")
    found = given if isinstance(given, Loss) else _by_formula(given, targets, class_weights) or CallableLoss(given)
    if class_weights is not None and not isinstance(found, SoftmaxCrossEntropy):
        raise ValueError(f"class_weights are of the cross-entropy of class labels, not of the {found.name}")
    return found


def is_cross_entropy(given: Any) -> bool:
    """Whether it is the softmax cross-entropy by its formula, whose whole-number targets are class labels."""
    return given is None or given is F.cross_entropy or isinstance(given, nn.CrossEntropyLoss | LossOfLogits)


def _by_formula(given: Any, targets: Tensor, class_weights: Tensor | None) -> Loss | None:
    """The loss by its formula, if it is one of those that are known."""
    if given is None or given is F.cross_entropy:
        given = nn.CrossEntropyLoss(weight=class_weights)
    kind = type(given)  # a subclass may be another loss
    if kind is nn.CrossEntropyLoss:
        if given.ignore_index != -100:
            raise ValueError(f"ignore_index is {given.ignore_index}: label them -100, or leave those examples out")
        soft = targets.is_floating_point() and targets.ndim > 1
        if given.weight is None and (soft or given.label_smoothing):
            return SoftCrossEntropy(given.label_smoothing)
        if not (soft or given.label_smoothing) and (given.weight is None or given.reduction == "mean"):
            return SoftmaxCrossEntropy(given.weight)
    if given is F.mse_loss or (kind is nn.MSELoss and given.reduction == "mean"):
        return MeanSquaredError()
    if given is F.binary_cross_entropy_with_logits:
        return BinaryCrossEntropy()
    if kind is nn.BCEWithLogitsLoss and given.reduction == "mean" and given.weight is None:
        return BinaryCrossEntropy(given.pos_weight)
    return None


class SoftCrossEntropy(LossOfLogits):
    """−Σ_k q_k log p_k, p = softmax(f), of probabilities q [C] of the classes.

    Targets are such probabilities or class labels; `label_smoothing` s replaces q by (1 − s) q + s / C.
    """

    name = "cross-entropy of soft labels"

    def __init__(self, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing is {label_smoothing}: a number from 0 to 1 is needed")
        self.label_smoothing = label_smoothing

    def checked(self, outputs: Tensor, y: Tensor) -> Tensor:  # [B, C], [B] or [B, C] -> [B, C]
        if y.is_floating_point():
            q = _probabilities(outputs, y)
        else:
            checks.check_labels(y)
            checks.check_logits(outputs, y)
            q = F.one_hot(y.long(), outputs.shape[1]).to(outputs)
        return (1 - self.label_smoothing) * q + self.label_smoothing / outputs.shape[1]

    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return -(y * outputs.log_softmax(dim=1)).sum(dtype=torch.float64)

    def errors(self, outputs: Tensor, y: Tensor) -> Tensor:
        return _SoftErrors.apply(outputs, y)


def _probabilities(outputs: Tensor, y: Tensor) -> Tensor:
    checks.check_outputs(outputs, y)
    if outputs.ndim != 2 or outputs.shape[1] < 2 or y.shape != outputs.shape:
        raise ValueError(
            f"the targets are {y.dtype} {list(y.shape)}, the outputs {list(outputs.shape)}: the cross-entropy takes"
            " class labels or one probability for each class; for regression pass loss=nn.MSELoss(), for binary labels"
            " loss=nn.BCEWithLogitsLoss()"
        )
    sums = y.sum(dim=1)
    if bool((y < 0).any()) or bool(((sums - 1).abs() > torch.finfo(y.dtype).eps ** 0.5).any()):
        raise ValueError(
            "the targets are no probabilities, as their rows do not add up to one or some are negative: for regression"
            " pass loss=nn.MSELoss(), for several labels an example loss=nn.BCEWithLogitsLoss()"
        )
    return y.to(outputs)


class _SoftErrors(Function):
    """p − q as a function of the logits; at the largest q_k from the others, so that it keeps its digits at a fit."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, q: Tensor) -> Tensor:
        p, largest = logits.softmax(dim=1), q.argmax(dim=1, keepdim=True)
        ctx.save_for_backward(p)
        others = (p - q).scatter(1, largest, 0)
        return others.scatter(1, largest, -others.sum(dim=1, keepdim=True))

    @staticmethod
    def backward(ctx: Any, a: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        return curvature(p, a), None


class MeanSquaredError(Loss):
    """Σ_k (f_k − y_k)² / K over the K outputs of an example."""

    name = "mean squared error"

    def checked(self, outputs: Tensor, y: Tensor) -> Tensor:
        return _like_outputs(outputs, y, self.name)

    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().sum(dtype=torch.float64) / outputs[0].numel()

    def errors(self, outputs: Tensor, y: Tensor) -> Tensor:
        return 2 / outputs[0].numel() * (outputs - y)

    def curvature(self, outputs: Tensor, y: Tensor, a: Tensor) -> Tensor:
        return 2 / outputs[0].numel() * a


class BinaryCrossEntropy(Loss):
    """Σ_k −(w_k y_k log σ(f_k) + (1 − y_k) log σ(−f_k)) / K over the K logits of an example, w the `pos_weight`."""

    name = "binary cross-entropy"

    def __init__(self, pos_weight: Tensor | None = None):
        self.pos_weight: Tensor | float = 1.0 if pos_weight is None else pos_weight

    def checked(self, outputs: Tensor, y: Tensor) -> Tensor:
        y = _like_outputs(outputs, y, self.name)
        if bool(((y < 0) | (y > 1)).any()):
            raise ValueError(
                f"the targets run from {float(y.min()):.3g} to {float(y.max()):.3g}: the binary cross-entropy takes 0,"
                " 1, or probabilities between"
            )
        return y

    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        zero = torch.zeros_like(outputs)
        positive, negative = torch.logaddexp(zero, -outputs), torch.logaddexp(zero, outputs)
        found = self.pos_weight * y * positive + (1 - y) * negative
        return found.sum(dtype=torch.float64) / outputs[0].numel()

    def errors(self, outputs: Tensor, y: Tensor) -> Tensor:
        K = outputs[0].numel()
        return _BinaryErrors.apply(outputs, self.pos_weight * y / K, (1 - y) / K)

    def curvature(self, outputs: Tensor, y: Tensor, a: Tensor) -> Tensor:
        weight = (self.pos_weight * y + (1 - y)) / outputs[0].numel()
        return weight * outputs.sigmoid() * (-outputs).sigmoid() * a


class _BinaryErrors(Function):
    """n σ(f) − m σ(−f) as a function of the logits f: no digit is lost where σ(f) is one to rounding."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, m: Tensor, n: Tensor) -> Tensor:
        p, q = logits.sigmoid(), (-logits).sigmoid()
        ctx.save_for_backward((m + n) * p * q)
        return n * p - m * q

    @staticmethod
    def backward(ctx: Any, a: Tensor) -> tuple[Tensor, None, None]:
        (curved,) = ctx.saved_tensors
        return curved * a, None, None


def _like_outputs(outputs: Tensor, y: Tensor, name: str) -> Tensor:
    """Targets in the shape and dtype of the outputs: axes of length one after the first may be there or not."""
    checks.check_outputs(outputs, y)
    ours, theirs = ([size for size in tensor.shape[1:] if size != 1] for tensor in (outputs, y))
    if ours != theirs:
        raise ValueError(
            f"the model returns {list(outputs.shape)} and the targets are {list(y.shape)}: the {name} needs one target"
            " for each output"
        )
    return y.to(outputs.dtype).view_as(outputs)


class CallableLoss(Loss):
    """Any function (outputs [B, ...], targets [B, ...]) -> mean over the examples [], or one value for each [B].

    It is differentiated by autograd, and proves itself on the data: see `repro.curvature.loss_proof`.
    """

    convex: ClassVar[bool] = False

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def checked(self, outputs: Tensor, y: Tensor) -> Tensor:
        checks.check_outputs(outputs, y)
        return y.to(outputs.dtype) if y.is_floating_point() else y

    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        examples = len(outputs)
        try:
            value = self.function(outputs, y)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a user's function raises what it likes
            raise ValueError(
                f"the loss {self.name} does not take outputs {list(outputs.shape)} and targets {y.dtype}"
                f" {list(y.shape)} ({type(error).__name__}: {_one_line(error)})"
            ) from error
        if not isinstance(value, Tensor) or value.numel() not in (1, examples):
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"the loss {self.name} returns {found} for {examples} examples: their mean is needed, or one value for"
                " each"
            )
        return examples * value.mean()

    def errors(self, outputs: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            f = outputs if outputs.requires_grad else outputs.detach().requires_grad_()
            return self._derivative(self.total(f, y), f, None, create_graph=True)

    def curvature(self, outputs: Tensor, y: Tensor, a: Tensor) -> Tensor:
        f = outputs.detach().requires_grad_()
        errors = self.errors(f, y)
        return self._derivative(errors, f, a, create_graph=False) if errors.requires_grad else torch.zeros_like(a)

    def doubt(self, outputs: Tensor, y: Tensor) -> str:
        along = torch.linspace(0.5, 1.5, outputs.numel()).to(outputs).view_as(outputs)
        if not bool(self.curvature(outputs, y, along).any()):
            return (
                f"the loss {self.name} has no curvature in the outputs, so that G is zero and E is Hess: where they are"
                " log-probabilities, nn.CrossEntropyLoss() is the same loss, and has one"
            )
        return ""

    def prove(self, outputs: Tensor, y: Tensor, *, convex: bool) -> None:
        loss_proof.prove(self, outputs, y, convex=convex)

    def _derivative(self, of: Tensor, by: Tensor, along: Tensor | None, *, create_graph: bool) -> Tensor:
        try:
            return torch.autograd.grad(of, by, along, create_graph=create_graph, materialize_grads=True)[0]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # operations raise what they like
            raise ValueError(
                f"torch cannot differentiate the loss {self.name} twice by the outputs ({_one_line(error)}): write it"
                " with elementary operations of them"
            ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
