"""Dense matrices written out from their formulas, and the tiny networks they are tried on."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev
from torch.nn.functional import cross_entropy


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.f = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


class Tied(nn.Module):
    """One weight used twice, a parameter that is no layer's, and one that is not used at all."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.scale, self.unused = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scale * torch.tanh(self.a(torch.tanh(self.a(x)))))


class Squashed(nn.Linear):
    """tanh(W) x + b: a linear map whose weight is computed."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.tanh(), self.bias)


class Attention(nn.Module):
    """Self-attention over a sequence, then a linear map of its mean."""

    def __init__(self, width: int):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(width, 2, batch_first=True), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0].mean(dim=1))


# name -> layers of a network with three classes, shape of one input
NETWORKS = {
    "linear": (lambda: [nn.Linear(5, 3)], (5,)),
    "mlp_bn": (lambda: [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)], (4,)),
    "tanh": (lambda: [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3)], (4,)),
    "conv_bn": (
        lambda: [
            *[nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2)],
            *[nn.Conv2d(3, 2, 3, padding=1, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)],
        ],
        (2, 4, 4),
    ),
    "strided": (  # groups, dilation, stride, no batch norm
        lambda: [
            *[nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.Softplus()],
            *[nn.Conv2d(4, 3, 2, dilation=2), nn.Flatten(), nn.Linear(12, 3)],
        ],
        (2, 8, 7),
    ),
    "residual": (
        lambda: [
            nn.Conv2d(1, 2, 3, padding=1),
            Residual(nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.ReLU()),
            *[nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)],
        ],
        (1, 4, 4),
    ),
    "conv1d": (lambda: [nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3)], (2, 5)),
    "tokens": (  # a linear map of three-dimensional activations
        lambda: [nn.LayerNorm([3, 2]), nn.Linear(2, 4), nn.GELU(), nn.Flatten(), nn.Linear(12, 3)],
        (3, 2),
    ),
    "same": (  # layers that are left to torch: padding by name, a weight that is computed
        lambda: [nn.Conv2d(1, 2, 3, padding="same"), nn.Tanh(), nn.Flatten(), Squashed(18, 3)],
        (1, 3, 3),
    ),
    "attention": (lambda: [Attention(4)], (3, 4)),
    "tied": (lambda: [Tied()], (6,)),
}


def tiny(name: str, *, examples: int = 7, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of the table in eval mode with running statistics of its own, inputs, unbalanced labels."""
    torch.manual_seed(0)
    layers, shape = NETWORKS[name]
    model = nn.Sequential(*layers()).to(dtype).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    x = torch.randn(examples, *shape, dtype=dtype)
    return model, x, torch.tensor([0, 1, 2, 0, 0, 1, 0] * examples)[:examples]


def flat_parameters(model: nn.Module, names: list[str] | None = None) -> Tensor:  # -> [P]
    return torch.cat([p.detach().flatten() for name, p in model.named_parameters() if names is None or name in names])


def _function(model: nn.Module, x: Tensor, names: list[str] | None):
    """θ [P] -> logits [N, C], the parameters not named held fixed."""
    chosen = {name: p for name, p in model.named_parameters() if names is None or name in names}

    def logits(theta: Tensor) -> Tensor:
        pieces = theta.split([p.numel() for p in chosen.values()])
        free = {name: piece.view_as(p) for (name, p), piece in zip(chosen.items(), pieces)}
        return functional_call(model, free, (x,))

    return logits, flat_parameters(model, names)


def dense_hessian(model, x, y, *, names=None, weight=None) -> Tensor:  # -> [P, P]
    """∂²/∂θ² of the mean cross-entropy, by torch.func."""
    logits, theta = _function(model, x, names)
    return hessian(lambda t: cross_entropy(logits(t), y, weight=weight))(theta)


def dense_jacobian(model, x, *, names=None) -> Tensor:  # -> [N, C, P]
    logits, theta = _function(model, x, names)
    return jacrev(logits)(theta)


def dense_gauss_newton(model, x, y, *, names=None, weight=None) -> Tensor:  # -> [P, P]
    """Σ_i w_i J_i^T (diag(p_i) − p_i p_i^T) J_i, w_i = 1/N or the class weights over their sum (Eq. 6.2)."""
    J = dense_jacobian(model, x, names=names)
    p = model(x).detach().softmax(dim=1)
    U = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # [N, C, C]
    return torch.einsum("n,ncp,ncd,ndq->pq", _weights(x, y, weight), J, U, J)


def dense_residual(model, x, y, *, names=None, weight=None) -> Tensor:  # -> [P, P]
    """Σ_i w_i Σ_k (p_{i,k} − 1[k = y_i]) ∂²f_k(x_i)/∂θ²."""
    logits, theta = _function(model, x, names)
    p = model(x).detach().softmax(dim=1)
    r = p - nn.functional.one_hot(y, p.shape[1])
    return torch.einsum("n,nc,ncpq->pq", _weights(x, y, weight), r, hessian(logits)(theta))


def _weights(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:  # -> [N], sum 1
    w = x.new_ones(len(x)) if weight is None else weight[y]
    return w / w.sum()


def problem(
    counts: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A network of four classes with batch norm in eval mode, and batches in which the classes are mixed."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)).to(dtype).eval()
    y = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))[torch.randperm(sum(counts))]
    x = torch.randn(len(y), 5, dtype=dtype) + 2 * nn.functional.one_hot(y, 5)
    return model, list(zip(x.split(5), y.split(5)))
