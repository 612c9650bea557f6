"""Any network as a function of inputs of any form to logits [rows, C], which is all that curvature knows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from repro.curvature.batches import Batches, batch_list
from repro.curvature.function import logits_of
from repro.curvature.inputs import Inputs, Positions, take
from repro.curvature.parameters import unwrapped

Logits = Callable[[nn.Module, Inputs], Tensor]  # the network, inputs of B examples -> [B, C], or by positions


class Classifier(nn.Module):
    """A network together with how it is called and where its logits are.

    Modules, parameters and buffers are the network's own, under their own names.

    Args:
        network: any module.
        logits: (network, inputs) -> its logits; by default `usual_logits`.
    """

    def __init__(self, network: nn.Module, logits: Logits | None = None):
        super().__init__()
        self.network: nn.Module
        self._parameters, self._buffers, self._modules = network._parameters, network._buffers, network._modules
        self.__dict__["network"] = network  # not as a submodule, which would put a prefix before every name
        self.logits = logits or usual_logits

    def forward(self, x: Inputs) -> Tensor:  # -> [rows, C]
        """The logits of every example, or of every position that is measured."""
        if isinstance(x, Positions):
            return _at_positions(self._called(x.inputs), x.chosen)
        return self._called(x)

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """Those of the network, itself the first."""
        return self.network.named_modules(*args, **kwargs)

    def _called(self, inputs: Inputs) -> Tensor:
        found = self.logits(self.network, inputs)
        if not isinstance(found, Tensor):
            raise ValueError(
                f"the model returns a {type(found).__name__}, in which there are no logits to be found: say where they"
                " are with logits=lambda model, inputs: ..."
            )
        return found

    def _get_name(self) -> str:
        return self.network._get_name()


def usual_logits(network: nn.Module, inputs: Inputs) -> Any:
    """The network called as torch and transformers call it, and the logits among what it returns.

    A dict is given as keyword arguments, a tuple or list as positional arguments, a tensor as the one argument. Logits
    are what is returned if that is a tensor, its attribute or entry `logits`, or the first of a tuple.
    """
    if isinstance(inputs, Mapping):
        found = network(**inputs)
    elif isinstance(inputs, tuple | list):
        found = network(*inputs)
    else:
        found = network(inputs)
    if isinstance(found, Tensor):
        return found
    if isinstance(logits := getattr(found, "logits", None), Tensor):
        return logits
    if isinstance(found, Mapping):
        return found.get("logits", found)
    return found[0] if isinstance(found, tuple) and found else found


def _at_positions(logits: Tensor, chosen: Tensor) -> Tensor:  # -> [rows, C]
    """[B, T, C], or [B, C, H, W] and the like with the classes in the second place, as in torch's cross_entropy."""
    rows = logits if logits.ndim <= 3 else logits.movedim(1, -1)
    if chosen.dtype != torch.bool:  # one position of each example
        every = rows.flatten(1, -2)
        return every.take_along_dim(chosen.view(-1, 1, 1), dim=1)[:, 0]
    if rows.ndim < 3:
        raise ValueError(
            f"the model returns logits {list(logits.shape)} for labels {list(chosen.shape)}: exactly one label for each"
            " row is needed, a class index"
        )
    if rows.shape[:-1] != chosen.shape:
        raise ValueError(
            f"the model returns logits {list(logits.shape)} for labels {list(chosen.shape)}: logits [B, T, C] belong to"
            " labels [B, T], and logits [B, C, H, W] to labels [B, H, W]; bring them into that form with"
            " logits=lambda model, inputs: ..."
        )
    return rows[chosen]


def as_classifier(model: nn.Module, batches: list[tuple[Inputs, Tensor]], logits: Logits | None = None) -> nn.Module:
    """The network inside wrappers: itself, if it takes one tensor and returns one, else as a `Classifier`."""
    model = unwrapped(model)
    if isinstance(model, Classifier) or (logits is None and _is_one(model, batches[0][0])):
        return model
    return Classifier(model, logits)


def prepared(
    model: nn.Module, data: Batches, *, by_position: bool = True
) -> tuple[nn.Module, list[tuple[Inputs, Tensor]]]:
    """Network and data as every matrix takes them; `by_position` as in `repro.curvature.batches.batch_list`.

    Raises:
        TypeError, ValueError: see `repro.curvature.batches.batch_list`.
    """
    batches = batch_list(data, by_position=by_position)
    return as_classifier(model, batches), batches


def _is_one(model: nn.Module, x: Inputs) -> bool:
    """Whether the model is a function of one tensor to one tensor; also if it fails, which others say better."""
    if not isinstance(x, Tensor):
        return False
    for some in (take(x, slice(0, 1)), x):  # a network may be made for batches of one size
        try:
            return isinstance(logits_of(model, some), Tensor)
        except Exception:
            continue
    return True
