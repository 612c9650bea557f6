"""Inner products of the rows of G: every way to add them up against the rows themselves, and what a plan holds."""

import pytest
import torch
from oracles import dense_jacobian, tiny
from torch import nn

from repro.curvature.risk import Parameters
from repro.curvature.row_gram import row_gram
from repro.curvature.row_plan import make_plan, plain_layers
from repro.curvature.softmax_root import softmax_root

C, N = 3, 7


def problem(name):
    model, x, y = tiny(name, examples=N)
    root = softmax_root(model(x).detach())
    return model, [(x[:4], y[:4]), (x[4:], y[4:])], root


def expected_gram(model, data, root, names=None):
    J = dense_jacobian(model, torch.cat([x for x, _ in data]), names=names).detach()
    rows = torch.einsum("nkc,ncp->nkp", root.cotangents(), J) * root.scale[:, :, None] / N**0.5
    return rows.flatten(0, 1) @ rows.flatten(0, 1).T


def plan_of(model, data, budget=1 << 20, parameters=None):
    return make_plan(model, data[0][0], Parameters(model, parameters), examples=N, classes=C, budget=budget)


WAYS = {
    "factored": {"factored": True, "as_rows": False},
    "rows from factors": {"factored": False, "as_rows": False},
    "rows": {"factored": False, "as_rows": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["tanh", "conv_bn", "residual", "tokens"])
def test_every_way_gives_the_same_inner_products(name, way):
    model, data, root = problem(name)
    plan = plan_of(model, data)
    assert plan.layers
    plan = plan._replace(layers=[[layer._replace(**WAYS[way]) for layer in layers] for layers in plan.layers])
    K = row_gram(model, data, root, plan)
    torch.testing.assert_close(K, expected_gram(model, data, root), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("step", [1 << 6, 1 << 9, 1 << 12])
def test_steps_of_any_size(step, monkeypatch):
    monkeypatch.setattr("repro.curvature.row_gram.CACHE", step)
    model, data, root = problem("conv_bn")
    for way in WAYS.values():
        plan = plan_of(model, data)._replace(temporary=step)
        plan = plan._replace(layers=[[layer._replace(**way) for layer in layers] for layers in plan.layers])
        torch.testing.assert_close(row_gram(model, data, root, plan), expected_gram(model, data, root))


@pytest.mark.parametrize("name", ["conv_bn", "tanh", "attention", "mlp_bn", "tied"])
def test_a_plan_takes_each_parameter_once_and_stays_within_its_budget(name):
    model, data, root = problem(name)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    for budget in (5000, 10000, 1 << 20):
        plan = plan_of(model, data, budget)
        assert plan.held <= budget
        layers = [layer for group in plan.layers for layer in group]
        outputs: dict[str, int] = {}
        for layer in layers:
            outputs[layer.name] = outputs.get(layer.name, 0) + layer.outputs.stop - layer.outputs.start
        assert all(outputs[layer.name] == layer.whole[1] for layer in layers)
        taken = {name for layer in layers for name in layer.parameters}
        rest = sum(entries.chosen.stop - entries.chosen.start for entries in plan.rest)
        assert rest == sum(size for name, size in sizes.items() if name not in taken)
        torch.testing.assert_close(row_gram(model, data, root, plan), expected_gram(model, data, root))


def test_a_budget_for_less_than_one_parameter_is_refused():
    model, data, _ = problem("mlp_bn")
    with pytest.raises(ValueError, match=r"memory_budget does not hold one .* of all examples"):
        plan_of(model, data, budget=100)


def test_each_layer_goes_the_cheaper_way():
    """Many positions and few inputs: rows; few positions: errors and features; between them rows made in slices."""
    model = nn.Sequential(
        *[nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 32, 3, stride=2), nn.ReLU()],
        *[nn.AdaptiveAvgPool2d(2), nn.Conv2d(32, 64, 2), nn.Flatten(), nn.Linear(64, 40), nn.Linear(40, C)],
    )
    layers = plain_layers(model.eval(), torch.zeros(1, 1, 16, 16), Parameters(model), C - 1)
    found = {layer.name: (layer.factored, layer.as_rows) for layer in layers}
    assert found["0"] == (False, True)
    assert found["5"] == found["7"] == found["8"] == (True, False)
    assert not found["2"][0]


def test_layers_whose_gradient_is_no_outer_product_go_by_rows_of_their_own():
    model, data, _ = problem("attention")
    plan = plan_of(model, data)
    assert [layer.name for layers in plan.layers for layer in layers] == ["0.head"]
    assert {name for entries in plan.rest for name in entries.parameters} == {
        "0.attention.in_proj_weight",
        "0.attention.in_proj_bias",
        "0.attention.out_proj.weight",
        "0.attention.out_proj.bias",
    }


@pytest.mark.parametrize("chosen", [["4.bias"], ["4.weight", "0.bias"], ["0.weight", "0.bias", "1.bias"]])
def test_parts_of_a_layer(chosen):
    model, data, root = problem("conv_bn")
    model[4] = nn.Conv2d(3, 2, 3, padding=1).double()
    root = softmax_root(model(torch.cat([x for x, _ in data])).detach())
    plan = plan_of(model, data, parameters=chosen)
    expected = expected_gram(model, data, root, chosen)
    torch.testing.assert_close(row_gram(model, data, root, plan), expected)
