"""Architectures that a user brings: products against finite differences, refusals where layers have no form."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.efficientnet import MBConvConfig

import repro
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual

C, N = 3, 6


class SharedLayer(nn.Module):
    """One convolution executed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, C)

    def forward(self, x):
        h = torch.tanh(self.mix(torch.tanh(self.mix(torch.tanh(self.stem(x))))))
        return self.head(h.mean(dim=(2, 3)))


class TiedWeights(nn.Module):
    """The embedding's weight is used again by F.linear, transposed and as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.bias = nn.Linear(48, 5), nn.Linear(5, C), nn.Parameter(torch.zeros(5))

    def forward(self, x):
        h = torch.tanh(self.embed(nn.functional.avg_pool2d(x, 8).flatten(1)))
        back = torch.tanh(nn.functional.linear(h, self.embed.weight.T))
        return self.head(nn.functional.linear(back, self.embed.weight, self.bias))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(96, 4, batch_first=True), nn.Linear(4, C)

    def forward(self, x):
        return self.head(self.rows(x.transpose(1, 2).flatten(2))[0][:, -1])


ARCHITECTURES = {
    "shared layer": SharedLayer,
    "tied weights": TiedWeights,
    "lstm": Recurrent,
    "mobilenet": partial(models.mobilenet_v3_small, num_classes=C, width_mult=0.1),  # groups, hardswish, hardsigmoid
    "efficientnet": partial(  # groups, SiLU, stochastic depth
        models.EfficientNet, [MBConvConfig(2, 3, 2, 4, 8, 1, 0.2, 1.0)], dropout=0.2, num_classes=C
    ),
    "densenet": partial(models.DenseNet, 4, (1, 2, 1, 1), 6, num_classes=C),
    "vit": partial(models.VisionTransformer, 32, 16, 1, 2, 8, 12, num_classes=C),  # fused attention
    "swin": partial(models.SwinTransformer, [4, 4], 8, [2], [2], [4, 4], num_classes=C),
}


def built(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ARCHITECTURES[name]()
        for p in model.parameters():  # away from the zeros that some begin with
            p.data += 0.1 * torch.randn_like(p)
        x = torch.randn(N, 3, 32, 32, dtype=torch.float64)
    return model.double().eval(), x, torch.arange(N) % C


def at(model, V, step):
    """The parameters moved by `step` times V, by name."""
    return {name: p.detach() + step * v for (name, p), v in zip(model.named_parameters(), V, strict=True)}


def gradient(model, state, x, y):
    leaves = [t.requires_grad_() for t in state.values()]
    loss = nn.functional.cross_entropy(torch.func.functional_call(model, state, (x,)), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)])


def differences(model, x, y, V, step=1e-6):
    """Hess v and G v by central differences of gradients and of logits."""
    there, back = at(model, V, step), at(model, V, -step)
    Hv = (gradient(model, there, x, y) - gradient(model, back, x, y)) / (2 * step)
    with torch.no_grad():
        Jv = (torch.func.functional_call(model, there, (x,)) - torch.func.functional_call(model, back, (x,))) / 2 / step
    logits = model(x)
    p = logits.detach().softmax(dim=1)
    cotangent = p * (Jv - (p * Jv).sum(dim=1, keepdim=True)) / len(x)
    Gv = torch.cat([g.flatten() for g in torch.autograd.grad(logits, list(model.parameters()), cotangent)])
    return Hv, Gv


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_products_and_the_four_terms(name):
    model, x, y = built(name)
    V = [torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(1)) for p in model.parameters()]
    v = torch.cat([piece.flatten() for piece in V])[:, None]
    data = repro.Network(model, (x, y), batch_size=4).batches()
    G = GaussNewton(model, data)
    Hv, Gv, Ev = (A @ v for A in (Hessian(model, data), G, HessianResidual(model, data)))
    structure = repro.class_structure(model, (x, y))
    parts = structure.class_part + structure.cross_part + structure.same_part + structure.within_part(G)
    expected_H, expected_G = differences(model, x, y, V)
    assert expected_H.norm() > 1e-3
    close = {"rtol": 0, "atol": 1e-6 * float(expected_H.norm())}
    torch.testing.assert_close(Hv[:, 0], expected_H, **close)
    torch.testing.assert_close(Gv[:, 0], expected_G, **close)
    torch.testing.assert_close(Ev, Hv - Gv, rtol=0, atol=1e-12 * float(Hv.norm()))
    torch.testing.assert_close(parts @ v, Gv, rtol=0, atol=1e-12 * float(Gv.norm()))


@pytest.mark.parametrize(
    ("name", "measurement", "sentence"),
    [
        ("shared layer", "kronecker_factors", "layer 'mix' is executed twice"),
        ("tied weights", "kronecker_factors", "weight of layer 'embed' is used elsewhere too"),
        ("tied weights", "weights", "weight of layer 'embed' is used elsewhere too"),
        ("mobilenet", "layer_features", "convolution .* is grouped"),
        ("vit", "layer_errors", "'encoder.layers.encoder_layer_0.self_attention.out_proj' is not executed"),
    ],
)
def test_layers_without_a_gradient_of_the_usual_form_are_refused(name, measurement, sentence):
    model, x, y = built(name)
    with pytest.raises(ValueError, match=sentence) as caught:
        repro.measure(measurement, repro.Network(model, (x, y), weight_decay=1e-3))
    assert "\n" not in str(caught.value)


def test_features_of_tied_weights_are_those_of_the_layers():
    model, x, y = built("tied weights")
    found = repro.measure("layer_features", repro.Network(model, (x, y)))
    assert list(found.arrays["layers"]) == ["embed", "head", "logits"]


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(7, 4), nn.Linear(4, C)

    def forward(self, x):
        return self.head(torch.tanh(self.bag(x)))


@pytest.mark.parametrize("operator", [Hessian, GaussNewton])
def test_operations_without_second_derivative_are_named(operator):
    data = [(torch.arange(12).reshape(6, 2) % 7, torch.arange(6) % C)]
    A = operator(Bag().eval(), data)
    with pytest.raises(ValueError, match=r"no second derivative .*embedding_bag_backward.*: write it with") as caught:
        A @ torch.ones(A.dim, 1)
    assert "\n" not in str(caught.value)


def test_other_errors_of_the_network_are_its_own():
    A = Hessian(SharedLayer().eval(), [(torch.randn(6, 3, 8, 8), torch.arange(6) % C)])
    A.model.mix.forward = lambda h: h @ torch.ones(1000, 2)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        A @ torch.ones(A.dim, 1)
