"""Streamed cross-class sums against gradients taken one example and one label at a time."""

import pytest
import torch
from oracles import tiny
from torch import nn
from torch.nn.functional import cross_entropy

from repro.curvature.gradients import by_class, cross_class_sums

N, D, C = 13, 5, 3


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, C)).double().eval()
    return model, torch.randn(N, D, dtype=torch.float64), torch.randint(C, (N,))


def one_by_one(model, x, y, power):
    """The sums by definition: for each example and label, the gradient of its cross-entropy times p^power."""
    sums = torch.zeros(C, C, sum(p.numel() for p in model.parameters()), dtype=x.dtype)
    for xi, yi in zip(x, y):
        p = model(xi[None]).softmax(1)[0].detach()
        for k in range(C):
            gradient = torch.autograd.grad(cross_entropy(model(xi[None]), torch.tensor([k])), list(model.parameters()))
            sums[yi, k] += p[k] ** power * torch.cat([g.flatten() for g in gradient]) / len(x)
    return sums


@pytest.mark.parametrize("power", [1, 0.5])
@pytest.mark.parametrize("batch_size", [1, 5, N])
def test_sums_match_the_definition(problem, power, batch_size):
    model, x, y = problem
    found = cross_class_sums(model, list(zip(x.split(batch_size), y.split(batch_size))), power=power)
    torch.testing.assert_close(found.sums, one_by_one(model, x, y, power), rtol=1e-10, atol=1e-14)
    p = model(x).softmax(1).detach()
    torch.testing.assert_close(found.mass, torch.stack([p[y == c].sum(0) for c in range(C)]) / N)
    assert found.counts.dtype == torch.int64
    assert found.counts.tolist() == torch.bincount(y, minlength=C).tolist()


def test_entries_are_a_part_of_the_whole(problem):
    model, x, y = problem
    whole = cross_class_sums(model, [(x, y)]).sums
    part = cross_class_sums(model, [(x, y)], entries=(18, 27)).sums  # ends inside two parameters
    torch.testing.assert_close(part, whole[:, :, 18:27])


def test_parameters_are_chosen_by_name(problem):
    model, x, y = problem
    whole = cross_class_sums(model, [(x, y)]).sums
    part = cross_class_sums(model, [(x, y)], parameters=["2.weight", "2.bias"]).sums
    torch.testing.assert_close(part, whole[:, :, -part.shape[2] :])
    with pytest.raises(ValueError, match="no parameters"):
        cross_class_sums(model, [(x, y)], parameters=["3.weight"])


def test_the_model_is_left_as_it_was(problem):
    model, x, y = problem
    model.requires_grad_(False)
    cross_class_sums(model, [(x, y)])
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_batches_of_one_class_hold_every_example_once(problem):
    _, x, y = problem
    pure = list(by_class(list(zip(x.split(4), y.split(4)))))
    for c in range(C):
        ours = torch.cat([batch for label, batch in pure if label == c])
        assert sorted(ours[:, 0].tolist()) == sorted(x[y == c, 0].tolist())
    assert all(len(batch) < 8 for _, batch in pure)
    assert sum(len(batch) < 4 for _, batch in pure) <= C  # what is left of each class at the end


def test_a_parameter_that_is_not_used_has_gradient_zero():
    model, x, y = tiny("tied")
    sums = cross_class_sums(model, [(x, y)]).sums
    unused = slice(6, 8)  # after the six entries of `scale`
    assert not sums[:, :, unused].any()
    assert sums[:, :, :6].any()


def test_bad_data_is_refused(problem):
    model, x, _ = problem
    with pytest.raises(ValueError, match="no data"):
        cross_class_sums(model, [])
    with pytest.raises(ValueError, match="labels run from 3"):
        cross_class_sums(model, [(x, torch.full((N,), 3))])
    with pytest.raises(ValueError, match="draws random numbers in train mode"):
        cross_class_sums(nn.Sequential(nn.Dropout(), model).train(), [(x, torch.zeros(N, dtype=torch.int64))])
