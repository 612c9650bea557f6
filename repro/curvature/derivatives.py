"""First and second derivatives of a network's logits along a direction, batch by batch: a fast path and a plain one.

Let f(θ) [B, C] be the logits of a batch, one row for each example or labelled position, u [B, C] a cotangent and v [P]
a direction. Everything that curvature needs of the network are three products, and one recorded graph of J^T u,
J = ∂f/∂θ, serves them for any v:

    J^T u                     the gradient of <u, f(θ)>
    J v                       the derivative of <J^T u, v> by u
    Σ u ∂²f v                 the derivative of <J^T u, v> by θ; where u depends on f, J^T (∂u/∂f) J v joins it

`DoubleBackward` is that sentence in torch, on the network as it is. `Intercepted` has the same results at a lower cost,
where it is applicable; `repro.curvature.proof` finds out whether it is on the network at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from repro.curvature import checks
from repro.curvature.affine import Direction, Intercept
from repro.curvature.evaluation import Upcast, evaluation, own_precision
from repro.curvature.inputs import Inputs
from repro.curvature.parameters import Parameters, in_place

Cotangent = Callable[[Tensor], Tensor]  # logits [B, C] -> u [B, C]


class Recorded(NamedTuple):
    """The graph of J^T u of one batch, ready to be differentiated again and again."""

    logits: Tensor  # [B, C]
    cotangent: Tensor  # u [B, C]
    pieces: tuple[Tensor | None, ...]  # ∂<u, f>/∂t of `Direction.t`, then J^T u of each parameter that autograd sees


class Derivatives:
    """The three products with one network at one θ; subclasses say how its logits come to be recorded.

    Args:
        model: the network.
        parameters: which of its parameters θ consists of.
        state: values of all parameters and buffers by name, in float32 or float64.
        upcast: compute in double precision inside the network too, see `repro.curvature.evaluation.Upcast`.

    Attributes:
        leaves: the tensors that are differentiated by, in the order of `parameters.names`.
        keeps: whether recorded graphs stay valid outside `active`, to be used in several products.
    """

    keeps = True
    leaves: tuple[Tensor, ...]

    def __init__(self, model: nn.Module, parameters: Parameters, state: Mapping[str, Tensor], *, upcast: bool = False):
        self.model, self.parameters, self.state = model, parameters, state
        self.modes = (Upcast(),) if upcast else ()
        self.direction = Direction(state[parameters.names[0]])

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, graphs may be recorded and products taken."""
        with own_precision(self.direction.t.device.type):
            yield

    def logits(self, x: Inputs, *, curved: bool = True) -> Tensor:  # -> [B, C] with a graph; inside `active`
        """The network at θ."""
        raise NotImplementedError

    def fixed_rows(self) -> list[tuple[str, int]]:
        """Rows of parameters that torch gives no gradient although the logits depend on them: padding of embeddings."""
        return []

    def record(self, x: Inputs, cotangent: Cotangent, *, curved: bool) -> Recorded | None:
        """The graph of J^T u on the inputs x; None if the logits depend on none of the parameters.

        Args:
            cotangent: logits -> u; derivatives by θ go through it unless it detaches.
            curved: whether `add_curvature` will be called.
        """
        logits = self.logits(x, curved=curved)
        if not logits.requires_grad:
            return None
        with torch.enable_grad():
            u = cotangent(logits)
            by = (self.direction.t, *self.leaves)
            pieces = _gradients([logits], by, [u], create_graph=True)
        return None if all(piece is None for piece in pieces) else Recorded(logits, u, pieces)

    @contextmanager
    def along(self, v: Tensor, out: Tensor, *, first: bool) -> Iterator[None]:  # v [P], out [P]
        """Inside, products are those with v, and are added to `out`, or written there if they are the first."""
        direction, names = self.direction, self.parameters.names
        direction.v, direction.out = self.parameters.unflatten(v), self.parameters.unflatten(out)
        direction.written = set() if first else set(names)
        yield
        for name in set(names) - direction.written:
            direction.out[name].zero_()
        direction.v, direction.out = {}, {}

    def tangent(self, recorded: Recorded, *, curved: bool = False) -> Tensor:  # -> [B, C]
        """J v: J^T u is linear in u, so J v is the derivative of <J^T u, v> by u.

        If `curved`, the derivative by θ is added to the product on the way.
        """
        pieces, v = self._seen(recorded)
        by = (self.direction.t, *self.leaves) if curved else ()
        Jv, *gradients = _gradients(pieces, [recorded.cotangent, *by], v, create_graph=False)
        self._add_seen(gradients[1:])
        return torch.zeros_like(recorded.logits) if Jv is None else Jv

    def add_pull_back(self, recorded: Recorded, w: Tensor) -> None:  # w [B, C]
        """Add J^T w to the product."""
        self._add([recorded.logits], [w])

    def add_curvature(self, recorded: Recorded) -> None:
        """Add the derivative of <J^T u, v> by θ to the product."""
        pieces, v = self._seen(recorded)
        if pieces:  # otherwise J^T u does not depend on θ
            self._add(pieces, v)

    def _seen(self, recorded: Recorded) -> tuple[list[Tensor], list[Tensor]]:
        tangents = (torch.ones_like(self.direction.t), *self.direction.v.values())
        seen = [(g, t) for g, t in zip(recorded.pieces, tangents) if g is not None and g.requires_grad]
        return [g for g, _ in seen], [t for _, t in seen]

    def _add(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> None:
        """What autograd sees of the gradient is added here; intercepted layers have added theirs when it returns."""
        inputs = (self.direction.t, *self.leaves)
        self._add_seen(_gradients(outputs, inputs, cotangents, create_graph=False)[1:])

    def _add_seen(self, gradients: Sequence[Tensor | None]) -> None:
        for name, gradient in zip(self.parameters.names, gradients):
            if gradient is not None:
                self.direction.add(name, gradient)


class DoubleBackward(Derivatives):
    """The plain path: torch's double backward by the network's own parameters, which hold `state` meanwhile.

    It is right for whatever a network does that torch can differentiate twice: weights kept in lists and closures,
    checkpointing, gradients taken inside forward. Graphs do not outlive `active`, as the parameters change hands there.
    """

    keeps = False

    def __init__(self, model: nn.Module, parameters: Parameters, state: Mapping[str, Tensor], *, upcast: bool = False):
        super().__init__(model, parameters, state, upcast=upcast)
        found = dict(model.named_parameters())
        self.leaves = tuple(found[name] for name in parameters.names)
        self._fixed: list[tuple[Tensor, int]] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        with in_place(self.model, self.state, self.parameters.names), evaluation(self.model, *self.modes) as how:
            self._fixed = how.fixed
            yield

    def fixed_rows(self) -> list[tuple[str, int]]:
        names = {id(leaf): name for name, leaf in zip(self.parameters.names, self.leaves)}
        return [(names[id(weight)], row) for weight, row in self._fixed if id(weight) in names]

    def logits(self, x: Inputs, *, curved: bool = True) -> Tensor:
        return self.model(x)

    def gradient(self, x: Inputs, cotangent: Cotangent) -> tuple[Tensor, Tensor]:  # -> [B, C], [P]
        """The logits and J^T u, without a graph."""
        logits = self.logits(x)
        found: Sequence[Tensor | None] = [None] * len(self.leaves)
        if logits.requires_grad:
            found = _gradients([logits], self.leaves, [cotangent(logits).detach()], create_graph=False)
        pieces = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, self.leaves)]
        return logits.detach(), self.parameters.flatten(pieces)


class Intercepted(Derivatives):
    """The fast path: linear, convolution and batch norm layers as `repro.curvature.affine` records them.

    `functional_call` puts copies of the weights in the place of the network's own, so graphs may be kept.
    """

    def __init__(self, model: nn.Module, parameters: Parameters, state: Mapping[str, Tensor], *, upcast: bool = False):
        super().__init__(model, parameters, state, upcast=upcast)
        own = {name: tensor.detach() for name, tensor in state.items()}
        self.leaves = tuple(own[name].requires_grad_() for name in parameters.names)
        self.own = own

    def logits(self, x: Inputs, *, curved: bool = True) -> Tensor:
        intercept = Intercept(self.direction, dict(zip(self.parameters.names, self.leaves)), curved=curved)
        with evaluation(self.model, intercept, *self.modes):
            return functional_call(self.model, self.own, (x,))


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool
) -> tuple[Tensor | None, ...]:
    """torch.autograd.grad with the graph kept; None for inputs that the outputs do not depend on.

    Raises:
        ValueError: torch cannot differentiate an operation, or not twice.
    """
    with checks.differentiable():
        return torch.autograd.grad(
            outputs, inputs, cotangents, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
