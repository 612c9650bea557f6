"""What is refused, and that the sentence says why."""

import pytest
import torch
from oracles import tiny
from torch import nn

from repro.curvature.function import check_fixed_function
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian


def network(*layers):
    return nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 3)).double()


X, Y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Dropout(0.5), "draws random numbers in train mode"),
        (nn.BatchNorm1d(4), "mixes the examples of a batch in train mode"),
        (nn.RReLU(), "draws random numbers"),
    ],
)
def test_refuses_train_mode_where_it_matters(layer, reason):
    model = network(layer)
    with pytest.raises(ValueError, match=rf"layer '1' .*{reason}.*fixed function of its input.*model.eval\(\)"):
        Hessian(model, [(X, Y)])
    A = Hessian(model.eval(), [(X, Y)])
    model.train()
    with pytest.raises(ValueError, match=reason):
        A @ torch.zeros(A.dim, dtype=torch.float64)


def test_train_mode_is_fine_where_it_changes_nothing():
    Hessian(network(nn.Tanh(), nn.Dropout(0.0)).train(), [(X, Y)])


def test_refuses_batch_norm_without_running_statistics():
    with pytest.raises(ValueError, match="track_running_stats"):
        Hessian(network(nn.BatchNorm1d(4, track_running_stats=False)).eval(), [(X, Y)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_weights_that_are_not_finite(bad):
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = bad
    with pytest.raises(ValueError, match=r"'0.weight' holds values that are not finite"):
        Hessian(model, [(X, Y)])


def test_refuses_logits_that_are_not_finite():
    with pytest.raises(ValueError, match="outputs that are not finite"):
        Hessian(network(), [(X * 1e308 * 10, Y)])


@pytest.mark.parametrize("tail", [nn.Unflatten(1, (3, 1)), nn.Flatten(0)])
def test_refuses_outputs_that_are_no_logits(tail):
    with pytest.raises(ValueError, match=r"logits of shape \[examples, classes\]"):
        Hessian(network().append(tail), [(X, Y)])


@pytest.mark.parametrize(
    ("y", "reason"),
    [
        (Y.double(), "class indices are needed"),
        (Y + 1, "labels must lie in 0..2"),
        (Y - 1, "labels must lie in 0..2"),
        (Y[:5], "exactly one label for each"),
        (nn.functional.one_hot(Y), "exactly one label for each"),
    ],
)
def test_refuses_unfit_labels(y, reason):
    with pytest.raises(ValueError, match=reason):
        GaussNewton(network(), [(X, y)])


@pytest.mark.parametrize("data", [[], [(X[:0], Y[:0])]])
def test_refuses_no_data(data):
    with pytest.raises(ValueError, match="at least one"):
        Hessian(network(), data)


def test_refuses_mixed_dtypes_and_devices():
    with pytest.raises(ValueError, match=r"the inputs are torch.float32"):
        Hessian(network(), [(X.float(), Y)])
    with pytest.raises(ValueError, match=r"the inputs are on meta"):
        Hessian(network(), [(X.to("meta"), Y)])
    model = network()
    model[2 - 1].float()
    with pytest.raises(ValueError, match=r"'1.weight' is torch.float32 .* move the whole model"):
        Hessian(model, [(X, Y)])


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (torch.ones(2, dtype=torch.float64), r"must be torch.float64 \[3\]"),
        (torch.ones(3), r"must be torch.float64 \[3\]"),
        (torch.tensor([1, -1, 1], dtype=torch.float64), "not negative"),
        (torch.zeros(3, dtype=torch.float64), "zero for every class"),
    ],
)
def test_refuses_unfit_class_weights(weights, reason):
    with pytest.raises(ValueError, match=reason):
        Hessian(network(), [(X, Y)], class_weights=weights)


def test_refuses_networks_of_no_parameters():
    with pytest.raises(ValueError, match="no parameters"):
        Hessian(nn.Flatten(), [(X, Y)])


def test_a_fixed_function_may_differ_by_rounding_from_pass_to_pass():
    class Drift(nn.Module):
        def __init__(self, step):
            super().__init__()
            self.step, self.passes = step, 0

        def forward(self, x):
            self.passes += 1
            return x * (1 + self.step * self.passes)

    check_fixed_function(Drift(1e-11), X)
    with pytest.raises(ValueError, match="change between two passes"):
        check_fixed_function(Drift(1e-6), X)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.uint16])
def test_accepts_integer_labels_of_any_width(dtype):
    model, x, y = tiny("tanh")
    torch.testing.assert_close(GaussNewton(model, [(x, y.to(dtype))]).dense(), GaussNewton(model, [(x, y)]).dense())


def test_class_156_is_one_in_bytes_too():
    """It is 256 − 100, to which -100 is rounded there."""
    x, y = torch.ones(3, 2), torch.tensor([1, 156, 156], dtype=torch.uint8)
    assert len(GaussNewton(nn.Linear(2, 200), [(x, y)]).labels) == 3
