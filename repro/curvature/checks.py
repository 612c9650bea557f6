"""Refuse models and data for which a curvature matrix is not defined, each with one sentence that says why."""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from repro.curvature.inputs import Inputs, describe, rows

log = logging.getLogger(__name__)
_SAID: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def check_deterministic(model: nn.Module) -> None:
    """Refuse layers in train mode whose output is random or depends on the other examples of the batch.

    Raises:
        ValueError: dropout is active, or batch norm normalises by the statistics of the batch.
    """
    reason = "a curvature matrix is one fixed matrix, so each example's output must be a fixed function of its input"
    for name, module in model.named_modules():
        if not module.training:
            continue
        where = f"layer '{name}' ({type(module).__name__})"
        if isinstance(module, nn.RReLU) or (isinstance(module, _DropoutNd) and module.p > 0):
            raise ValueError(f"{where} draws random numbers in train mode, but {reason}; call model.eval() first")
        if isinstance(module, _NormBase) and not isinstance(module, nn.modules.instancenorm._InstanceNorm):
            raise ValueError(
                f"{where} mixes the examples of a batch in train mode, but {reason}; call model.eval() first"
            )
        if isinstance(module, nn.RNNBase | nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            raise ValueError(f"{where} may apply dropout in train mode, but {reason}; call model.eval() first")
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"layer '{name}' ({type(module).__name__}) keeps no running statistics and so mixes the examples of a"
                f" batch even in eval mode, but {reason}; set track_running_stats=True"
            )


def check_initialised(model: nn.Module) -> None:
    """Refuse lazy layers that have seen no input yet.

    Raises:
        ValueError: naming the first of their parameters.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"'{name}' has no shape yet: run the model once on a batch")


def statistics(model: nn.Module) -> set[str]:
    """Names of the running statistics of normalisation layers."""
    return {
        key
        for name, module in model.named_modules()
        if isinstance(module, _NormBase)
        for key, _ in module.named_buffers(prefix=name, recurse=False)
    }


def check_weights(parameters: dict[str, Tensor]) -> None:
    """Refuse weights that are no finite real vector of one dtype on one device.

    Raises:
        ValueError: no parameters, several dtypes or devices, neither 32 nor 64 bits, complex ones, weights made under
            torch.inference_mode, or non-finite ones.
    """
    if not parameters:
        raise ValueError("no parameters to differentiate: the model has none, or `parameters` selects none of them")
    first, p0 = next(iter(parameters.items()))
    for name, p in parameters.items():
        if p.is_complex():
            raise ValueError(
                f"parameter '{name}' is {p.dtype}, and θ is a vector of real numbers: make torch.view_as_real(weight)"
                " the parameter, and use torch.view_as_complex of it in forward"
            )
        if (p.dtype, p.device) != (p0.dtype, p0.device):
            raise ValueError(
                f"parameter '{name}' is {p.dtype} on {p.device}, but '{first}' is {p0.dtype} on {p0.device}:"
                " move the whole model with model.to(device, dtype)"
            )
        if p.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"parameter '{name}' is {p.dtype}: convert the model to float32 or float64")
        if p.is_inference():
            raise ValueError(
                f"parameter '{name}' was made under torch.inference_mode and cannot be differentiated: use"
                " copy.deepcopy(model)"
            )
        if not torch.isfinite(p).all():
            raise ValueError(f"parameter '{name}' holds values that are not finite: the training diverged")


def check_first_axis(x: Inputs, y: Tensor) -> None:
    """Refuse inputs of which some tensor has not the examples of the labels as its first axis.

    Raises:
        ValueError: giving the shapes.
    """
    if any(leaf.ndim == 0 or y.ndim == 0 or len(leaf) != len(y) for leaf in tree_leaves(x)):
        shared = "" if isinstance(x, Tensor) else "; let the model hold what all examples share, as a buffer"
        raise ValueError(
            f"a batch has inputs {describe(x)} and targets {list(y.shape)}: it takes at least one example and"
            f" exactly one label for each{shared}"
        )


def check_batch(x: Inputs, y: Tensor, like: Tensor) -> None:
    """Refuse a batch that does not fit the model's dtype and device (those of `like`), or without class labels.

    Raises:
        ValueError: as `check_inputs` and `check_labels`.
    """
    check_inputs(x, y, like)
    check_labels(y)


def check_inputs(x: Inputs, y: Tensor, like: Tensor) -> None:
    """Refuse inputs that do not fit the model's dtype and device (those of `like`), whatever the loss is.

    Raises:
        ValueError: on another device, of another dtype, no example, or no target for each.
    """
    if y.ndim == 0 or len(y) != rows(x) or len(y) == 0:
        raise ValueError(
            f"a batch has inputs {describe(x)} and targets {list(y.shape)}: it takes at least one example and"
            " exactly one label for each"
        )
    for leaf in tree_leaves(x):
        if leaf.device != like.device or y.device != like.device:
            raise ValueError(
                f"the model is on {like.device}, the inputs are on {leaf.device} and the labels on {y.device}:"
                " move the data with .to(device)"
            )
        if leaf.dtype.is_floating_point and leaf.dtype != like.dtype:
            raise ValueError(
                f"the model is {like.dtype}, the inputs are {leaf.dtype}: convert one to the other with .to(dtype)"
            )


def check_labels(y: Tensor) -> None:
    """Refuse labels that are not one class index for each example.

    Raises:
        ValueError: no integers, or of several axes.
    """
    if y.dtype.is_floating_point or y.dtype.is_complex or y.dtype == torch.bool:
        raise ValueError(
            f"the labels are {y.dtype}: class indices are needed, as class structure is of the softmax cross-entropy of"
            " class labels; for Hess, G and E another loss may be chosen, loss=nn.MSELoss() for regression"
        )
    if y.ndim != 1:
        raise ValueError(f"a batch has labels {list(y.shape)}: it takes exactly one label for each example, [examples]")


def check_logits(logits: Tensor, y: Tensor, like: Tensor | None = None) -> None:
    """Refuse outputs that are not one finite row of logits an example, and labels that they have no logit for.

    Args:
        like: a tensor of the model's dtype, in which the logits must be; None for float32 or float64.

    Raises:
        ValueError: not [B, C], a single logit, not in the model's dtype, not finite, or a label outside 0..C-1.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(y):
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the model returns {found} for {len(y)} examples: logits of shape [examples, classes] are needed"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "the model has 1 logit: cross-entropy and its curvature need at least 2 classes; for one logit and binary"
            " labels pass loss=nn.BCEWithLogitsLoss()"
        )
    check_outputs(logits, y, like)
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"the labels run from {low} to {high}, the model has {logits.shape[1]} logits:"
            f" labels must lie in 0..{logits.shape[1] - 1}"
        )


def check_outputs(outputs: Tensor, y: Tensor, like: Tensor | None = None) -> None:
    """Refuse outputs that are not finite numbers for each of the examples that there are targets y for.

    Args:
        like: a tensor of the model's dtype, in which the outputs must be; None for float32 or float64.

    Raises:
        ValueError: no tensor, another number of examples, another dtype, or not finite, or targets that are not.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != len(y) or outputs.numel() == 0:
        found = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model returns {found} for {len(y)} targets: one tensor is needed, examples first")
    if outputs.dtype not in ([torch.float32, torch.float64] if like is None else [like.dtype]):
        raise ValueError(
            f"the model returns outputs of {outputs.dtype}, so its products are no better: let its forward compute in"
            " the dtype of its weights, without autocast and conversions"
        )
    if not torch.isfinite(outputs).all():
        raise ValueError(
            "the model returns outputs that are not finite, so the loss has no curvature: check weights and inputs"
        )
    if not torch.isfinite(y).all():
        raise ValueError("the targets hold values that are not finite: remove those examples from the data")


def warn_once(model: nn.Module, sentence: str) -> None:
    """Say something about a model in the log, if that has not been said of it yet."""
    said = _SAID.setdefault(model, set())
    if sentence not in said:
        said.add(sentence)
        log.warning("%s: %s", model._get_name(), sentence)


def check_class_weights(weights: Tensor | None, classes: int, like: Tensor) -> None:
    """Refuse class weights that are not one finite non-negative number a class.

    Raises:
        ValueError: wrong shape, dtype or device, or negative or non-finite weights.
    """
    if weights is None:
        return
    if weights.shape != (classes,) or (weights.dtype, weights.device) != (like.dtype, like.device):
        raise ValueError(
            f"class_weights is {weights.dtype} {list(weights.shape)} on {weights.device}:"
            f" it must be {like.dtype} [{classes}] on {like.device}"
        )
    if not torch.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("class_weights must be finite and not negative")


def check_loss(loss: float, name: str) -> None:
    """Refuse a loss that overflows although the outputs are finite.

    Raises:
        ValueError: not finite.
    """
    if not math.isfinite(loss):
        raise ValueError(
            f"the mean {name} is {loss} although the outputs are finite: they are too large; check weights and"
            " inputs, or use float64"
        )


def check_classes(y: Tensor, classes: int, chosen: Sequence[int] | None = None) -> None:
    """Refuse data without an example of each class where class means are asked for; spectra do not need them.

    Args:
        chosen: the classes that means are asked for; by default all.

    Raises:
        ValueError: fewer examples than classes, or a class without an example.
    """
    wanted = range(classes) if chosen is None else chosen
    check_range(wanted, classes)
    if len(y) < len(wanted):
        raise ValueError(f"{len(y)} examples for {len(wanted)} classes: at least one example of each class is needed")
    counts = torch.bincount(y.long(), minlength=classes).tolist()
    if empty := [c for c in wanted if not counts[c]]:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        remedy = "add some, or remove those logits from the model" if chosen is None else "add some, or leave it out"
        raise ValueError(
            f"no training example of class {shown} ({len(empty)} of {len(wanted)} classes): class means need an example"
            f" of every class; {remedy}"
        )


def class_list(classes: Any) -> list[int] | None:
    """Classes that were asked for, as a list; None, which stands for all, stays None.

    Raises:
        ValueError: it is no list of different class indices.
    """
    if classes is None:
        return None
    try:
        found = [operator.index(c) for c in classes]
    except TypeError:
        raise ValueError(f"classes is {classes!r}: a list of class indices is needed, such as [0, 3]") from None
    if not found or len(set(found)) < len(found) or min(found) < 0:
        raise ValueError(f"classes is {found}: at least one class index from 0 is needed, and each once")
    return found


def check_range(chosen: Sequence[int], classes: int) -> None:
    """Refuse classes that were asked for and that the model does not have.

    Raises:
        ValueError: naming the first.
    """
    if unknown := [c for c in chosen if c >= classes]:
        raise ValueError(f"classes: there is no class {unknown[0]}, the model has {classes}, counted from 0")


@contextmanager
def differentiable() -> Iterator[None]:
    """Name an operation of the network that torch cannot differentiate, or not twice.

    Raises:
        ValueError: there is one.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # operations raise what they like
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        if "not implemented" in reason or "not differentiable" in reason or "once_differentiable" in reason:
            raise ValueError(
                f"torch has no second derivative of an operation of the network ({reason}): write it with elementary"
                " operations"
            ) from error
        hint = "checkpoint with use_reentrant=False" if "heckpoint" in reason else "write it with elementary operations"
        raise ValueError(
            f"torch does not differentiate the network as often as needed ({type(error).__name__}: {reason}): {hint}"
        ) from error
