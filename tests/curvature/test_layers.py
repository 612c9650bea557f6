"""Features and errors of layers against per-example gradients; G^l against the matrix summed from them."""

import pytest
import torch
import zoo
from torch import nn
from torch.nn.functional import cross_entropy

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.layers import LayerGaussNewton, LayerStream, capture, layer_names

C = 3


class Residual(nn.Module):
    """A strided convolution, an identity shortcut, and ReLUs that work in place on what the hooks see."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(3, 3, (3, 1), padding=(1, 0), dilation=1, bias=False)
        self.bn = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.head = nn.Linear(12, C)

    def forward(self, x):
        x = self.relu(self.first(x))
        return self.head(self.pool(self.relu(self.bn(self.inner(x)) + x)).flatten(1))


def mlp():
    return nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Linear(4, 6, bias=False), nn.ReLU(inplace=True),
        nn.Linear(6, C),
    )  # fmt: skip


class Pixels(nn.Module):
    """Linear layers that act on the channels of each pixel, as after a permutation to channels last."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 4)
        self.head = nn.Linear(4, C, bias=False)

    def forward(self, x):  # [B, 2, H, W]
        return self.head(torch.tanh(self.inner(x.permute(0, 2, 3, 1))).mean(dim=(1, 2)))


NETWORKS = {"mlp": (mlp, (5,)), "conv": (Residual, (2, 6, 6)), "pixels": (Pixels, (2, 3, 4))}


@pytest.fixture(params=NETWORKS)
def problem(request):
    torch.manual_seed(0)
    build, shape = NETWORKS[request.param]
    model = build().double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    x = torch.randn(7, *shape, dtype=torch.float64)
    return model.eval(), x, torch.tensor([0, 1, 2, 0, 1, 1, 2])


def gradient_of_layer(model, layer, x, label):  # -> [O, D] of [W b], by autograd
    module = model.get_submodule(layer)
    model.zero_grad()
    cross_entropy(model(x[None]), torch.tensor([label])).backward()
    rows = [module.weight.grad.flatten(1)]
    return torch.cat(rows + ([module.bias.grad[:, None]] if module.bias is not None else []), dim=1)


def dense_layer_matrix(model, layer, x):
    """The oracle: G^l = 1/N Σ_i Σ_c' p g g^T, each g from its own backward pass."""
    p = model(x).softmax(dim=1).detach()
    total = 0
    for i in range(len(x)):
        for k in range(C):
            g = gradient_of_layer(model, layer, x[i], k).flatten()
            total = total + p[i, k] / len(x) * torch.outer(g, g)
    return total


def test_gradient_is_errors_times_features(problem):
    model, x, _ = problem
    names = layer_names(model, x)
    seen = capture(model, x, names, bias=True)
    for layer in names:
        g = torch.einsum("bcto,btd->bcod", seen.delta[layer], seen.h[layer])
        expected = [[gradient_of_layer(model, layer, x[i], k) for k in range(C)] for i in range(len(x))]
        torch.testing.assert_close(g, torch.stack([torch.stack(row) for row in expected]), rtol=1e-10, atol=1e-13)


def test_layers_come_in_the_order_of_execution(problem):
    model, x, _ = problem
    expected = {Residual: ["first", "inner", "head"], Pixels: ["inner", "head"], nn.Sequential: ["0", "3", "5"]}
    assert layer_names(model, x) == expected[type(model)]


def test_errors_of_frozen_parameters_are_the_same(problem):
    model, x, _ = problem
    names = layer_names(model, x)
    before = capture(model, x, names, bias=False).delta
    after = capture(model.requires_grad_(False), x, names, bias=False).delta
    for layer in names:
        torch.testing.assert_close(after[layer], before[layer], rtol=0, atol=0)


def test_capture_leaves_no_hook_and_changes_no_output(problem):
    model, x, _ = problem
    before = model(x)
    seen = capture(model, x, layer_names(model, x), bias=True)
    torch.testing.assert_close(seen.logits, before.detach(), rtol=0, atol=0)
    assert not any(module._forward_hooks for module in model.modules())


def test_errors_keep_their_accuracy_at_a_fit():
    """p_c − 1 cancels in float32; the errors of the true label must not."""
    model = nn.Sequential(nn.Linear(4, C, bias=False)).eval()
    model[0].weight.data = 25 * torch.eye(C, 4)
    x = torch.eye(C, 4)
    of_float = capture(model, x, ["0"], bias=False).delta["0"].double()
    exact = capture(model.double(), x.double(), ["0"], bias=False).delta["0"]
    torch.testing.assert_close(of_float, exact, rtol=1e-5, atol=0)


def test_layer_operator_matches_dense_matrix(problem):
    model, x, y = problem
    for layer in layer_names(model, x):
        data = [(x[:4], y[:4]), (x[4:], y[4:])]  # a ragged last batch
        G = LayerGaussNewton(list(LayerStream(model, data, layer)))
        torch.testing.assert_close(G.dense(), dense_layer_matrix(model, layer, x), rtol=1e-10, atol=1e-13)


def test_layer_operator_is_a_block_of_gauss_newton(problem):
    model, x, y = problem
    layer = layer_names(model, x)[1]  # the one without a bias: torch's order of parameters is ours
    G = LayerGaussNewton(list(LayerStream(model, [(x, y)], layer)))
    block = GaussNewton(model, [(x, y)], parameters=[f"{layer}.weight"])
    torch.testing.assert_close(G.dense(), block.dense(), rtol=1e-10, atol=1e-13)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(3, 3)

    def forward(self, x):
        return self.shared(self.shared(x))


class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, C)

    def forward(self, x):  # [B, 4, 3], the layer sees [4, B, 3]
        return self.layer(x.transpose(0, 1)).mean(dim=0)


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.used(x)


def test_refuses_what_has_no_such_gradient():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="'shared' is executed twice"):
        capture(Twice().eval(), x, ["shared"], bias=True)
    with pytest.raises(ValueError, match="'idle' is not executed"):
        capture(Idle().eval(), x, ["idle"], bias=True)
    with pytest.raises(ValueError, match="training mode"):
        capture(Twice(), x, ["shared"], bias=True)
    with pytest.raises(TypeError, match="is a ReLU"):
        capture(nn.Sequential(nn.ReLU()).eval(), x, ["0"], bias=True)
    with pytest.raises(ValueError, match="grouped"):
        capture(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)).eval(), torch.zeros(1, 2, 1, 1), ["0"], bias=True)
    with pytest.raises(ValueError, match="puts out 4 rows for 2 examples"):
        capture(Turned().eval(), torch.zeros(2, 4, 3), ["layer"], bias=True)


def test_a_network_that_sorts_its_batch_has_no_layers_by_class():
    model = zoo.SortsItsBatch().eval()
    with pytest.raises(ValueError, match="layer 'a' sees the examples of a batch in another order"):
        layer_names(model, torch.randn(9, 6, generator=torch.Generator().manual_seed(0)))
    assert layer_names(zoo.mlp(nn.Tanh()).eval(), torch.randn(9, 6)) == ["0", "2"]
