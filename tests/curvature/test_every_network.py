"""Small networks of every kind: products right to 1e-8 by the fast or the plain path, or a sentence; nothing third."""

import pytest
import torch
import zoo
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils import parametrizations, parametrize
from zoo import SHAPES, C, Net, conv, head, lin, mlp, weights

from repro.curvature.derivatives import DoubleBackward, Intercepted
from repro.curvature.diagonal import gauss_newton_diagonal
from repro.curvature.exact import exact_spectrum
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.gradients import cross_class_sums
from repro.curvature.hessian import Hessian, HessianResidual

# Products by the fast path, by inputs.
VECTORS = {
    "logistic regression": lambda: nn.Sequential(nn.Linear(6, C)),
    "tanh": lambda: mlp(nn.Tanh(), lin(5, 5, bias=False), nn.Tanh()),
    "relu, batch norm": lambda: mlp(nn.BatchNorm1d(5), nn.ReLU(inplace=True)),
    "batch norm without weights": lambda: mlp(nn.BatchNorm1d(5, affine=False), nn.Tanh()),
    "layer norm": lambda: mlp(nn.LayerNorm(5), nn.GELU()),
    "RMS norm": lambda: mlp(nn.RMSNorm(5), nn.SiLU()),
    "smooth activations": lambda: mlp(nn.ELU(), nn.CELU(0.7), nn.SELU(), nn.Softplus(), nn.Mish(), nn.LogSigmoid()),
    "kinked activations": lambda: mlp(nn.LeakyReLU(), nn.Hardtanh(), nn.ReLU6(), nn.Hardshrink(0.1), nn.Softsign()),
    "hard sigmoid and swish": lambda: mlp(nn.Hardsigmoid(), nn.Hardswish()),
    "PReLU": lambda: mlp(nn.PReLU(5), nn.PReLU()),
    "noise in train mode alone": lambda: mlp(nn.RReLU(), nn.Dropout(0.5), nn.AlphaDropout(0.2)),
    "GLU": lambda: nn.Sequential(lin(6, 10), nn.GLU(), head()),
    "maxout": lambda: zoo.pointwise(lambda h: torch.cat([h, -2 * h], 1).view(len(h), 5, 2).amax(2)),
    "sorting": lambda: zoo.pointwise(lambda h: h.sort(dim=1).values * h.topk(5).values.tanh()),
    "Fourier transform": lambda: zoo.pointwise(lambda h: torch.fft.irfft(torch.fft.rfft(h).abs() ** 2, n=5)),
    "log-sum-exp, cumulative sums": lambda: zoo.pointwise(lambda h: h.cumsum(1) * h.logsumexp(1, keepdim=True)),
    "cumulative products, norms": lambda: zoo.pointwise(lambda h: h.cumprod(1) + h.norm(dim=1, keepdim=True)),
    "linear solve, determinant": lambda: zoo.matrices(
        lambda A: torch.linalg.solve(A, A.mT * 2 + 1) * A.logdet()[:, None, None]
    ),
    "Cholesky, matrix exponential": lambda: zoo.matrices(lambda A: torch.linalg.cholesky(A) + torch.matrix_exp(-A)),
    "bilinear": lambda: Net(lambda n, x: n.head(n.b(n.a(x).tanh(), x)), a=lin(), b=nn.Bilinear(5, 6, 5), head=head()),
    "temperature": lambda: Net(lambda n, x: n.m(x) / n.t.exp(), m=mlp(nn.Tanh()), t=weights()),
    "parameter list": lambda: Net(
        lambda n, x: (x @ n.w[0]).tanh() @ n.w[1], w=nn.ParameterList([weights(6, 5), weights(5, C)])
    ),
    "tied weights": lambda: Net(zoo.tied_weights, a=lin(6, 6), head=head(6)),
    "one layer twice": lambda: Net(lambda n, x: n.head(n.a(n.a(x).tanh()).tanh()), a=lin(6, 6), head=head(6)),
    "a parameter that is not used": lambda: Net(lambda n, x: n.m(x), m=mlp(nn.Tanh()), extra=weights(2)),
    "frozen": lambda: zoo.frozen(mlp(nn.Tanh())),
    "layers called by keyword": lambda: Net(lambda n, x: n.head(input=n.a(input=x).tanh()), a=lin(), head=head()),
    "examples sorted inside": zoo.SortsItsBatch,
    "in-place operations": lambda: Net(zoo.in_place, a=lin(), head=head()),
    "splines": lambda: Net(zoo.spline, W=weights(6, C, 5)),
    "hypernetwork": lambda: Net(zoo.hypernetwork, a=lin(6, 30), head=head()),
    "FiLM": lambda: Net(lambda n, x: n.head(n.a(x).tanh() * n.s(x) + n.t(x)), a=lin(), s=lin(), t=lin(), head=head()),
    "fixed point": lambda: Net(zoo.fixed_point, a=lin(), inner=lin(5, 5), head=head()),
    "soft experts": lambda: Net(zoo.soft_experts, e=nn.ModuleList([mlp(nn.Tanh()), mlp(nn.GELU())]), gate=lin(6, 2)),
    "hard-routed experts": zoo.Experts,
    "buffer that counts": zoo.Counting,
    "forward hook": zoo.hooked,
    "log-softmax": lambda: mlp(nn.Tanh()).append(nn.LogSoftmax(1)),
    "vmapped ensemble": lambda: Net(zoo.ensemble, W=weights(2, 5, 6), b=weights(2, 1, 5), head=head()),
    "weight norm": lambda: parametrized(parametrizations.weight_norm),
    "spectral norm": lambda: parametrized(parametrizations.spectral_norm),
    "orthogonal weights": lambda: parametrized(parametrizations.orthogonal, parametrizations.weight_norm),
    "symmetric and positive weights": lambda: parametrized(zoo.Symmetric(), zoo.Positive()),
    "weight norm, the old one": zoo.old_weight_norm,
    "custom function": lambda: zoo.pointwise(zoo.Cube.apply),
    "DataParallel": lambda: nn.DataParallel(mlp(nn.Tanh())),
    "compiled": lambda: torch.compile(mlp(nn.Tanh()), backend="aot_eager"),
    "compiled inside": zoo.compiled_inside,
}
IMAGES = {
    "convolution, batch norm, pooling": lambda: conv(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), side=3),
    "group norm": lambda: conv(nn.GroupNorm(2, 4), nn.GELU()),
    "instance norm": lambda: conv(nn.InstanceNorm2d(4, affine=True), nn.GELU()),
    "instance norm with statistics": lambda: conv(
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.Tanh()
    ),
    "local response norm": lambda: conv(nn.LocalResponseNorm(2), nn.Tanh()),
    "stride, groups": lambda: conv(nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4), nn.Tanh(), side=3),
    "dilation": lambda: conv(nn.Conv2d(4, 4, 2, dilation=2), nn.Tanh(), side=4),
    "padding by name": lambda: conv(nn.Conv2d(4, 4, 3, padding="same"), nn.Tanh()),
    "circular padding": lambda: conv(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.Tanh()),
    "transposed convolution": lambda: conv(nn.Tanh(), nn.ConvTranspose2d(4, 4, 3, padding=1), nn.Tanh()),
    "channels last": lambda: conv(nn.Tanh()).to(memory_format=torch.channels_last),
    "average pooling": lambda: conv(nn.AvgPool2d(2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), side=1),
    "power pooling, shuffle": lambda: conv(nn.Softplus(), nn.LPPool2d(2, 2), nn.PixelShuffle(2), channels=1),
    "upsampling": lambda: conv(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Tanh(), nn.AvgPool2d(2)),
    "grid sampling": zoo.grid_sampled,
    "squeeze and excitation": lambda: conv(nn.Tanh(), zoo.Excitation()),
}
OTHERS = {
    "one dimension": ("signal", lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), head(15))),
    "three dimensions": (
        "volume",
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2), nn.Flatten(), head(54)),
    ),
    "graph convolution": ("sequence", lambda: Net(zoo.graph_convolution, a=lin(), head=head())),
    "LSTM": ("sequence", lambda: zoo.Recurrent(nn.LSTM)),
    "LSTM, both ways, projected": (
        "sequence",
        lambda: zoo.Recurrent(nn.LSTM, num_layers=2, bidirectional=True, proj_size=2),
    ),
    "GRU": ("sequence", lambda: zoo.Recurrent(nn.GRU, num_layers=2)),
    "Elman network": ("sequence", lambda: zoo.Recurrent(nn.RNN)),
    "LSTM cell in a loop": ("sequence", lambda: Net(zoo.recurrence, cell=nn.LSTMCell(6, 4), head=head(4))),
    "attention": ("sequence", lambda: Net(zoo.attention, qkv=lin(6, 18), head=head(6))),
    "multi-head attention": (
        "sequence",
        lambda: Net(zoo.multi_head, m=nn.MultiheadAttention(6, 2, batch_first=True), head=head(6)),
    ),
    "transformer": ("tokens", lambda: zoo.Transformer(tied=False)),
    "transformer, tied, causal": (
        "tokens",
        lambda: zoo.Transformer(tied=True, causal=True, norm_first=True, activation="gelu"),
    ),
    "transformer with padding": ("tokens", zoo.Padded),
    "embedding with padding": ("tokens", lambda: zoo.token_mean(nn.Embedding(7, 5, padding_idx=0))),
    "embedding, sparse gradients": ("tokens", lambda: zoo.token_mean(nn.Embedding(7, 5, sparse=True))),
    "embedding, gradients by frequency": (
        "tokens",
        lambda: zoo.token_mean(nn.Embedding(7, 5, scale_grad_by_freq=True)),
    ),
}
FAST = (
    {name: ("vector", build) for name, build in VECTORS.items()}
    | {name: ("image", b) for name, b in IMAGES.items()}
    | OTHERS
)

PLAIN = {
    "weight in a list": lambda: zoo.Unreached("list"),
    "weight in a dict": lambda: zoo.Unreached("dict"),
    "weight in a closure": lambda: zoo.Unreached("closure"),
    "checkpoint": zoo.Checkpointed,
    "checkpoint, width of the batch": lambda: zoo.Checkpointed(9),
    "checkpointed sequence": lambda: Net(zoo.checkpointed_sequence, m=mlp(nn.Tanh(), lin(5, 5), nn.Tanh())),
    "gradient by the inputs": zoo.Energy,
    "gradient by a weight": zoo.WeightGradient,
    "torch.func.grad": lambda: Net(zoo.functional_gradient, a=lin(), head=head(6)),
    "scripted": zoo.scripted,
    "traced": zoo.traced,
}

ONCE = "torch has no second derivative|differentiate the network as often as needed"
OTHER = "derivatives .* are not those of its logits"
REFUSED = {
    "bag of embeddings": ("tokens", lambda: zoo.token_bag(), ONCE),
    "embedding of bounded norm": (
        "tokens",
        lambda: zoo.token_mean(nn.Embedding(7, 5, max_norm=1.0)),
        "max_norm changes its weights",
    ),
    "distances": ("vector", zoo.radial_basis, ONCE),
    "reentrant checkpoint": ("vector", lambda: zoo.Checkpointed(reentrant=True), "use_reentrant=False"),
    "once differentiable": ("vector", lambda: zoo.pointwise(zoo.CubeOnce.apply), "autograd function CubeOnce"),
    "backward that is not seen": (
        "vector",
        lambda: zoo.pointwise(zoo.CubeDetached.apply),
        "autograd function CubeDetached",
    ),
    "reversed gradient": ("vector", lambda: zoo.pointwise(zoo.Reversed.apply), "autograd function Reversed"),
    "straight-through": ("vector", lambda: zoo.pointwise(zoo.straight_through), OTHER),
    "detached part": ("vector", lambda: Net(lambda n, x: n.head(n.a(x).tanh().detach()), a=lin(), head=head()), OTHER),
    "gradient inside without a graph": ("vector", lambda: zoo.Energy(create_graph=False), OTHER),
    "random numbers": ("vector", lambda: zoo.pointwise(lambda h: h + 0.1 * torch.randn_like(h)), OTHER),
    "bfloat16 inside": (
        "vector",
        lambda: Net(zoo.half_precision, a=lin(), head=head()),
        "computes in torch.bfloat16 inside",
    ),
    "a root at zero": ("vector", lambda: zoo.pointwise(lambda h: (h * 0).sqrt() + h), "not finite"),
}


def parametrized(first, second=None):
    """tanh network whose layers' weights are parametrised, the second by `second` if given."""
    model = nn.Sequential(lin(6, 6), nn.Tanh(), lin(6, 5, bias=False), nn.Tanh(), head())
    for layer, how in ((model[0], first), (model[2], second or first)):
        if isinstance(how, nn.Module):
            parametrize.register_parametrization(layer, "weight", how)
        else:
            how(layer)
    return model


def built(build, inputs, examples=9):
    """The network in float64, in eval mode, with statistics of its own; inputs and labels."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_var is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        shape = (examples, *SHAPES[inputs])
        x = torch.randint(7, shape) if inputs == "tokens" else torch.randn(shape, dtype=torch.float64)
    return model.double().eval(), x, torch.arange(examples) % C


WEIGHTS = {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}  # central differences of order six


def derivative(function, model, V, step=3e-6):
    """d/dt of function() [...] at θ + t V of the model's own parameters, which are moved in place."""
    own = [p.data.clone() for p in model.parameters()]
    total = 0
    for k, weight in WEIGHTS.items():
        for sign in (1, -1):
            for p, value, v in zip(model.parameters(), own, V):
                p.data.copy_(value + sign * k * step * v)
            total = total + sign * weight * function() / step
    for p, value in zip(model.parameters(), own):
        p.data.copy_(value)
    return total


def expected(model, x, y, V):
    """Hess v, G v, J v and p by finite differences of gradients and logits, without any second derivative of torch."""
    own = list(model.parameters())
    for p in own:
        p.requires_grad_()

    def gradient():
        found = torch.autograd.grad(cross_entropy(model(x), y), own, materialize_grads=True)
        return torch.cat([g.flatten() for g in found])

    Hv = derivative(gradient, model, V)
    Jv = derivative(lambda: model(x).detach(), model, V)
    logits = model(x)
    p = logits.detach().softmax(dim=1)
    cotangent = p * (Jv - (p * Jv).sum(dim=1, keepdim=True)) / len(x)
    Gv = torch.autograd.grad(logits, own, cotangent, materialize_grads=True)
    return Hv, torch.cat([g.flatten() for g in Gv]), Jv, p


def direction(model):
    generator = torch.Generator().manual_seed(1)
    V = [torch.randn(p.shape, dtype=p.dtype, generator=generator) / 3 for p in model.parameters()]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            V[[n for n, _ in model.named_parameters()].index(f"{name}.weight")][module.padding_idx] = 0  # no parameter
    return V


RIGHT = {name: (*entry, Intercepted) for name, entry in FAST.items()}
RIGHT |= {name: ("vector", build, DoubleBackward) for name, build in PLAIN.items()}
TWINS = {  # the same functions, where torch's first derivative is something else
    "embedding, sparse gradients": lambda: zoo.token_mean(nn.Embedding(7, 5)),
    "embedding, gradients by frequency": lambda: zoo.token_mean(nn.Embedding(7, 5)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_products_are_right(name):
    inputs, build, path = RIGHT[name]
    model, x, y = built(build, inputs)
    reference, _, _ = built(TWINS.get(name, build), inputs)
    V = direction(model)
    v = torch.cat([piece.flatten() for piece in V])
    state = {key: t.clone() for key, t in model.state_dict().items()}
    data = [(x[:5], y[:5]), (x[5:], y[5:])]
    H, G, E = (make(model, data) for make in (Hessian, GaussNewton, HessianResidual))
    Hv, Gv, Ev = H @ v, G @ v, E @ v
    assert [type(A._derivatives) for A in (H, G, E)] == [path] * 3
    Hv_expected, Gv_expected, Jv, p = expected(reference, x, y, V)
    close = {"rtol": 0, "atol": 1e-8 * float(Hv_expected.norm())}
    torch.testing.assert_close(Hv, Hv_expected, **close)
    torch.testing.assert_close(Gv, Gv_expected, **close)
    torch.testing.assert_close(Ev, Hv_expected - Gv_expected, **close)
    sums = cross_class_sums(model, data).sums @ v  # [C, C]
    of_label = (p[:, :, None] * (p[:, None] - torch.eye(C, dtype=p.dtype))) @ Jv[:, :, None] / len(x)  # [N, C, 1]
    torch.testing.assert_close(sums, one_hot(y).double().T @ of_label[..., 0], rtol=0, atol=1e-8 * float(Jv.norm()))
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key]) or key == "passes"


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("operator", [Hessian, HessianResidual, GaussNewton])
def test_what_torch_differentiates_to_something_else_is_refused(name, operator):
    inputs, build, sentence = REFUSED[name]
    model, x, y = built(build, inputs)
    before = {key: t.clone() for key, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=sentence) as caught:
        operator(model, [(x, y)]).dense()
    assert "\n" not in str(caught.value)
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    assert not any(p.requires_grad is False for p in model.parameters())


ROWS = [  # of G by gradients of single examples or by the layers' features and errors: each has its own way there
    "tanh",
    "temperature",
    "hard-routed experts",
    "layers called by keyword",
    "examples sorted inside",
    "transformer with padding",
    "embedding with padding",
    "embedding, sparse gradients",
    "embedding, gradients by frequency",
    "weight in a list",
    "scripted",
]


@pytest.mark.parametrize("name", ROWS)
def test_the_rows_of_g_are_right(name):
    inputs, build, _ = RIGHT[name]
    model, x, y = built(build, inputs)
    data = [(x[:5], y[:5]), (x[5:], y[5:])]
    G = GaussNewton(model, data).dense()
    torch.testing.assert_close(gauss_newton_diagonal(model, data), G.diagonal(), rtol=1e-8, atol=1e-12)
    found = torch.from_numpy(exact_spectrum(model, data, knockouts=()).eigenvalues)
    assert torch.linalg.norm(torch.linalg.eigvalsh(G).flip(0)[: len(found)] - found) <= 1e-8 * found[0]


@pytest.mark.parametrize("name", ["straight-through", "reentrant checkpoint", "random numbers", "bfloat16 inside"])
@pytest.mark.parametrize("function", [exact_spectrum, gauss_newton_diagonal])
def test_rows_that_are_no_derivatives_are_refused(name, function):
    inputs, build, sentence = REFUSED[name]
    model, x, y = built(build, inputs)
    with pytest.raises(ValueError, match=sentence):
        function(model, [(x, y)])
