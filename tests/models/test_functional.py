"""The networks under torch.func: stacked training, forward-mode derivatives, and what measurements rely on."""

import itertools

import pytest
import torch
from networks import NAMES, TINY, build
from torch import nn
from torch.func import functional_call, grad, jvp, linearize, stack_module_state, vmap


@pytest.fixture(params=NAMES)
def networks(request):
    """Three different networks of one architecture, in float64 and train mode."""
    torch.manual_seed(0)
    return [build(request.param, **TINY[request.param]).double() for _ in range(3)]


@pytest.fixture
def x():
    return torch.randn(6, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y():
    return torch.tensor([0, 1, 2, 3, 4, 4])


def test_stacked_training_step_equals_separate_ones(networks, x, y):
    def loss(params, buffers):  # the buffers must be arguments: batch norm changes them in place
        return nn.functional.cross_entropy(functional_call(networks[0], (params, buffers), (x,)), y), buffers

    params, buffers = stack_module_state(networks)
    gradients, updated = vmap(grad(loss, has_aux=True))(params, buffers)
    for k, network in enumerate(networks):
        nn.functional.cross_entropy(network(x), y).backward()
        for name, p in network.named_parameters():
            torch.testing.assert_close(gradients[name][k], p.grad)
        for name, buffer in network.named_buffers():
            torch.testing.assert_close(updated[name][k], buffer)
            assert name.endswith("mean") or buffer.ne(0).all()  # the running statistics did move


def test_stacked_logits_equal_separate_ones_in_eval_mode(networks, x):
    params, buffers = stack_module_state([network.eval() for network in networks])
    stacked = vmap(lambda q, b: functional_call(networks[0], (q, b), (x,)))(params, buffers)
    torch.testing.assert_close(stacked, torch.stack([network(x) for network in networks]))


def test_forward_and_reverse_mode_are_transposes(networks, x):
    network = networks[0].eval()
    params = {name: p.detach() for name, p in network.named_parameters()}
    tangent = {name: torch.randn_like(p) for name, p in params.items()}

    def logits(q):
        return functional_call(network, q, (x,))

    f, Jv = jvp(logits, (params,), (tangent,))
    torch.testing.assert_close(f, network(x))
    cotangent = torch.randn_like(f)
    Ju = torch.autograd.grad(network(x), list(network.parameters()), cotangent)
    torch.testing.assert_close((cotangent * Jv).sum(), sum((a * b).sum() for a, b in zip(Ju, tangent.values())))


def test_linearize_keeps_the_primal_pass(x):
    """One network stands for all: tracing takes seconds, and VGG11 has every kind of layer."""
    network = build("vgg11", **TINY["vgg11"]).double().eval()
    params = {name: p.detach() for name, p in network.named_parameters()}
    tangent = {name: torch.randn_like(p) for name, p in params.items()}

    def logits(q):
        return functional_call(network, q, (x,))

    value, push = linearize(logits, params)
    expected, derivative = jvp(logits, (params,), (tangent,))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(push(tangent), derivative)


def test_hessian_product_is_symmetric(networks, x, y):
    network = networks[0].eval()
    params = list(network.parameters())
    loss = nn.functional.cross_entropy(network(x), y)
    gradient = torch.autograd.grad(loss, params, create_graph=True)
    u, v = ([torch.randn_like(p) for p in params] for _ in range(2))

    def product(w):
        return torch.autograd.grad(gradient, params, w, retain_graph=True)

    def inner(a, b):
        return sum((s * t).sum() for s, t in zip(a, b))

    torch.testing.assert_close(inner(u, product(v)), inner(v, product(u)))
    assert inner(v, product(v)) != 0


def test_nothing_is_done_in_place(networks):
    assert not any(layer.inplace for layer in networks[0].modules() if isinstance(layer, nn.ReLU))


def test_batch_norm_is_before_each_relu_of_the_mlp_and_vgg():
    for name in ("mlp", "vgg11"):
        layers = [m for m in build(name, **TINY[name]).modules() if not list(m.children())]
        for before, relu in itertools.pairwise(layers):
            if isinstance(relu, nn.ReLU):
                assert isinstance(before, nn.BatchNorm1d | nn.BatchNorm2d)


def test_single_precision_input_gives_single_precision_logits():
    model = build("vgg11", **TINY["vgg11"]).eval()
    assert model(torch.zeros(1, 1, 32, 32)).dtype == torch.float32
