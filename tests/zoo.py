"""Parts and networks of every kind that a user may bring, small enough for dense matrices."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

C = 3
SHAPES = {
    "vector": (6,),
    "image": (2, 6, 6),
    "sequence": (4, 6),
    "tokens": (5,),
    "signal": (2, 7),
    "volume": (1, 4, 4, 4),
}


class Net(nn.Module):
    """Modules and parameters by name, and a forward written as a function of (network, x)."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: Any):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def lin(a: int = 6, b: int = 5, **options: Any) -> nn.Linear:
    return nn.Linear(a, b, **options)


def head(a: int = 5) -> nn.Linear:
    return nn.Linear(a, C)


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / 2)


def mlp(*between: nn.Module, width: int = 5) -> nn.Sequential:
    return nn.Sequential(lin(6, width), *between, head(width))


def conv(*between: nn.Module, channels: int = 4, side: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *between, nn.Flatten(), head(channels * side * side))


# --- parts whose derivative torch does not have, has once, or has as something else


class Cube(Function):
    """x³, with a backward that can be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * g


class CubeOnce(Cube):
    """The same, marked as differentiable once."""

    backward = staticmethod(once_differentiable(Cube.backward))


class CubeDetached(Cube):
    """The same, with a backward that autograd does not see."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return (3 * ctx.saved_tensors[0] ** 2).detach() * g.detach()


class Reversed(Function):
    """The identity with its gradient reversed, as in domain-adversarial training."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


def straight_through(x: Tensor) -> Tensor:
    return x + ((4 * x).round() / 4 - x).detach()


# --- networks that need more than a line


class Unreached(nn.Module):
    """Weights that `functional_call` does not reach: in a list, in a closure, as a view."""

    def __init__(self, how: str):
        super().__init__()
        self.a, self.b = lin(6, 6), head(6)
        w = self.a.weight
        self.ws = {"list": [w], "dict": {"w": w}, "closure": lambda: w}[how]
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        w = {"list": lambda: self.ws[0], "dict": lambda: self.ws["w"], "closure": self.ws}[self.how]()
        return self.b(torch.tanh(F.linear(torch.tanh(self.a(x)), w)))


class Checkpointed(nn.Module):
    """The block in the middle is computed again in the backward pass."""

    def __init__(self, width: int = 5, *, reentrant: bool = False):
        super().__init__()
        self.a, self.block, self.head = lin(6, width), nn.Sequential(lin(width, width), nn.Tanh()), head(width)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.head(checkpoint(self.block, h, use_reentrant=self.reentrant))


class Experts(nn.Module):
    """One of three experts computes each example, by the sign of its inputs; the third one sees few."""

    def __init__(self) -> None:
        super().__init__()
        self.experts, self.head = nn.ModuleList(lin(6, 5) for _ in range(3)), head()

    def forward(self, x: Tensor) -> Tensor:
        route = (x[:, 0] > 0).long() + (x[:, 1] > 1).long() * (x[:, 0] > 0).long()
        h = x.new_zeros(len(x), 5)
        for i, expert in enumerate(self.experts):
            if (mine := route == i).any():
                h = h.index_put((mine,), torch.tanh(expert(x[mine])))
        return self.head(h)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any):
        super().__init__()
        self.layers = kind(6, 4, batch_first=True, **options)
        with torch.no_grad():
            width = self.layers(torch.zeros(1, 4, 6))[0].shape[-1]
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x)[0][:, -1])


class Transformer(nn.Module):
    """Token and position embeddings, an encoder, and logits by the embedding itself where it is tied."""

    def __init__(self, *, tied: bool, causal: bool = False, **options: Any):
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, 8), nn.Parameter(torch.randn(5, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = None if tied else head(8)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=self.places.dtype) if self.causal else None
        h = self.encoder(self.tokens(x) + self.places, mask=mask).mean(dim=1)
        return h @ self.tokens.weight[:C].T if self.head is None else self.head(h)


class Padded(nn.Module):
    """The mean over all places, of which torch's kernels for inference put out other values at the padded ones."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(7, 4, padding_idx=0), head(4)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.tokens(x), src_key_padding_mask=x < 2).mean(dim=1))


class SortsItsBatch(nn.Module):
    """Layers that see the examples in the order of their first entry."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = lin(), lin(5, 5), head()

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort()
        h = torch.tanh(self.b(torch.tanh(self.a(x[order]))))
        return self.head(h[order.argsort()])


class Energy(nn.Module):
    """Logits from the gradient of an energy by the inputs, taken inside forward."""

    def __init__(self, *, create_graph: bool = True):
        super().__init__()
        self.a, self.head, self.create_graph = lin(), head(6), create_graph

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = torch.tanh(self.a(x)).square().sum()
            (force,) = torch.autograd.grad(energy, x, create_graph=self.create_graph)
        return self.head(force)


class WeightGradient(nn.Module):
    """One step of gradient descent on a weight inside forward, as in meta-learning."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = lin(), head()

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            loss = torch.tanh(self.a(self.inner())).square().mean()
            (step,) = torch.autograd.grad(loss, self.a.weight, create_graph=True)
        return self.head(torch.tanh(F.linear(x, self.a.weight - 0.5 * step, self.a.bias)))

    def inner(self) -> Tensor:
        return torch.linspace(-1, 1, 12, dtype=self.a.weight.dtype).view(2, 6)


class Symmetric(nn.Module):
    def forward(self, W: Tensor) -> Tensor:
        return W.triu() + W.triu(1).T


class Excitation(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean(dim=(2, 3), keepdim=True)))))


class Positive(nn.Module):
    """Parametrisation exp(W)."""

    def forward(self, W: Tensor) -> Tensor:
        return W.exp() / 4


def tied_weights(net: Any, x: Tensor) -> Tensor:
    return net.head(torch.tanh(F.linear(torch.tanh(net.a(x)), net.a.weight.T)))


def in_place(net: Any, x: Tensor) -> Tensor:
    h = net.a(x)
    h.mul_(2).add_(1).tanh_()
    out = torch.zeros_like(h)
    out[:, ::2] = h[:, ::2] ** 2
    out[:, 1::2] = h[:, 1::2].sin()
    return net.head(out)


def recurrence(net: Any, x: Tensor) -> Tensor:
    h = c = x.new_zeros(len(x), 4)
    for t in range(x.shape[1]):
        h, c = net.cell(x[:, t], (h, c))
    return net.head(h)


def graph_convolution(net: Any, x: Tensor) -> Tensor:
    ring = torch.eye(4, dtype=x.dtype).roll(1, dims=0) + torch.eye(4, dtype=x.dtype)
    return net.head(torch.tanh(ring @ net.a(x)).mean(dim=1))


def fixed_point(net: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 5)
    for _ in range(6):
        h = torch.tanh(net.a(x) + net.inner(h))
    return net.head(h)


def hypernetwork(net: Any, x: Tensor) -> Tensor:
    return net.head(torch.tanh(torch.einsum("bi,bio->bo", x, net.a(x).view(len(x), 6, 5))))


def functional_gradient(net: Any, x: Tensor) -> Tensor:
    force = torch.func.vmap(torch.func.grad(lambda h: torch.tanh(net.a(h)).square().sum()))(x)
    return net.head(force)


def ensemble(net: Any, x: Tensor) -> Tensor:
    members = torch.func.vmap(lambda W, b: torch.tanh(F.linear(x, W, b)))(net.W, net.b)  # [M, B, 5]
    return net.head(members.mean(dim=0))


def spline(net: Any, x: Tensor) -> Tensor:
    grid = torch.linspace(-2, 2, 5, dtype=x.dtype)
    return torch.einsum("big,iog->bo", torch.exp(-((x[..., None] - grid) ** 2)), net.W)


def attention(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).chunk(3, dim=-1)
    return net.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean(dim=1))


def multi_head(net: Any, x: Tensor) -> Tensor:
    return net.head(net.m(x, x, x)[0].mean(dim=1))


def soft_experts(net: Any, x: Tensor) -> Tensor:
    return (torch.stack([expert(x) for expert in net.e], dim=2) * net.gate(x).softmax(dim=1)[:, None]).sum(dim=2)


def checkpointed_sequence(net: Any, x: Tensor) -> Tensor:
    return checkpoint_sequential(net.m, 2, x, use_reentrant=False)


def grid_sampled() -> nn.Module:
    """A spatial transformer."""

    def forward(net: Any, x: Tensor) -> Tensor:
        theta = net.a(x.flatten(1)).view(-1, 2, 3) + torch.eye(2, 3, dtype=x.dtype)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return net.head(F.grid_sample(x, grid, align_corners=False).flatten(1))

    return Net(forward, a=lin(72, 6), head=head(72))


def radial_basis() -> nn.Module:
    return Net(lambda net, x: net.head(torch.exp(-torch.cdist(x, net.c) / 3)), c=weights(5, 6), head=head())


def token_bag() -> nn.Module:
    return Net(lambda net, x: net.head(torch.tanh(net.e(x))), e=nn.EmbeddingBag(7, 5), head=head())


def half_precision(net: Any, x: Tensor) -> Tensor:
    return net.head(torch.tanh(net.a(x)).to(torch.bfloat16).to(x.dtype))


class Counting(nn.Module):
    """A buffer that counts the passes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = lin(), head()
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.head(torch.tanh(self.a(x)))


def normed_weight(net: Any, x: Tensor) -> Tensor:
    """weight_norm written out, with the parameters in the order of the parametrisation's."""
    W = net.v * (net.g / net.v.norm(dim=1, keepdim=True))
    return net.head(torch.tanh(F.linear(x, W, net.b)))


def scripted() -> nn.Module:
    return torch.jit.script(mlp(nn.Tanh()))


def traced() -> nn.Module:
    return torch.jit.trace(mlp(nn.Tanh()).double(), torch.randn(2, 6).double())


def compiled_inside() -> nn.Module:
    act = torch.compile(lambda h: torch.tanh(h) * 2, backend="aot_eager")
    return Net(lambda net, x: net.head(act(net.a(x))), a=lin(), head=head())


def frozen(model: nn.Module) -> nn.Module:
    model[0].requires_grad_(False)
    return model


def token_mean(embedding: nn.Module) -> nn.Module:
    """Logits from the mean of squashed embeddings."""
    return Net(lambda net, x: net.head(torch.tanh(net.e(x)).mean(dim=1)), e=embedding, head=head())


def pointwise(activation: Callable[[Tensor], Tensor]) -> nn.Module:
    """A layer, what is given as a function, and a head."""
    return Net(lambda net, x: net.head(activation(net.a(x))), a=lin(), head=head())


def matrices(of_matrix: Callable[[Tensor], Tensor]) -> nn.Module:
    """A 2 x 2 matrix, made positive definite, per example; what is given as a function of it [B, n], and a head."""

    def forward(net: Any, x: Tensor) -> Tensor:
        A = net.a(x).view(-1, 2, 2)
        found = of_matrix(A @ A.transpose(1, 2) + torch.eye(2, dtype=x.dtype)).flatten(1)
        return net.head(F.pad(found, (0, 4 - found.shape[1])))

    return Net(forward, a=lin(6, 4), head=head(4))


def hooked() -> nn.Module:
    model = mlp(nn.Tanh())
    model[0].register_forward_hook(lambda module, inputs, z: 2 * z + z.sin())
    return model


def old_weight_norm() -> nn.Module:
    with torch.no_grad():
        return mlp(nn.Tanh()).apply(
            lambda m: nn.utils.weight_norm(m) if isinstance(m, nn.Linear) and m.in_features == 6 else m
        )
