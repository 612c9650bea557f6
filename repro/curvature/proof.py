"""The products with a network prove themselves on it, before anything is computed from them.

On a few examples, for a random cotangent u and a random direction v, the fast path is compared with torch's double
backward on the user's own module (`repro.curvature.derivatives`), and that with finite differences:

    J v         with    (f(θ + h v) − f(θ − h v)) / 2h                       f [B, C] the logits, J = ∂f/∂θ
    Σ u ∂²f v   with    (J^T u at θ + h v  −  J^T u at θ − h v) / 2h

Where fast and plain differ, the plain path is used, and said once. Where plain and finite differences differ, what
autograd returns for this network is not its derivative: it is refused. The cross-entropy plays no part in this, so
nothing is small at a fit.

The comparison is made in float64 wherever the network runs in it: thresholds are tight, and steps so small that hardly
a ReLU changes sign. Units may be at a kink exactly (dead inputs, biases of zero); then it is made at a point nearby.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_map

from repro.curvature import checks
from repro.curvature.batches import spread_examples
from repro.curvature.derivatives import Derivatives, DoubleBackward, Intercepted
from repro.curvature.evaluation import Lowest
from repro.curvature.inputs import Inputs, count
from repro.curvature.parameters import Parameters, converted, in_place, is_held, tensors_of

log = logging.getLogger(__name__)

State = Mapping[str, Tensor]
Data = Sequence[tuple[Inputs, Tensor]]
Need = Literal["gradient", "tangent", "curvature"]  # J^T u alone; J v as well; second derivatives as well

EXAMPLES = 8
NEARBY = 1e-3  # distance of a point nearby, relative to each entry of θ
FLOOR = 1e-2  # a product that is small beside what it is made of has the error of that, times this


class NotADerivative(ValueError):
    """What autograd returns for a network is not its derivative."""


class Precision(NamedTuple):
    """Arithmetic in which products are compared, and what it allows for."""

    dtype: torch.dtype
    upcast: bool  # also inside the network, see `repro.curvature.evaluation.Upcast`
    steps: tuple[float, ...]  # h, tried in turn; v is as large as θ, parameter by parameter
    same: float  # relative difference of two computations of one product
    finite: float  # relative error of a finite difference


DOUBLE = Precision(torch.float64, False, (1e-8, 1e-6, 1e-9, 1e-4, 1e-10), same=1e-9, finite=1e-4)
UPCAST = DOUBLE._replace(upcast=True)
SINGLE = Precision(torch.float32, False, (1e-2, 1e-3, 3e-2), same=1e-3, finite=3e-2)


def prove(model: nn.Module, parameters: Parameters, state: State, data: Data, *, need: Need, fast: bool = True) -> bool:
    """Whether the fast path may be used for products with `model` at the weights `state`.

    It takes some 8 gradients in float64 on a thirty-second of a batch, from one to 8 examples. With batches of 128 that
    was one and two gradients of a batch on a ResNet18 and four of a VGG11, of which a spectrum takes hundreds; more if
    a pass over a batch takes hardly longer than one over its weights. If some parameter has no gradient on these
    examples (experts that are routed to), the same is done with 32.

    Args:
        need: what products will be asked for.
        fast: whether there is a fast path at all; without it plain and finite differences alone are compared.

    Raises:
        NotADerivative: plain and finite differences differ.
        ValueError: torch cannot differentiate the network as often as needed.
    """
    batch = data[0][0]
    few = spread_examples(data, min(EXAMPLES, max(1, count(batch) // 32)))
    try:
        complete, objection = _try(few, model, parameters, state, need, fast)
    except NotADerivative:
        raise
    except Exception:  # a network may be made for batches of one size
        complete, objection = _try(batch, model, parameters, state, need, fast)
    if not complete:
        objection = _try(spread_examples(data, 4 * EXAMPLES), model, parameters, state, need, fast)[1] or objection
    if objection:
        checks.warn_once(
            model, f"the fast path of products {objection}; torch's double backward is used, about twice as slow"
        )
    return fast and not objection


def prove_gradients(model: nn.Module, parameters: Parameters, data: Data) -> None:
    """`prove` of gradients alone, at the model's own weights.

    Raises:
        NotADerivative, ValueError: as `prove`.
    """
    state = {name: tensor.detach() for name, tensor in tensors_of(model).items()}
    prove(model, parameters, state, data, need="gradient", fast=False)


def _check_precision(x: Inputs, model: nn.Module, parameters: Parameters, state: State) -> None:
    """Refuse a network that rounds to a lower precision than that of its weights inside: its products are no better."""
    own, lowest, plain = state[parameters.names[0]].dtype, Lowest(), DoubleBackward(model, parameters, state)
    with plain.active(), lowest:
        logits = plain.logits(x).detach()
    if torch.finfo(lowest.dtype).eps <= torch.finfo(own).eps:
        return
    try:
        wide = DoubleBackward(model, parameters, state, upcast=True)
        with wide.active():
            exact = wide.logits(x).detach()
    except Exception:  # it is not known, then
        return
    if not (logits - exact).norm() <= torch.finfo(own).eps ** 0.6 * exact.norm():
        raise ValueError(
            f"the model computes in {lowest.dtype} inside although its weights are {own}, and its products would be no"
            " better: leave out autocast and conversions, or convert the whole model to float32 or float64"
        )


def _try(x: Inputs, model: nn.Module, parameters: Parameters, state: State, need: Need, fast: bool) -> tuple[bool, str]:
    """Whether every parameter has a gradient on the inputs x, and the objection to the fast path, empty if none."""
    _check_precision(x, model, parameters, state)
    own, failure = state[parameters.names[0]].dtype, None
    for precision in (DOUBLE, UPCAST, SINGLE):
        if precision is SINGLE and (isinstance(failure, NotADerivative) or own != SINGLE.dtype):
            break
        there = {name: converted(tensor, precision.dtype) for name, tensor in state.items()}
        nearby = _moved(there, parameters)
        for point, elsewhere in ((nearby, there), (there, nearby)):
            try:
                trial = Trial(x, model, parameters, point, need=need, precision=precision)
                trial.compare_with_finite_differences()
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of any kind: a network may be float32 inside, by name or by its own kernels
                if failure is None or isinstance(error, NotADerivative) or precision is SINGLE:
                    failure = error
            else:
                return trial.is_complete(), trial.objection_to_the_fast_path(elsewhere) if fast else ""
    assert failure is not None
    raise failure


def _moved(state: State, parameters: Parameters) -> State:
    """A point nearby, where no unit is at a kink exactly; entries of zero move by what others of their tensor do."""
    moved = dict(state)
    for name in parameters.names:
        size = torch.where(state[name] == 0, _root_mean_square(state[name]), state[name])
        moved[name] = state[name].addcmul(size, _noise(state[name], seed=2), value=NEARBY)
    return moved


class Products(NamedTuple):
    """The products of a sample at one θ; zero where they are not needed."""

    logits: Tensor  # [B, C]
    gradient: Tensor  # [P]  J^T u
    tangent: Tensor  # [B, C]  J v; if gradients alone are needed, their product <J^T u, v> [1]
    curvature: Tensor  # [P]  Σ u ∂²f v


class Trial:
    """The comparison of the ways to multiply on one sample, in one arithmetic."""

    def __init__(
        self, x: Inputs, model: nn.Module, parameters: Parameters, state: State, *, need: Need, precision: Precision
    ):
        self.parameters, self.need, self.precision = parameters, need, precision
        changes = precision.dtype != dict(model.named_parameters())[parameters.names[0]].dtype
        self.own = copy.deepcopy(model) if changes and is_held(model) else model
        self.x, self.state = tree_map(lambda leaf: converted(leaf, precision.dtype), x), state
        weights = [state[name] for name in parameters.names]
        self.v = parameters.flatten([_root_mean_square(w) * _noise(w, seed=1) for w in weights])
        self.plain = self._products(self._double_backward(state))
        if not all(math.isfinite(float(part.norm())) for part in self.plain):
            raise NotADerivative(
                "the network's derivatives are not finite although its logits are: look for a root, norm, logarithm or"
                " quotient that is taken at zero"
            )

    def is_complete(self) -> bool:
        """Whether every parameter has a gradient on this sample."""
        return all(bool(piece.any()) for piece in self.parameters.unflatten(self.plain.gradient).values())

    def objection_to_the_fast_path(self, elsewhere: State) -> str:
        """Why it may not be used; empty if it may.

        Meanwhile the model's own weights are others: the fast path must not depend on them, nor fail under the hooks
        that measure its graphs.
        """
        try:
            fast = Intercepted(self.own, self.parameters, self.state, upcast=self.precision.upcast)
            with in_place(self.own, elsewhere, []), saved_tensors_hooks(_itself, _itself):
                found = self._products(fast)
        except Exception as error:  # whatever the interception of layers makes of the network
            reason = str(error).strip().splitlines() or [""]
            return f"fails on it ({type(error).__name__}: {reason[0][:300]})"
        worst = max(self._errors(found, self.plain, self.precision.same).values())
        return "" if worst <= 1 else "gives other products than double backward"

    def compare_with_finite_differences(self) -> None:
        """Steps are tried in turn; one that agrees is enough.

        Raises:
            NotADerivative: there is none.
        """
        tried: list[dict[str, float]] = []
        before: Products | None = None
        conclusive = self.precision.dtype == DOUBLE.dtype
        for step in self.precision.steps:
            found = self._finite_differences(step)
            tried.append(self._errors(found, self.plain, self.precision.finite))
            if max(tried[-1].values()) <= 1:
                return
            if before is not None:
                conclusive |= max(self._errors(found, before, self.precision.finite).values()) <= 1
            before = found
        if conclusive or min(errors[""] for errors in tried) > 1:
            raise NotADerivative(self._sentence(min(tried, key=lambda errors: max(errors.values()))))
        log.warning("%s runs in float32 alone: its second derivatives could not be checked", self.own._get_name())

    def _double_backward(self, state: State) -> DoubleBackward:
        return DoubleBackward(self.own, self.parameters, state, upcast=self.precision.upcast)

    def _products(self, derivatives: Derivatives) -> Products:
        v = self.v
        gradient, curvature, tangent = torch.empty_like(v), v.new_zeros(1).expand_as(v), v.new_zeros(1)
        with derivatives.active():
            recorded = derivatives.record(self.x, _cotangent, curved=self.need == "curvature")
            if recorded is None:  # nothing to compare
                return Products(tangent, curvature, tangent, curvature)
            for name, row in derivatives.fixed_rows():
                self.parameters.unflatten(v)[name][row] = 0
            curved = self.need == "curvature"
            curvature = torch.empty_like(v) if curved else curvature
            if self.need != "gradient":
                with derivatives.along(v, curvature, first=curved):
                    tangent = derivatives.tangent(recorded, curved=curved)
            with derivatives.along(v, gradient, first=True):
                derivatives.add_pull_back(recorded, recorded.cotangent.detach())
        if self.need == "gradient":
            tangent = (gradient @ v)[None]
        return Products(recorded.logits.detach(), gradient, tangent, curvature)

    def _finite_differences(self, step: float) -> Products:
        logits, gradients = [], []
        for h in (step, -step):
            moved = self.parameters.unflatten(h * self.v)
            there = {name: t + moved[name] if name in moved else t for name, t in self.state.items()}
            derivatives = self._double_backward(there)
            with derivatives.active():
                if self.need == "curvature":
                    f, g = derivatives.gradient(self.x, _cotangent)
                    gradients.append(g)
                else:
                    f = derivatives.logits(self.x).detach()
                logits.append(f)
        tangent = (logits[0] - logits[1]) / (2 * step)
        if self.need == "gradient":
            tangent = (tangent * _cotangent(tangent).detach()).sum()[None]
        curvature = (gradients[0] - gradients[1]) / (2 * step) if gradients else self.plain.curvature
        return self.plain._replace(tangent=tangent, curvature=curvature)

    def _errors(self, found: Products, expected: Products, relative: float) -> dict[str, float]:
        """Errors in units of what is allowed: of J v, under "", and of the others by parameter, under its name."""
        size = float(expected.logits.norm())
        errors = {"": _excess(found.tangent, expected.tangent, relative, FLOOR * size)}
        errors[""] = max(errors[""], _excess(found.logits, expected.logits, relative, 0.0))
        sizes = {name: float(g.norm()) for name, g in self.parameters.unflatten(expected.gradient).items()}
        for ours, theirs in ((found.gradient, expected.gradient), (found.curvature, expected.curvature)):
            if ours is theirs:
                continue
            size, pieces = float(theirs.norm()), self.parameters.unflatten(theirs)
            for name, piece in self.parameters.unflatten(ours).items():
                excess = _excess(piece, pieces[name], relative, FLOOR * (size + sizes[name]))
                errors[name] = max(errors.get(name, 0.0), excess)
        return errors

    def _sentence(self, errors: dict[str, float]) -> str:
        worst = max(errors, key=lambda name: errors[name])
        what = f"second derivatives by autograd, in parameter '{worst}'," if worst else "derivatives by autograd"
        derivatives = self._double_backward(self.state)
        with derivatives.active():
            custom = custom_functions(derivatives.logits(self.x))
        cause = f"its autograd function {', '.join(custom)}; or " if custom else ""
        return (
            f"the network's {what} are not those of its logits by finite differences. The likely cause is {cause}an"
            " operation that is not smooth, that torch differentiates once only or to something else (a"
            " straight-through or reversed gradient), a part under detach or torch.no_grad whose parameters should not"
            " be chosen, or random numbers: leave that part's parameters out with parameters=..., or write it with"
            " elementary operations"
        )


def custom_functions(logits: Tensor) -> list[str]:
    """Names of the autograd functions written in Python that a result was computed by."""
    names: set[str] = set()
    seen, waiting = set(), [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names.add(type(node).__name__.removesuffix("Backward"))
        waiting += [following for following, _ in node.next_functions]
    return sorted(names)


def _cotangent(logits: Tensor) -> Tensor:  # -> u [B, C]
    """The same random numbers each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(logits.shape, generator=generator).to(logits).requires_grad_()


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _excess(found: Tensor, expected: Tensor, relative: float, floor: float) -> float:
    """|found − expected| in units of relative (|expected| + floor)."""
    error = float((found - expected).norm())
    if not math.isfinite(error):
        return math.inf
    return error / max(relative * (float(expected.norm()) + floor), 1e-300)


def _noise(like: Tensor, seed: int) -> Tensor:
    """Normal random numbers; some thousands that are repeated, as millions would take longer than the products."""
    few = torch.randn(min(like.numel(), 8191), generator=torch.Generator().manual_seed(seed)).to(like)
    return few.repeat(-(-like.numel() // max(len(few), 1)))[: like.numel()].view(like.shape)


def _root_mean_square(weights: Tensor) -> Tensor:
    """One for weights that are all zero."""
    size = weights.norm() / max(weights.numel(), 1) ** 0.5
    return torch.where(size > 0, size, 1)
