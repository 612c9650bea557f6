"""Gram matrices of means that do not fit in memory, against those of the means themselves, in float64."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from repro.curvature.cross_class import class_structure, companion_structure
from repro.curvature.layers import factored_layers
from repro.curvature.many_classes import class_gram, plan_passes

C = 4


class Residual(nn.Module):
    """Convolutions with and without bias, batch norm, a skip, positions that shrink with depth."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.strided = nn.Conv2d(5, 6, 3, stride=3, bias=False)
        self.skip = nn.Conv2d(5, 6, 1, stride=3)
        self.wide = nn.Linear(24, 9)
        self.head = nn.Linear(9, C)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x)))
        h = torch.relu(self.strided(h) + self.skip(h))
        return self.head(torch.tanh(self.wide(h.flatten(1))))


def problem(counts, model=None):
    torch.manual_seed(0)
    model = (model or Residual()).double().eval()
    y = torch.repeat_interleave(torch.arange(C), torch.tensor(counts))[torch.randperm(sum(counts))]
    x = torch.randn(len(y), 2, 6, 6, dtype=torch.float64) + y[:, None, None, None] / 2
    return model, list(zip(x.split(3), y.split(3))), torch.tensor(counts)


def assert_same(found, expected):
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)


COUNTS = [(2, 2, 2, 2), (3, 1, 0, 2)]
BUDGET = 8 * C * C * 100  # a hundred entries of the means of 700 parameters


@pytest.mark.parametrize("companion", [False, True], ids=["paper", "companion"])
@pytest.mark.parametrize("counts", COUNTS, ids=["balanced", "unbalanced"])
def test_layers_and_slices_give_the_gram_of_the_means(counts, companion):
    model, data, sizes = problem(counts)
    passes = plan_passes(model, data, sizes, memory_budget=BUDGET)
    assert len(passes.slices) > 1
    assert {"wide"} <= {name for layers in passes.layers for name in layers}
    structure = companion_structure if companion else class_structure
    found = class_gram(model, data, memory_budget=BUDGET, companion=companion)
    assert_same(found, structure(model, data).gram())


@pytest.mark.parametrize("budget", [8 * C * C * 20, 8 * C * C * 70, 8 * C * C * 300, 1 << 30])
def test_the_budget_does_not_change_the_result(budget):
    model, data, _ = problem((2, 2, 2, 2))
    assert_same(class_gram(model, data, memory_budget=budget), class_structure(model, data).gram())


def test_eigenvalues_of_fewer_parameters_than_means_in_slices():
    model, data, _ = problem((2, 2, 2, 2), nn.Sequential(nn.AvgPool2d(6), nn.Flatten(), nn.Linear(2, C)))
    found, expected = class_gram(model, data, memory_budget=8 * C * C * 5), class_structure(model, data).gram()
    torch.testing.assert_close(found.eigenvalues("cross"), expected.eigenvalues("cross"), rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(found.eigenvalues_of_sum(), expected.eigenvalues_of_sum(), rtol=1e-10, atol=1e-15)


def test_every_parameter_is_taken_once_and_within_the_budget():
    model, data, sizes = problem((2, 2, 2, 2))
    P = {name: p.numel() for name, p in model.named_parameters()}
    for entries in (1, 7, 60, 300, 600):
        passes = plan_passes(model, data, sizes, memory_budget=8 * C * C * entries)
        taken = [f"{layer}.{kind}" for group in passes.layers for layer in group for kind in ("weight", "bias")]
        assert sorted([name for name in taken if name in P] + passes.rest) == sorted(P)
        assert [a for a, _ in passes.slices[1:]] == [b for _, b in passes.slices[:-1]]
        assert (passes.slices[-1][1] if passes.slices else 0) == sum(P[name] for name in passes.rest)
        assert all(b - a <= entries for a, b in passes.slices)
        for group in passes.layers:
            held = sum(C * 2 * T * (C * outputs + D) for T, D, outputs in group.values())
            assert held <= C * C * entries


def test_means_that_fit_are_taken_in_one_pass():
    model, data, sizes = problem((2, 2, 2, 2))
    passes = plan_passes(model, data, sizes, memory_budget=1 << 20)
    assert (passes.layers, passes.slices) == ([], [(0, sum(p.numel() for p in model.parameters()))])


def test_a_part_of_the_parameters():
    model, data, sizes = problem((2, 2, 2, 2))
    chosen = ["first.weight", "wide.weight", "head.weight", "head.bias"]  # of `wide` not all: it goes by slices
    budget = 8 * C * C * 50
    passes = plan_passes(model, data, sizes, memory_budget=budget, parameters=chosen)
    assert [list(group) for group in passes.layers] == [["head"]]
    found = class_gram(model, data, memory_budget=budget, parameters=chosen)
    assert_same(found, class_structure(model, data, parameters=chosen).gram())


class Unusual(nn.Module):
    """Layers whose gradient is more than errors times features: tied, repeated, parametrised, hooked, transposed."""

    def __init__(self):
        super().__init__()
        self.tied = nn.Linear(72, 72)
        self.repeated = nn.Linear(72, 72, bias=False)
        self.normed = weight_norm(nn.Linear(72, 72))
        self.hooked = nn.Linear(72, 72)
        self.hooked.register_forward_hook(lambda module, inputs, z: 2 * z)
        self.attention = nn.MultiheadAttention(36, 2, batch_first=True)
        self.turned = nn.Linear(36, 36)  # sees [T, B, D]
        self.plain = nn.Linear(72, C)

    def forward(self, x):
        h = torch.tanh(self.tied(x.flatten(1)))
        h = torch.tanh(nn.functional.linear(h, self.tied.weight.T))
        h = torch.tanh(self.repeated(torch.tanh(self.repeated(h))))
        h = torch.tanh(self.hooked(self.normed(h))).unflatten(1, (2, 36))
        h = self.attention(h, h, h, need_weights=False)[0] + self.turned(h.transpose(0, 1)).transpose(0, 1)
        return self.plain(h.flatten(1).to(self.plain.weight.dtype))  # to read its type is no use of a weight


def test_layers_of_another_form_go_by_slices():
    model, data, sizes = problem((1, 2, 1, 2), Unusual())
    assert list(factored_layers(model, data[0][0])) == ["plain"]
    budget = 8 * C * C * 5000
    assert [list(group) for group in plan_passes(model, data, sizes, memory_budget=budget).layers] == [["plain"]]
    assert_same(class_gram(model, data, memory_budget=budget), class_structure(model, data).gram())


def test_a_head_that_shares_its_weight_with_an_embedding_has_no_such_form():
    model = nn.Sequential(nn.Embedding(4, 2), nn.Flatten(), nn.Linear(6, 2), nn.Linear(2, 4, bias=False))
    model[3].weight = model[0].weight
    assert list(factored_layers(model.eval(), torch.arange(6).view(2, 3) % 4)) == ["2"]
    assert not factored_layers(nn.Sequential(model[0], nn.Tanh(), model[3], nn.Flatten()), torch.zeros(2, 3).long())


def test_single_precision():
    model, data, _ = problem((2, 2, 2, 2))
    exact = class_structure(model, data).gram()
    single = class_gram(model.float(), [(x.float(), y) for x, y in data], memory_budget=BUDGET // 2)
    for a, b in ((single.weights, exact.weights), (single.rows, exact.rows), (single.same, exact.same)):
        assert (a - b).norm() < 1e-5 * b.norm()


def test_a_budget_below_one_entry_is_refused():
    model, data, _ = problem((2, 2, 2, 2))
    with pytest.raises(ValueError, match="does not hold one entry"):
        class_gram(model, data, memory_budget=8 * C * C - 1)


def test_no_data_is_refused():
    with pytest.raises(ValueError, match="no data"):
        class_gram(Residual().eval(), [], memory_budget=1 << 20)
