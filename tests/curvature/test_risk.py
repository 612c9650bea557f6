"""The mean over examples: value, gradient, layout of the parameter vector, memory budget."""

import pytest
import torch
from oracles import NETWORKS, flat_parameters, tiny
from torch import nn
from torch.nn.functional import cross_entropy

from repro.curvature.hessian import Hessian
from repro.curvature.risk import Parameters


@pytest.mark.parametrize("network", NETWORKS)
def test_loss_and_gradient_match_torch(network):
    model, x, y = tiny(network)
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    risk = cross_entropy(model(x), y, weight=weight) + 0.1 / 2 * sum(p.square().sum() for p in model.parameters())
    gradient = torch.autograd.grad(risk, list(model.parameters()))
    data = [(x[:3], y[:3]), (x[3:], y[3:])]
    A = Hessian(model, data, class_weights=weight, weight_decay=0.1)
    assert A.loss == pytest.approx(risk.item(), rel=1e-14)
    torch.testing.assert_close(A.gradient(), torch.cat([g.flatten() for g in gradient]), rtol=0, atol=1e-14)


def test_parameters_are_a_vector_in_the_models_order():
    model, _, _ = tiny("conv_bn")
    parameters = Parameters(model)
    v = flat_parameters(model)
    assert parameters.names == [name for name, _ in model.named_parameters()]
    assert parameters.dim == len(v)
    pieces = parameters.unflatten(v)
    for name, p in model.named_parameters():
        torch.testing.assert_close(pieces[name], p.detach())
        torch.testing.assert_close(v[parameters.slices[name]], p.detach().flatten())
    torch.testing.assert_close(parameters.flatten(pieces), v)
    torch.testing.assert_close(parameters.flatten(list(pieces.values())), v)


def test_frozen_parameters_count_as_any_other():
    model, x, y = tiny("tanh")
    expected = Hessian(model, [(x, y)]).dense()
    model[0].requires_grad_(False)
    torch.testing.assert_close(Hessian(model, [(x, y)]).dense(), expected)


@pytest.mark.parametrize("selection", ["head", ["head.weight", "head.bias"]])
def test_a_shared_parameter_goes_by_any_of_its_names(selection):
    model = nn.ModuleDict({"tokens": nn.Embedding(5, 4), "head": nn.Linear(4, 5)})
    model["head"].weight = model["tokens"].weight
    assert Parameters(model, selection).names == ["tokens.weight", "head.bias"]


@pytest.mark.parametrize("selection", ["nothing", ["0.weight", "absent"], lambda name: False])
def test_refuses_a_selection_of_nothing_or_of_unknown_names(selection):
    model, _, _ = tiny("tanh")
    with pytest.raises(ValueError, match=r"parameter.*the model has|the model has no parameters"):
        Parameters(model, selection)


def test_refuses_parameters_that_the_output_does_not_depend_on_at_all():
    model, x, y = tiny("tied")
    A = Hessian(model, [(x, y)], parameters="0.unused")
    with pytest.raises(ValueError, match=r"depends on none of the parameters \['0.unused'\]"):
        A @ torch.zeros(2, dtype=torch.float64)


@pytest.mark.parametrize("v", [torch.zeros(3, dtype=torch.float64), torch.zeros(18)])
def test_refuses_vectors_of_another_size_or_dtype(v):
    model, x, y = tiny("linear")
    with pytest.raises(ValueError, match=r"cannot multiply .* \[18, 18\]"):
        Hessian(model, [(x, y)]) @ v


def test_keeps_nothing_beyond_the_budget_and_says_what_it_keeps(caplog):
    model, x, y = tiny("conv_bn")
    data = list(zip(x.split(2), y.split(2)))
    v = torch.randn(Hessian(model, data).dim, dtype=torch.float64)
    kept = []
    with caplog.at_level("INFO"):
        for budget in (0, 1, 20_000, 1 << 30):
            A = Hessian(model, data, memory_budget=budget)
            A @ v
            assert A.kept_bytes <= budget
            kept.append(A.kept_bytes)
    assert kept[0] == kept[1] == 0 < kept[2] < kept[3]
    assert "4 of 4 batches" in caplog.text
