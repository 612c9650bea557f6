"""Second moments of features and errors against the formulas written out example by example."""

import pytest
import torch
from torch import nn

from repro.curvature.layers import capture
from repro.curvature.moments import error_moments, feature_moments, projected, rest, row_space, weight_moments

C, N = 3, 11
CLOSE = {"rtol": 1e-10, "atol": 1e-13}


@pytest.fixture(params=["mlp", "conv"])
def problem(request):
    torch.manual_seed(1)
    if request.param == "mlp":
        model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, C))
        x, layers = torch.randn(N, 5), ["0", "3"]
    else:
        model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(8, C))
        x, layers = torch.randn(N, 2, 4, 4), ["0", "2", "4"]
    y = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0, 2, 2, 1])  # unbalanced
    return model.double().eval(), x.double(), y, layers


def split(x, y):
    return [(x[:4], y[:4]), (x[4:], y[4:])]


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_feature_moments(problem, sharing):
    model, x, y, layers = problem
    found = feature_moments(model, split(x, y), layers, sharing=sharing)
    assert list(found) == [*layers, "logits"]
    seen = capture(model, x, layers, bias=False, errors=False)
    for name, h in {**seen.h, "logits": seen.logits[:, None]}.items():
        samples = h if sharing == "expand" else h.mean(dim=1, keepdim=True)
        T = samples.shape[1]
        H = sum(torch.outer(v, v) for example in samples for v in example) / (N * T)
        means = torch.stack(
            [torch.stack([v for v, label in zip(h.mean(1), y) if label == c]).mean(0) for c in range(C)]
        )
        torch.testing.assert_close(found[name].second, H, **CLOSE)
        torch.testing.assert_close(found[name].means, means, **CLOSE)
        torch.testing.assert_close(found[name].global_mean, h.mean(dim=(0, 1)), **CLOSE)
        within = sum(torch.outer(v - means[c], v - means[c]) for e, c in zip(samples, y) for v in e) / (N * T)
        torch.testing.assert_close(rest(found[name].second, found[name].class_rows()), within, **CLOSE)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_error_moments_add_up(problem, sharing):
    """Delta = Delta_class + Delta_cross + Delta_within + Delta_{c=c'}, each written out from its definition."""
    model, x, y, layers = problem
    found = error_moments(model, split(x, y), layers, sharing=sharing)
    seen = capture(model, x, layers, bias=False)
    w = seen.p / N
    W = torch.stack([w[y == c].sum(0) for c in range(C)])
    for name, delta in seen.delta.items():
        delta = delta if sharing == "expand" else delta.sum(dim=2, keepdim=True)
        T = delta.shape[2]
        position_mean = delta.mean(dim=2)
        mean = torch.stack(
            [(w[y == c][..., None] * position_mean[y == c]).sum(0) / W[c][:, None] for c in range(C)]
        )  # [C, C, O]
        class_mean = [sum(W[c, k] * mean[c, k] for k in range(C) if k != c) / (W[c].sum() - W[c, c]) for c in range(C)]
        pairs = [(c, k) for c in range(C) for k in range(C) if k != c]
        parts = {
            "class": sum((W[c].sum() - W[c, c]) * torch.outer(class_mean[c], class_mean[c]) for c in range(C)),
            "cross": sum(
                W[c, k] * torch.outer(mean[c, k] - class_mean[c], mean[c, k] - class_mean[c]) for c, k in pairs
            ),
            "same": sum(W[c, c] * torch.outer(mean[c, c], mean[c, c]) for c in range(C)),
        }
        total = sum(w[i, k] / T * torch.outer(v, v) for i in range(N) for k in range(C) for v in delta[i, k])
        within = sum(
            w[i, k] / T * torch.outer(v - mean[y[i], k], v - mean[y[i], k])
            for i in range(N) for k in range(C) for v in delta[i, k]
        )  # fmt: skip
        torch.testing.assert_close(found[name].second, total, **CLOSE)
        torch.testing.assert_close(found[name].weights, W, **CLOSE)
        for part, rows in found[name].parts().items():
            torch.testing.assert_close(rows.T @ rows, parts[part], **CLOSE)
        torch.testing.assert_close(total, within + sum(parts.values()), **CLOSE)


def test_weight_moments(problem):
    model, x, y, layers = problem
    found = weight_moments(model, split(x, y), layers)
    seen = capture(model, x, layers, bias=False)
    loss = torch.nn.functional.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, [model.get_parameter(f"{name}.weight") for name in layers])
    for name, gradient in zip(layers, gradients):
        moments = found[name]
        torch.testing.assert_close(moments.gradient, gradient.flatten(1), **CLOSE)
        torch.testing.assert_close(moments.shares, torch.tensor([3, 3, 5], dtype=torch.float64) / N, **CLOSE)
        for c in range(C):
            own = [seen.delta[name][i, c].sum(0) for i in range(N) if y[i] == c]
            torch.testing.assert_close(moments.errors[c], torch.stack(own).mean(0), **CLOSE)
            torch.testing.assert_close(moments.features[c], seen.h[name][y == c].mean(dim=(0, 1)), **CLOSE)


def test_facts_of_the_decomposition_hold_for_errors(problem):
    """Σ_c' p δ = 0 and w_c δ_c = − w_cc δ_cc; ranks C, C(C−2), C; at the logits C − 1."""
    model, x, y, layers = problem
    seen = capture(model, x, layers, bias=False)
    for name, moments in error_moments(model, split(x, y), layers, sharing="expand").items():
        zero = torch.einsum("bc,bcto->bto", seen.p, seen.delta[name])
        torch.testing.assert_close(zero, torch.zeros_like(zero), **CLOSE)
        w = moments.weights - moments.weights.diagonal().diag()
        of_class = w.sum(dim=1)[:, None] * moments.class_means()
        torch.testing.assert_close(of_class, -moments.sums.diagonal().T, **CLOSE)
        ranks = {part: int(torch.linalg.matrix_rank(rows, rtol=1e-10)) for part, rows in moments.parts().items()}
        assert ranks["class"] <= C
        assert ranks["cross"] <= C * (C - 2)
        assert ranks["same"] <= C
    assert int(torch.linalg.matrix_rank(moments.second, rtol=1e-10)) == C - 1


def test_projection_knockout():
    torch.manual_seed(0)
    A, rows = torch.randn(6, 6, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    A = A @ A.T
    rows = torch.cat([rows, rows.sum(0, keepdim=True)])  # rank 2
    P = torch.eye(6, dtype=torch.float64) - torch.linalg.pinv(rows) @ rows
    torch.testing.assert_close(projected(A, rows), P @ A @ P, **CLOSE)
    assert row_space(torch.zeros(2, 6)).shape == (0, 6)


def test_labels_beyond_the_logits_are_refused(problem):
    model, x, _, layers = problem
    with pytest.raises(ValueError, match="labels run from 3 to 3, the model has 3 logits"):
        feature_moments(model, [(x, torch.full((N,), 3))], layers, sharing="expand")
    with pytest.raises(ValueError, match="no data"):
        error_moments(model, [], layers, sharing="expand")
    with pytest.raises(ValueError, match="no data"):
        feature_moments(model, [], layers, sharing="expand")
    with pytest.raises(ValueError, match="no data"):
        weight_moments(model, [], layers)
