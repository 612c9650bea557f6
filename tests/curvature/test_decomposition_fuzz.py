"""The four-term identity (Eq. 6.4) on random tiny networks and random class sizes, against its formulas written out."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import dense_jacobian
from torch import Tensor, nn

from repro.curvature.cross_class import class_structure
from repro.curvature.gauss_newton import GaussNewton

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "softplus": nn.Softplus}


@st.composite
def problems(draw):
    """Network, inputs and labels: classes of 0 to 3 examples, at least one of which has some."""
    sizes = draw(st.lists(st.integers(0, 3), min_size=2, max_size=4).filter(any))
    inputs, hidden = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    activation, bias = draw(st.sampled_from(sorted(ACTIVATIONS))), draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 10**6)))
    layers = [nn.Linear(inputs, hidden, bias=bias), nn.BatchNorm1d(hidden), ACTIVATIONS[activation]()]
    model = nn.Sequential(*layers, nn.Linear(hidden, len(sizes))).double().eval()
    with torch.no_grad():
        model[-1].weight.mul_(draw(st.sampled_from([0.1, 1.0, 10.0])))  # from even to certain predictions
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    y = y[torch.randperm(len(y))]
    return model, torch.randn(len(y), inputs, dtype=torch.float64), y


def outer(rows: Tensor, weights: Tensor) -> Tensor:  # [K, P], [K] -> [P, P]
    return rows.T @ (weights[:, None] * rows)


def dense_parts(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """G and its four parts, class by class, from every gradient g_{i,c,c'} = J_i^T (p_i − y_{c'})."""
    J, p = dense_jacobian(model, x), model(x).detach().softmax(dim=1)
    C, P = p.shape[1], J.shape[2]
    g = torch.einsum("nkp,nck->ncp", J, p[:, None, :] - torch.eye(C, dtype=p.dtype))  # [N, C, P]
    w = p / len(x)
    parts = {name: torch.zeros(P, P, dtype=p.dtype) for name in ("class", "cross", "within", "same")}
    for c in y.unique().tolist():
        others = [k for k in range(C) if k != c]
        of_class, weights = g[y == c], w[y == c]
        pair = weights.sum(dim=0)  # w_{c,c'}
        means = torch.einsum("nk,nkp->kp", weights, of_class) / pair[:, None]
        class_mean = pair[others] @ means[others] / pair[others].sum()
        parts["class"] += outer(class_mean[None], pair[others].sum()[None])
        parts["cross"] += outer(means[others] - class_mean, pair[others])
        parts["within"] += outer((of_class - means).flatten(0, 1), weights.flatten())
        parts["same"] += outer(means[[c]], pair[[c]])
    return parts | {"G": outer(g.flatten(0, 1), w.flatten())}


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 4))
def test_parts_are_their_formulas_and_add_up(problem, batch):
    model, x, y = problem
    data = list(zip(x.split(batch), y.split(batch)))
    expected = dense_parts(model, x, y)
    G, structure = GaussNewton(model, data), class_structure(model, data)
    found = {name: structure.part(name).dense() for name in ("class", "cross", "same")}
    found |= {"within": structure.within_part(G).dense(), "G": G.dense()}
    allowed = 1e-10 * max(1.0, float(expected["G"].abs().max()))
    for name, matrix in expected.items():
        assert (found[name] - matrix).abs().max() <= allowed, name
    whole = expected["class"] + expected["cross"] + expected["within"] + expected["same"]
    assert (whole - expected["G"]).abs().max() <= allowed
