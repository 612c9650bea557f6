"""Linear, convolution and batch norm layers whose weights autograd does not see: products at the floor of their cost.

`repro.curvature.derivatives` says what is computed, J v and Σ u ∂²f v, and has the plain way to it: record J^T u, then
differentiate <J^T u, v>. Here is how a layer takes part in that without gradients of its weights being recorded.

One linear layer z = W h + b inside a network, u a cotangent of the logits f, v = (..., V, v_b, ...) the direction, and
θ(t) = θ + t v. Write δ = ∂<u, f>/∂z, and a dot for d/dt at t = 0 (Pearlmutter 1994). Then

    J^T u has the piece          δ ⊗ h                for W, and δ for b
    ż = W ḣ + V h + v_b          tangents run forward, and end in ḟ = J v
    Σ u ∂²f v has the piece      δ̇ ⊗ h + δ ⊗ ḣ        for W, and δ̇ for b, where the derivative by h is W^T δ̇ + V^T δ

The whole network is differentiated by one scalar t, `Direction.t`, in place of its weights: d<u, f>/dt = <u, J v>
is the sum over layers of <δ, V h + v_b>. Who does what, and when:

    recording, once per batch; v is not known yet
      Push.forward        z = W h + b, a function of h and t
      Push.backward       is given δ; calls Pull, whose two results are the derivatives by h and by t
      Pull.forward        W^T δ, and <δ, V h + v_b>, whose value nobody needs: a zero stands for it
    a product, for each v: autograd differentiates the sum of the <δ, V h + v_b> by u and by θ
      Pull.backward       is given ḣ; reads V from `Direction.v`, returns ż by δ and V^T δ by h; adds δ ⊗ ḣ to
                          `Direction.out`
      Push.backward       is given δ̇; adds δ̇ ⊗ h to `Direction.out`, and returns W^T δ̇ by h

So what would be the gradient by a weight is added to the product by the matrix multiplication itself. For G only J v is
asked of the recorded graph, in which δ plays no part and is not computed either (`curved=False`). A convolution is the
same with its own multiplications; batch norm in eval mode is a diagonal W. All other operations, and weights that no
such layer uses, are left to torch.

Against torch's double backward this saves the weights' gradients of the recording, sums and copies of vectors as long
as θ, and transposed copies of convolutions; `scripts/bench_products.py` measures what it gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from repro.curvature.evaluation import Rules


class Direction:
    """The vector v that is multiplied and the product that is added up, in pieces by parameter name.

    Attributes:
        t: the scalar that layers depend on in the place of their weights.
        v: what Pull.backward reads.
        out: what both backward functions add to.
        written: names of the pieces of `out` that hold a sum already; the others hold nothing yet.
    """

    def __init__(self, like: Tensor):
        self.t = like.new_zeros(()).requires_grad_()
        self.v: Mapping[str, Tensor] = {}
        self.out: Mapping[str, Tensor] = {}
        self.written: set[str] = set()

    def add(self, name: str, term: Tensor) -> None:
        """Add a term to the piece `name`."""
        self.out[name].add_(term) if name in self.written else self.out[name].copy_(term)
        self.written.add(name)

    def add_product(self, name: str, a: Tensor, b: Tensor) -> None:
        """Add a b to the matrix piece `name`."""
        self.out[name].addmm_(a, b, beta=float(name in self.written))
        self.written.add(name)


@dataclass
class Layer:
    """One call of a linear layer, z = W h + b, with weight W part of θ."""

    direction: Direction
    curved: bool  # whether derivatives by θ of the recorded gradient will be asked for
    weight_name: str
    weight: Tensor
    bias_name: str | None  # None where there is no bias, or it is not part of θ
    bias: Tensor | None

    def push(self, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W h + b, for this layer's weight and bias or for those of the direction."""
        return F.linear(h, weight, bias)

    def push_tangent(self, h_dot: Tensor) -> Tensor:
        """W ḣ."""
        return self.push(h_dot, self.weight, None)

    def pull(self, delta: Tensor, weight: Tensor, h: Tensor) -> Tensor:
        """W^T δ, in the shape of h."""
        return delta @ weight

    def add_outer(self, delta: Tensor, h: Tensor, *, tangent: bool = False) -> None:
        """Add δ ⊗ h to the weight's piece of the product, h being inputs, or their tangents ḣ."""
        self.direction.add_product(self.weight_name, delta.flatten(end_dim=-2).T, h.flatten(end_dim=-2))

    def add_bias(self, delta: Tensor) -> None:
        """Add δ, summed over examples and positions, to the bias's piece of the product."""
        if self.bias_name is not None:
            self.direction.add(self.bias_name, delta.flatten(end_dim=-2).sum(dim=0))


@dataclass
class Convolution(Layer):
    """One call of a convolution."""

    settings: tuple[Any, ...]  # arguments of aten::convolution after the bias

    def push(self, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.aten.convolution(h, weight, bias, *self.settings)

    def pull(self, delta: Tensor, weight: Tensor, h: Tensor) -> Tensor:
        return self._backward(delta, h, weight, [True, False, False])[0]

    def add_outer(self, delta: Tensor, h: Tensor, *, tangent: bool = False) -> None:
        self.direction.add(self.weight_name, self._backward(delta, h, self.weight, [False, True, False])[1])

    def add_bias(self, delta: Tensor) -> None:
        if self.bias_name is not None:
            self.direction.add(self.bias_name, delta.flatten(start_dim=2).sum(dim=(0, 2)))

    def _backward(self, delta: Tensor, h: Tensor, weight: Tensor, mask: list[bool]) -> list[Tensor]:
        return torch.ops.aten.convolution_backward(delta, h, weight, None, *self.settings, mask)


@dataclass
class Normalisation(Layer):
    """One call of batch norm in eval mode: the diagonal map z = w (h − mean) / √(var + ε) + b in each channel."""

    mean: Tensor
    var: Tensor
    eps: float

    def push(self, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.batch_norm(h, self.mean, self.var, weight, bias, eps=self.eps)

    def push_tangent(self, h_dot: Tensor) -> Tensor:
        return self.pull(h_dot, self.weight, h_dot)

    def pull(self, delta: Tensor, weight: Tensor, h: Tensor) -> Tensor:
        scale = weight * (self.var + self.eps).rsqrt()
        return delta * scale.view(-1, *[1] * (delta.ndim - 2))

    def add_outer(self, delta: Tensor, h: Tensor, *, tangent: bool = False) -> None:
        mean = torch.zeros_like(self.mean) if tangent else self.mean
        unused = mean.new_empty(0)  # statistics of a batch, which CUDA wants as tensors all the same
        arguments = (delta, h, self.weight, mean, self.var, unused, unused, False, self.eps, [False, True, False])
        self.direction.add(self.weight_name, torch.ops.aten.native_batch_norm_backward(*arguments)[1])

    def add_bias(self, delta: Tensor) -> None:
        if self.bias_name is not None:
            self.direction.add(self.bias_name, delta.sum(dim=[d for d in range(delta.ndim) if d != 1]))


class Push(Function):
    """z = W h + b as a function of h and t; see the table above for what is called when."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, t: Tensor, layer: Layer) -> Tensor:
        ctx.save_for_backward(h)
        ctx.layer = layer
        return layer.push(h, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (h,), layer = ctx.saved_tensors, ctx.layer
        wanted = ctx.needs_input_grad[0]
        if torch.is_grad_enabled():  # recording: delta is δ
            return *Pull.apply(delta, h if layer.curved else h.detach(), layer, wanted), None
        layer.add_outer(delta, h)  # a product: delta is δ̇
        layer.add_bias(delta)
        return layer.pull(delta, layer.weight, h) if wanted else None, None, None


class Pull(Function):
    """W^T δ and <δ, ∂z/∂t> as functions of δ and h; the second's value is never needed, and not computed.

    If the layer is not `curved`, only derivatives by δ will be asked for. They do not depend on δ, as all is linear in
    it: then the value of W^T δ is not needed either.
    """

    @staticmethod
    def forward(ctx: Any, delta: Tensor, h: Tensor, layer: Layer, wanted: bool) -> tuple[Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.layer = layer
        ctx.save_for_backward(*([h, delta] if layer.curved else [h]))
        unknown = delta.new_zeros(())
        if not wanted:
            return None, unknown
        return layer.pull(delta, layer.weight, h) if layer.curved else unknown.expand_as(h), unknown.clone()

    @staticmethod
    def backward(ctx: Any, h_dot: Tensor | None, t: Tensor | None) -> tuple[Tensor | None, ...]:
        """h_dot [like h] is the tangent ḣ of h along v; None where no weight comes before."""
        layer: Layer = ctx.layer
        h, *recorded = ctx.saved_tensors
        v = layer.direction.v[layer.weight_name]
        v_bias = layer.direction.v[layer.bias_name] if layer.bias_name else None
        by_delta, by_h = None, None
        if ctx.needs_input_grad[0]:
            by_delta = layer.push(h, v, v_bias)
            if h_dot is not None:
                by_delta += layer.push_tangent(h_dot)
        if recorded:
            (delta,) = recorded
            if h_dot is not None:
                layer.add_outer(delta, h_dot, tangent=True)
            if ctx.needs_input_grad[1]:
                by_h = layer.pull(delta, v, h)
        return by_delta, by_h, None, None


class Intercept(Rules):
    """While active, layers of the three kinds whose weight is one of `weights` are recorded as above.

    A rule returns None where torch's own operation must do.
    """

    def __init__(self, direction: Direction, weights: Mapping[str, Tensor], *, curved: bool):
        convolutions = dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), self.conv)
        super().__init__({F.linear: self.linear, F.batch_norm: self.batch_norm, **convolutions})
        self.direction, self.curved = direction, curved
        self.names = {id(weight): name for name, weight in weights.items()}

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        if input.ndim == 1 or not self._mine(weight, bias):
            return None
        return Push.apply(input, self.direction.t, Layer(**self._call(weight, bias)))

    def conv(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        if isinstance(padding, str) or input.ndim != weight.ndim or not self._mine(weight, bias):
            return None
        n = weight.ndim - 2
        stride, padding, dilation = ([k] * n if isinstance(k, int) else list(k) for k in (stride, padding, dilation))
        settings = (stride, padding, dilation, False, [0] * n, groups)
        return Push.apply(input, self.direction.t, Convolution(**self._call(weight, bias), settings=settings))

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        if training or running_mean is None or running_var is None or weight is None or not self._mine(weight, bias):
            return None
        layer = Normalisation(**self._call(weight, bias), mean=running_mean, var=running_var, eps=eps)
        return Push.apply(input, self.direction.t, layer)

    def _mine(self, weight: Tensor, bias: Tensor | None) -> bool:
        """False where torch's own operation must do: weights that are computed from others, or not part of θ."""
        return id(weight) in self.names and (bias is None or id(bias) in self.names or not bias.requires_grad)

    def _call(self, weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
        return {
            "direction": self.direction,
            "curved": self.curved,
            "weight_name": self.names[id(weight)],
            "weight": weight.detach(),
            "bias_name": self.names.get(id(bias)),
            "bias": None if bias is None else bias.detach(),
        }
