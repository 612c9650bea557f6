"""Features h and backpropagated errors delta of each layer, captured by hooks (Papyan 2020, Section 7, Eqs. 7.3-7.8).

Conventions. A layer is an nn.Linear or an nn.Conv2d; z is the output of its linear map, before any batch norm. It acts
at T positions of each example (T = 1 for a linear map on vectors): z_t = W h_t with h_t [D] and W [O, D]. For a
convolution h_t is the patch under the kernel and W its flattened weight, so D = channels x height x width of the
kernel. With a bias b the layer is [W b] and h_t has a one appended. A gradient of the layer is the matrix

    g_{i,c,c'} = Σ_t delta_{i,c,c',t} h_{i,c,t}^T  [O, D],     delta_{i,c,c',t} = ∂ℓ(f(x_{i,c}), y_{c'}) / ∂z_t,

flattened by rows, so that it is Σ_t delta_t ⊗ h_t in the sense of torch.kron. With batch norm in eval mode examples do
not mix and this holds exactly.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold
from torch.utils._pytree import tree_leaves

from repro.curvature import checks
from repro.curvature.batches import Batches, checked_batches
from repro.curvature.classifier import prepared
from repro.curvature.evaluation import evaluation
from repro.curvature.function import logits_of
from repro.curvature.inputs import Inputs, Positions, count, join, take
from repro.curvature.loss import errors as errors_of
from repro.curvature.parameters import Parameters, in_place, unwrapped
from repro.curvature.proof import prove_gradients
from repro.linalg.operator import LinearOperator

log = logging.getLogger(__name__)

SOME = 8  # examples with which it is found out how layers are used

Hook = Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor], Tensor], Tensor]


class Captured(NamedTuple):
    """One batch seen by the layers, in the order in which they are executed."""

    logits: Tensor  # [B, C]
    p: Tensor  # [B, C]  softmax probabilities
    h: dict[str, Tensor]  # layer -> [B, T, D]
    delta: dict[str, Tensor]  # layer -> [B, C, T, O], the second index being the would-be label c'


def layer_names(model: nn.Module, x: Inputs) -> list[str]:
    """Names of the linear and convolution layers in the order in which a forward pass on `x` executes them.

    Raises:
        ValueError: as `capture`, or a layer sees the examples in another order than they come in.
    """
    model = unwrapped(model)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if turned := [name for name, same in _in_order(model, take(x, slice(0, SOME))).items() if not same]:
        raise ValueError(
            f"layer {turned[0]!r} sees the examples of a batch in another order than they come in, as where a network"
            " sorts them, so that its features and errors cannot be told apart by class: give it data in that order"
        )
    return list(capture(model, take(x, slice(0, 1)), names, bias=False, errors=False).h)


def layer_weights(model: nn.Module, layers: Sequence[str]) -> list[Tensor]:  # [O, ...] each
    """The weights of the layers."""
    return [unwrapped(model).get_parameter(f"{name}.weight") for name in layers]


def capture(model: nn.Module, x: Inputs, layers: Sequence[str], *, bias: bool, errors: bool = True) -> Captured:
    """Features and errors of `layers` on the inputs `x`: one forward pass, and C backward passes that share it.

    Memory: B T (D + C O) numbers a layer; pass smaller batches where that is too much.

    Args:
        layers: Names in model.named_modules().
        bias: Append a one to h where the layer has a bias, so that g is the gradient of [W b].
        errors: Whether to propagate errors; without them `delta` is empty and nothing is differentiated.

    Raises:
        ValueError: a module is in training mode, a layer is executed twice or not at all, its first axis is not the
            examples', the logits do not depend on it, or a convolution is grouped or not padded by a fixed number of
            zeros.
        TypeError: a layer is neither nn.Linear nor nn.Conv2d.
    """
    model = unwrapped(model)
    if isinstance(x, Positions) and x.chosen.dtype == torch.bool:
        raise ValueError(
            "the data have labels at several positions of an example, and features and errors of layers are measured"
            " for one label each: choose a measurement of the whole network"
        )
    if not errors:
        try:
            with _executed(model, x, layers, bias=bias, graph=False) as (logits, h, _):
                return Captured(logits.detach(), logits.detach().softmax(dim=1), h, {})
        except RuntimeError:  # forward takes gradients by its weights itself
            log.debug("features are taken with a graph")
    delta: dict[str, Tensor] = {}
    with _executed(model, x, layers, bias=bias, graph=True) as (logits, h, z):
        p = logits.detach().softmax(dim=1)
        for k in range(p.shape[1] if errors else 0):
            for name, rows in _pull_back(model, logits, z, errors_of(p, k)).items():
                delta.setdefault(name, rows.new_empty(len(p), p.shape[1], *rows.shape[1:]))[:, k] = rows
    return Captured(logits.detach(), p, h, delta)


@contextmanager
def _executed(
    model: nn.Module, x: Inputs, layers: Sequence[str], *, bias: bool, graph: bool
) -> Iterator[tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]]:
    """Logits of a forward pass, features h and outputs z of the layers; inside, logits may be differentiated by z."""
    if training := [name or "the model" for name, module in model.named_modules() if module.training]:
        raise ValueError(f"{training[0]} is in training mode, where examples of a batch mix; call model.eval() first")
    modules = {name: _checked(name, model.get_submodule(name)) for name in layers}
    h: dict[str, Tensor] = {}
    z: dict[str, Tensor] = {}

    def record(name: str) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> Tensor:
            if name in h:
                raise ValueError(f"layer {name!r} is executed twice; its gradient is not of the form Σ_t delta_t ⊗ h_t")
            if len(output) != count(x):
                raise ValueError(
                    f"layer {name!r} puts out {len(output)} rows for {count(x)} examples; it has no such form"
                )
            h[name] = _features(module, (inputs[0] if inputs else named["input"]).detach(), bias)
            z[name] = output
            return output.clone()  # what follows may work in place

        return hook

    weights = [name for name, weight in model.named_parameters() if weight.is_floating_point()]
    with in_place(model, {}, weights if graph else []), evaluation(model):
        with _hooks({module: record(name) for name, module in modules.items()}):
            logits = model(x)
        if missed := [name for name in layers if name not in h]:
            raise ValueError(f"layer {missed[0]!r} is not executed by the model's forward pass")
        yield logits, h, z


def _pull_back(model: nn.Module, logits: Tensor, z: Mapping[str, Tensor], u: Tensor) -> dict[str, Tensor]:
    """The derivatives of <u, logits> by the outputs of the layers, [B, T, O] each, where u is [B, C]."""
    lost = [name for name, output in z.items() if not output.requires_grad]
    with checks.differentiable():
        found = [] if lost else torch.autograd.grad(logits, list(z.values()), u, retain_graph=True, allow_unused=True)
    if lost := lost or [name for name, gradient in zip(z, found) if gradient is None]:
        raise ValueError(
            f"no error is propagated to layer {lost[0]!r}: the model runs it under torch.no_grad, detaches its output"
            " or does not use it; choose other layers"
        )
    rows: dict[str, Tensor] = {}
    for name, gradient in zip(z, found):
        if isinstance(model.get_submodule(name), nn.Conv2d):
            gradient = gradient.flatten(2).transpose(1, 2)
        rows[name] = gradient.reshape(len(gradient), -1, gradient.shape[-1])
    return rows


def factored_layers(model: nn.Module, x: Inputs) -> dict[str, tuple[int, int, int]]:
    """The layers of which Σ_t delta_t ⊗ h_t is the whole gradient, with their T, D and O; D counts the bias as a one.

    Left out are those that `capture` refuses, and those for whose weights that sum differs from autograd's gradient for
    a random cotangent: tied weights, weights that are computed from others, layers whose output a hook changes. And
    those that see the examples in another order than they come in, as where a network sorts texts by their length.

    Args:
        x: some inputs of the model, of which the first are looked at.
    """
    model = unwrapped(model)
    few = take(x, slice(0, SOME)) if count(x) > 1 else join([x, x])  # with one, an axis of one could be the examples'
    in_order = _in_order(model, few)
    own = dict(model.named_parameters())  # a weight that is shared comes once
    found = {
        name: sizes
        for name, (sizes, _) in _executed_once(model, take(x, slice(0, 1))).items()
        if in_order.get(name) and f"{name}.weight" in own
    }
    if not found:
        return {}
    with _executed(model, take(few, slice(0, 2)), list(found), bias=True, graph=True) as (logits, h, z):
        u = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        used = {name: output for name, output in z.items() if output.requires_grad}
        delta = _pull_back(model, logits, used, u)
        for name in found.copy():
            pieces = [own[f"{name}.{key}"] for key in ("weight", "bias") if f"{name}.{key}" in own]
            gradients = torch.autograd.grad(logits, pieces, u, retain_graph=True, materialize_grads=True)
            exact = torch.cat([gradient.reshape(len(gradient), -1) for gradient in gradients], dim=1)
            ours = torch.einsum("bto,btd->od", delta[name], h[name])
            if (ours - exact).norm() > torch.finfo(exact.dtype).eps ** 0.5 * exact.norm():
                del found[name]
    return found


def check_layer_gradients(model: nn.Module, x: Inputs, layers: Sequence[str]) -> None:
    """Refuse layers of which Σ_t delta_t ⊗ h_t is not the whole gradient; arguments as in `factored_layers`.

    Raises:
        ValueError: naming the first.
    """
    whole = factored_layers(model, x)
    for name in layers:
        if name not in whole:
            raise ValueError(
                f"the weight of layer {name!r} is used elsewhere too or computed from others, or a hook changes its"
                " output, so its gradient is not of the form Σ_t delta_t ⊗ h_t: give each layer a weight of its own, or"
                " choose a measurement of the whole network"
            )


def check_errors(model: nn.Module, data: Sequence[tuple[Inputs, Tensor]], layers: Sequence[str]) -> None:
    """Refuse networks whose backward pass is not the derivative of their forward pass, on a few examples.

    Raises:
        NotADerivative: see `repro.curvature.proof.prove`.
    """
    chosen = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in set(layers)] or None
    prove_gradients(model, Parameters(model, chosen), data)


def _in_order(model: nn.Module, x: Inputs) -> dict[str, bool]:
    """Whether the rows that layers put out are in the order of the examples: they must turn round with these."""
    turned = take(x, torch.arange(count(x) - 1, -1, -1, device=tree_leaves(x)[0].device))
    there, back = (_executed_once(model, examples) for examples in (x, turned))
    found = {}
    for name in [name for name in there if name in back]:
        norms, of_turned = there[name][1], back[name][1].flip(0)
        allowed = torch.finfo(norms.dtype).eps ** 0.5 * float(norms.max())
        found[name] = torch.allclose(norms, of_turned, rtol=0, atol=allowed)
    return found


def _executed_once(model: nn.Module, x: Inputs) -> dict[str, tuple[tuple[int, int, int], Tensor]]:
    """T, D and O of the layers that are executed once, on all examples, and the norm [B] of each row they put out."""
    modules = {name: module for name, module in model.named_modules() if _is_plain(module)}
    shapes: dict[str, list[torch.Size]] = {name: [] for name in modules}
    norms: dict[str, Tensor] = {}

    def record(name: str) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> Tensor:
            shapes[name].append(output.shape)
            norms[name] = output.detach().flatten(1).norm(dim=1) if output.ndim > 1 else output.detach()
            return output

        return hook

    with _hooks({module: record(name) for name, module in modules.items()}):
        logits_of(model, x)
    found: dict[str, tuple[tuple[int, int, int], Tensor]] = {}
    for name, module in modules.items():
        if [shape[0] for shape in shapes[name]] == [count(x)]:
            O, *inner = module.weight.shape
            sizes = shapes[name][0][1:].numel() // O, math.prod(inner) + (module.bias is not None), O
            found[name] = sizes, norms[name]
    return found


def _is_plain(module: nn.Module) -> bool:
    own = {name for name, _ in module.named_parameters(recurse=False)}
    return (
        isinstance(module, nn.Linear | nn.Conv2d)
        and not module.training
        and not _is_unusual(module)
        and own == ({"weight"} if module.bias is None else {"weight", "bias"})
    )


def _checked(name: str, module: nn.Module) -> nn.Module:
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise TypeError(
            f"layer {name!r} is a {type(module).__name__}; features and errors need an nn.Linear or nn.Conv2d"
        )
    if _is_unusual(module):
        raise ValueError(
            f"convolution {name!r} is grouped or not padded by a fixed number of zeros; it has no such form"
        )
    return module


def _is_unusual(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and (
        module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str)
    )


@contextmanager
def _hooks(hooks: dict[nn.Module, Hook]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _features(module: nn.Module, x: Tensor, bias: bool) -> Tensor:  # -> [B, T, D]
    if isinstance(module, nn.Conv2d):
        patches = unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)  # type: ignore[arg-type]
        h = patches.transpose(1, 2)
    else:
        h = x.reshape(len(x), -1, x.shape[-1])
    return pad(h, (0, 1), value=1.0) if bias and module.bias is not None else h


class LayerSamples(NamedTuple):
    """One batch as one layer sees it; with a bias h has a one appended."""

    h: Tensor  # [B, T, D]
    delta: Tensor  # [B, C, T, O]
    p: Tensor  # [B, C]
    y: Tensor  # [B]


class LayerBytes(NamedTuple):
    """What one layer takes in memory."""

    name: str
    samples: float  # of all examples, as `list(stream)` holds them
    features_moment: int  # of a D x D matrix in float64
    errors_moment: int  # O x O
    weight: int  # O x D


class LayerStream:
    """The samples of one layer, batch by batch, captured anew each time they are iterated over.

    `list(stream)` keeps them: N (T (D + C O) + C) numbers.
    """

    def __init__(self, model: nn.Module, data: Batches, layer: str):
        self.layer = layer
        self.model, self.data = prepared(model, data)
        check_errors(self.model, self.data, [layer])

    def nbytes(self) -> LayerBytes:
        """What the layer takes, from its first batch."""
        first = next(iter(self))
        samples = sum(tensor.nbytes for tensor in first) / len(first.h) * sum(len(y) for _, y in self.data)
        D, O = first.h.shape[-1], first.delta.shape[-1]
        return LayerBytes(self.layer, samples, 8 * D * D, 8 * O * O, 8 * O * D)

    def __iter__(self) -> Iterator[LayerSamples]:
        for x, y in checked_batches(self.model, self.data):
            seen = capture(self.model, x, [self.layer], bias=True)
            yield LayerSamples(seen.h[self.layer], seen.delta[self.layer], seen.p, y)


class LayerGaussNewton(LinearOperator):
    """G^l = Σ w g g^T of one layer from its samples: V -> Σ w (Σ_t delta_t^T V h_t) Σ_t delta_t h_t^T.

    A vector is V [O, D] flattened by rows. One product costs two passes through the layer, whatever the depth of the
    network, if the samples are kept (`list(stream)`).
    """

    def __init__(self, samples: Sequence[LayerSamples]):
        h, delta = samples[0].h, samples[0].delta
        super().__init__(h.new_empty(1).expand(delta.shape[-1] * h.shape[-1]))
        self.samples, self.shape = samples, (delta.shape[-1], h.shape[-1])
        self.examples = sum(len(batch.h) for batch in samples)

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        V = V.T.reshape(-1, *self.shape)  # [K, O, D]
        total = torch.zeros_like(V)
        for h, delta, p, _ in self.samples:
            Vh = torch.einsum("kod,btd->bkto", V, h)
            inner = torch.einsum("bcto,bkto->bkc", delta, Vh) * (p / self.examples)[:, None]
            total += torch.einsum("bkto,btd->kod", torch.einsum("bkc,bcto->bkto", inner, delta), h)
        return total.flatten(1).T
