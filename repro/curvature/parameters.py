"""The parameters of a network as one vector θ, and the network's own tensors set to given values for a while."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from repro.curvature import checks

Selection = str | Iterable[str] | Callable[[str], bool] | None


class Parameters:
    """The chosen parameters of a network as one vector [P], in the order of `named_parameters`.

    `selection` is None (all of them), a prefix ("classifier" means 'classifier.*'), names, a predicate on names, or
    "trainable": those with requires_grad. Otherwise `requires_grad` plays no part: what θ is, the selection says. One
    that is shared comes once, under the first of its names; a prefix or a name may be any of them.

    Attributes:
        names, shapes: of the parameters, in order.
        slices: name -> its place in the vector.
        dim: P.

    Raises:
        ValueError: the model has no such parameters, or they are no finite real numbers; see `checks.check_weights`.
    """

    def __init__(self, model: nn.Module, selection: Selection = None):
        checks.check_initialised(model)
        found = dict(model.named_parameters())
        chosen = _chosen(model, selection)
        self.names = [name for name in found if name in chosen]
        self.shapes = [found[name].shape for name in self.names]
        checks.check_weights({name: found[name].detach() for name in self.names})
        ends = list(accumulate(shape.numel() for shape in self.shapes))
        self.slices = {name: slice(a, b) for name, a, b in zip(self.names, [0, *ends], ends)}
        self.dim: int = ends[-1]

    def flatten(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:  # -> [P]
        """Concatenate tensors, given by name or in order, to one vector."""
        ordered = [tensors[name] for name in self.names] if isinstance(tensors, Mapping) else tensors
        return torch.cat([tensor.reshape(-1) for tensor in ordered])

    def unflatten(self, v: Tensor) -> dict[str, Tensor]:  # [P] -> views by name
        """The pieces of a vector [P] in the shapes of the parameters; views, not copies."""
        return {name: v[self.slices[name]].view(shape) for name, shape in zip(self.names, self.shapes)}


def _chosen(model: nn.Module, selection: Selection) -> set[str]:
    found = dict(model.named_parameters())
    if selection is None:
        return set(found)
    first = {id(parameter): name for name, parameter in found.items()}
    names = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    if isinstance(selection, str):
        chosen = {own for name, own in names.items() if name == selection or name.startswith(f"{selection}.")}
        if selection == "trainable" and not chosen:
            chosen = {name for name, parameter in found.items() if parameter.requires_grad}
    elif callable(selection):
        chosen = {name for name in found if selection(name)}
    else:
        wanted = set(selection)
        if unknown := wanted - names.keys():
            raise ValueError(f"the model has no parameters {sorted(unknown)}; it has {sorted(found)}")
        chosen = {names[name] for name in wanted}
    if not chosen:
        raise ValueError(f"no parameter is selected by {selection!r}; the model has {sorted(found)}")
    return chosen


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile: the same function of one batch."""
    while True:
        if isinstance(model, nn.DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(inside := getattr(model, "_orig_mod", None), nn.Module):  # torch.compile(model)
            model = inside
        else:
            return model


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers themselves, by name; one that is shared comes once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters and buffers, by name."""
    return {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of real or complex numbers in the precision of `dtype`, float32 or float64; others as they are."""
    if tensor.is_complex():
        return tensor.to(dtype.to_complex())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@contextmanager
def in_place(model: nn.Module, values: Mapping[str, Tensor], chosen: Collection[str]) -> Iterator[None]:
    """Let the model's own tensors hold `values` for a while, and of its parameters those `chosen` require gradients.

    This reaches the weights wherever the model keeps them (lists, closures, scripted modules), where
    `torch.func.functional_call` reaches registered attributes alone. Only pointers to storage are exchanged, and
    exchanged back at the end whatever happens: nothing is copied, and no value of the model's changes. Hooks on the
    parameters' gradients, such as clipping, are off meanwhile.

    Args:
        values: by name; those left out stay as they are. Another dtype than the model's is allowed.
        chosen: names of parameters.
    """
    own, parameters = tensors_of(model), dict(model.named_parameters())
    data = {name: tensor.data for name, tensor in own.items()}
    marks = {name: (parameter.requires_grad, parameter._backward_hooks) for name, parameter in parameters.items()}
    try:
        for name, tensor in own.items():
            tensor.data = values.get(name, tensor.data)
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in chosen)
            parameter._backward_hooks = None
        yield
    finally:
        for name, tensor in own.items():
            tensor.data = data[name]
        for name, parameter in parameters.items():
            required, hooks = marks[name]
            parameter._backward_hooks = hooks if required else None
            parameter.requires_grad_(required)


def is_held(model: nn.Module) -> bool:
    """Whether others hold on to what autograd attaches to a parameter, as DistributedDataParallel does in training.

    A change of a parameter's dtype renews its gradient accumulator; hooks on the old one would never run again.
    """
    with torch.enable_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                _accumulator(parameter).metadata["seen"] = True
                if "seen" in _accumulator(parameter).metadata:  # a new one would know nothing
                    return True
    return False


def _accumulator(parameter: Tensor) -> Any:
    return parameter.view_as(parameter).grad_fn.next_functions[0][0]  # type: ignore[union-attr]
