"""The network as a function of its inputs: its logits, and refusals of one that is no fixed function of θ."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from repro.curvature import checks
from repro.curvature.evaluation import evaluation
from repro.curvature.inputs import Inputs, take
from repro.curvature.parameters import in_place, unwrapped


def logits_of(model: nn.Module, x: Inputs) -> Tensor:  # -> [rows, C]
    """The network's logits at its own weights, without a graph unless its forward takes gradients itself."""
    model = unwrapped(model)
    with evaluation(model):
        try:
            with torch.no_grad():
                return model(x)
        except RuntimeError:
            logits = model(x)
    return logits.detach() if isinstance(logits, Tensor) else logits


def check_fixed_function(model: nn.Module, x: Inputs) -> None:
    """Refuse a model whose logits change from pass to pass or with the other examples of the batch, whatever the cause.

    Two passes on the inputs `x` and one on the last of them alone, as what runs full is filled by the first.

    Raises:
        ValueError: the logits differ by more than half the working precision.
    """
    before = tree_leaves(tree_map(torch.clone, x))
    first, again, alone = logits_of(model, x), logits_of(model, x), logits_of(model, take(x, slice(-1, None)))
    allowed = torch.finfo(first.dtype).eps ** 0.5 * float(first.abs().max().clamp(min=1))
    if not torch.allclose(first, again, rtol=0, atol=allowed):
        if not all(map(torch.equal, before, tree_leaves(x))):
            raise ValueError(
                "the model's forward changes its inputs in place, so that each pass sees others: let it work on a copy,"
                " x.clone(), or on the result of an operation that is not in place"
            )
        raise ValueError(
            "the model's logits change between two passes over the same inputs, so there is no one curvature matrix:"
            " look for dropout or random numbers outside of nn.Module layers"
        )
    if not torch.allclose(first[len(first) - len(alone) :], alone, rtol=0, atol=allowed):
        raise ValueError(
            "the logits of an example depend on the other examples of its batch, so the loss is no mean over examples:"
            " look for statistics of the batch outside of nn.Module layers"
        )


def check_gradients(
    model: nn.Module, data: Iterable[tuple[Inputs, Tensor]], parameters: Collection[str] | None = None
) -> None:
    """Refuse parameters that the logits of no example depend on: passes over the data until each has been met.

    Args:
        parameters: names of those chosen; None for all. Whether they have requires_grad plays no part.

    Raises:
        ValueError: naming the first such parameter.
    """
    own = dict(model.named_parameters())
    unmet = [name for name in own if parameters is None or name in parameters]
    instead = "remove it from the model, or leave it out: parameters=..."
    with in_place(model, {}, unmet):
        for x, _ in data:
            with evaluation(model), checks.differentiable():
                logits = model(x)
            if logits.requires_grad:
                with checks.differentiable():
                    found = torch.autograd.grad(logits.sum(), [own[name] for name in unmet], allow_unused=True)
                unmet = [name for name, gradient in zip(unmet, found) if gradient is None]
            if not unmet:
                return
    if len(unmet) == len(own):
        raise ValueError("the logits carry no gradient: the model's forward detaches them or runs under torch.no_grad")
    raise ValueError(f"parameter '{unmet[0]}' has no gradient, as no example's logits depend on it: {instead}")
