"""The exact spectrum against dense matrices in float64: every part written out from its definition (Eq. 6.4)."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from oracles import NETWORKS, dense_jacobian, tiny
from torch import nn

from repro.curvature import eigen_parts
from repro.curvature.cross_class import class_structure
from repro.curvature.exact import dense_memory, exact_spectrum
from repro.curvature.gauss_newton import GaussNewton
from repro.linalg.eigenpairs import top_eigenpairs

CLOSE = 1e-10  # relative to the largest eigenvalue; shares, overlaps and cosines absolute
BOTH = ("subtraction", "projection")


def outer(rows, weights):  # [K, P], [K] -> [P, P]
    return rows.T @ (weights[:, None] * rows)


def dense_parts(model, x, y, names=None):
    """The four parts [P, P] of G, from every gradient g_{i,c,c'} and without a difference that cancels at a fit."""
    J, p = dense_jacobian(model, x, names=names).detach(), model(x).detach().softmax(dim=1)
    (N, C), P = p.shape, J.shape[2]
    residual, own = p[:, None].repeat(1, C, 1), torch.arange(C)
    residual[:, own, own] = 0
    residual[:, own, own] = -residual.sum(dim=2)  # p_k − 1
    g, w = torch.einsum("nck,nkp->ncp", residual, J), p / N
    parts = {name: torch.zeros(P, P, dtype=p.dtype) for name in ("class", "cross", "within", "same")}
    for c in y.unique().tolist():
        of_class, weights, others = g[y == c], w[y == c], [k for k in range(C) if k != c]
        pair = weights.sum(dim=0)
        means = torch.einsum("nk,nkp->kp", weights, of_class) / pair[:, None]
        class_mean = pair[others] @ means[others] / pair[others].sum()
        parts["class"] += outer(class_mean[None], pair[others].sum()[None])
        parts["cross"] += outer(means[others] - class_mean, pair[others])
        parts["within"] += outer((of_class - means).flatten(0, 1), weights.flatten())
        parts["same"] += outer(means[[c]], pair[[c]])
    return parts


def assert_spectrum(found, matrix, scale):
    """`found` is the upper end of the spectrum of `matrix`, and the rest of it is zero."""
    expected = torch.linalg.eigvalsh(matrix).flip(0).numpy()
    padded = np.zeros(max(len(expected), len(found)))
    padded[: len(found)] = found
    expected = np.concatenate([expected, np.zeros(len(padded) - len(expected))])
    assert np.abs(padded - expected).max() <= CLOSE * scale


def range_of(matrix):  # [P, P] -> [P, rank]
    values, vectors = torch.linalg.eigh(matrix)
    return vectors[:, values > 1e-13 * values.max().clamp(min=1e-300)]


def assert_exact(found, model, x, y, names=None, *, projections=True):
    parts = dense_parts(model, x, y, names)
    G, scale = sum(parts.values()), found.eigenvalues[0]
    assert len(found.eigenvalues) == min(len(x) * (found.arrays["mass"].shape[0] - 1), len(G))
    assert_spectrum(found.eigenvalues, G, scale)
    for name, matrix in parts.items():
        assert_spectrum(found.part(name), matrix, scale)
        assert_spectrum(found.without(name), G - matrix, scale)
    within = torch.linalg.eigvalsh(parts["within"])[-1:].clamp(min=0)
    np.testing.assert_allclose(found.arrays["within_largest"], within[0], rtol=0, atol=CLOSE * scale)
    assert_spectrum(found.without("class", "cross"), G - parts["class"] - parts["cross"], scale)
    values, U = (part.flip(-1)[..., : len(found.eigenvalues)] for part in torch.linalg.eigh(G))
    clear = separated(values)
    for name, matrix in parts.items():
        expected = ((U.T @ matrix) * U.T).sum(dim=1)[clear] / values[clear]
        np.testing.assert_allclose(found.shares[name].to_numpy()[clear], expected, rtol=0, atol=CLOSE)
    if projections:
        assert_projections(found, G, parts, U, clear)


def assert_projections(found, G, parts, U, clear):
    for names in (("class",), ("cross",), ("class", "cross")):
        B = range_of(sum(parts[name] for name in names))
        kept = torch.eye(len(G), dtype=G.dtype) - B @ B.T
        assert_spectrum(found.without(*names, how="projection"), kept @ G @ kept, found.eigenvalues[0])
        if len(names) == 1:
            overlap = (B.T @ U).square().sum(dim=0)[clear]
            np.testing.assert_allclose(found.arrays[f"overlap_{names[0]}"][clear], overlap, rtol=0, atol=CLOSE)
    C, B = len(found.arrays["mass"]), range_of(parts["class"])
    if clear[:C].all():
        cosines = torch.linalg.svdvals(U[:, :C].T @ B)
        np.testing.assert_allclose(found.arrays["class_cosines"], cosines, rtol=0, atol=1e-7)  # √ of rounding


def separated(values):  # [R] -> [R]
    """Eigenvalues whose eigenvectors the oracle itself knows to 1e-11: large, and apart from their neighbours."""
    gaps = -values.diff()
    nearest = torch.minimum(torch.cat([values[:1], gaps]), torch.cat([gaps, values[-1:]]))
    return ((nearest > 1e-4 * values[0]) & (values > 1e-4 * values[0])).numpy()


def batches(x, y, size=3):
    return list(zip(x.split(size), y.split(size)))


@pytest.mark.parametrize("examples", [7, 40], ids=["fewer rows", "fewer parameters"])
@pytest.mark.parametrize("name", NETWORKS)
def test_everything_is_that_of_the_dense_matrices(name, examples):
    model, x, y = tiny(name, examples=examples)
    assert_exact(exact_spectrum(model, batches(x, y), knockouts=BOTH), model, x, y)


def with_scaled_logits(name, scale, examples=12):
    model, x, y = tiny(name, examples=examples)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(scale)
    return model, x, y


@pytest.mark.parametrize("name", ["mlp_bn", "conv_bn"])
def test_the_largest_eigenvalue_within_by_iteration(name, monkeypatch):
    monkeypatch.setattr(eigen_parts, "SMALL", 3)
    model, x, y = tiny(name, examples=40)
    found = exact_spectrum(model, batches(x, y), knockouts=())
    within = torch.linalg.eigvalsh(dense_parts(model, x, y)["within"])[-1]
    np.testing.assert_allclose(found.arrays["within_largest"], within, rtol=0, atol=CLOSE * found.eigenvalues[0])


@pytest.mark.parametrize("fitted", [True, False], ids=["fitted", "wrong"])
@pytest.mark.parametrize("scale", [1e-3, 30.0, 200.0])
@pytest.mark.parametrize("name", ["mlp_bn", "conv_bn", "attention", "tied"])
def test_predictions_from_even_to_certain(name, scale, fitted):
    model, x, y = with_scaled_logits(name, scale)
    y = model(x).argmax(dim=1) if fitted else y
    found = exact_spectrum(model, batches(x, y))
    assert_exact(found, model, x, y, projections=False)


def test_certain_beyond_the_range_of_probabilities():
    model, x, y = with_scaled_logits("attention", 3000.0)
    assert bool((model(x).softmax(dim=1) == 0).any())
    found = exact_spectrum(model, batches(x, y), knockouts=BOTH)
    known = found.eigenvalues > found.arrays["resolution"]
    assert known.any()
    assert np.isfinite(found.shares[known].to_numpy()).all()
    for name in ("mass", "class_cosines", "projection_cross", "subtraction_class_cross_same"):
        assert np.isfinite(found.arrays[name]).all(), name
    everything = exact_spectrum(with_scaled_logits("attention", 1e7)[0], batches(x, y), knockouts=BOTH)
    assert (everything.eigenvalues == 0).all()
    assert everything.shares.isna().all().all()
    assert everything.effective_rank == 0


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (2, [0, 1, 0, 1, 1]),
        (2, [0, 0]),
        (4, [0, 0, 0, 0, 3, 3, 0, 3]),  # two classes without examples
        (5, [2, 2, 2, 2]),
        (9, [0, 4, 8]),  # more classes than examples
        (9, [5]),
        (4, [0, 1, 2, 3] * 9),
    ],
)
def test_classes_of_any_number_and_size(classes, labels):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, classes)).double()
    x, y = torch.randn(len(labels), 4, dtype=torch.float64), torch.tensor(labels)
    found = exact_spectrum(model, batches(x, y), knockouts=BOTH)
    assert_exact(found, model, x, y)
    assert (len(found.part("class")), len(found.part("same"))) == (min(classes, len(found.eigenvalues)),) * 2


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ("0", ["0.weight", "0.bias"]),
        (["0.bias"], ["0.bias"]),
        (["0.weight"], ["0.weight"]),
        (["7.bias", "1.weight"], ["1.weight", "7.bias"]),
        (["4.weight", "7.weight"], ["4.weight", "7.weight"]),
        (lambda name: name.endswith("bias"), ["0.bias", "1.bias", "7.bias"]),
    ],
)
def test_some_of_the_parameters(parameters, names):
    model, x, y = tiny("conv_bn")
    assert_exact(exact_spectrum(model, batches(x, y), parameters=parameters, knockouts=BOTH), model, x, y, names)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_split_into_batches_does_not_matter(size):
    model, x, y = tiny("conv_bn")
    expected, found = exact_spectrum(model, [(x, y)], knockouts=BOTH), exact_spectrum(model, batches(x, y, size))
    for name, array in found.arrays.items():
        np.testing.assert_allclose(array, expected.arrays[name], rtol=0, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("name", ["conv_bn", "residual", "attention", "mlp_bn"])
def test_a_small_budget_means_more_passes_and_the_same_numbers(name, monkeypatch):
    model, x, y = tiny(name)
    captured = []
    monkeypatch.setattr("repro.curvature.row_gram.capture", partial(counting, captured))
    expected = exact_spectrum(model, batches(x, y))
    at_first = len(captured)
    needed = dense_memory(14, 3, x.device)
    found = exact_spectrum(model, batches(x, y), memory_budget=needed)
    assert len(captured) - at_first > at_first
    for key, array in found.arrays.items():
        np.testing.assert_allclose(array, expected.arrays[key], rtol=0, atol=1e-11, err_msg=key)
    with pytest.raises(ValueError, match=r"needs 0.0 GiB of memory, more than memory_budget"):
        exact_spectrum(model, batches(x, y), memory_budget=needed - 1)


def counting(calls, *arguments, **keywords):
    from repro.curvature.layers import capture

    calls.append(arguments)
    return capture(*arguments, **keywords)


def test_what_it_takes_is_said(caplog):
    model, x, y = tiny("conv_bn")
    with caplog.at_level(logging.INFO):
        exact_spectrum(model, batches(x, y))
    assert "14 rows: " in caplog.text


def test_single_precision_keeps_five_digits_of_every_eigenvalue():
    model, x, y = with_scaled_logits("conv_bn", 40.0)
    exact = exact_spectrum(model, batches(x, y))
    single = exact_spectrum(model.float(), batches(x.float(), y))
    assert exact.eigenvalues[-1] < 1e-8 * exact.eigenvalues[0]
    known = exact.eigenvalues > single.arrays["resolution"]
    np.testing.assert_allclose(single.eigenvalues[known], exact.eigenvalues[known], rtol=1e-3)
    np.testing.assert_allclose(single.eigenvalues[:8], exact.eigenvalues[:8], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_eigenvalues_are_known_as_such(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 30), nn.Linear(30, 30), nn.Linear(30, 3)).to(dtype)  # W b of 3 x 4 in effect
    x, y = torch.randn(40, 3, dtype=dtype), torch.arange(40) % 3
    found = exact_spectrum(model, [(x, y)])
    known = found.eigenvalues > found.arrays["resolution"]
    assert known.sum() == 2 * 4  # C − 1 directions of the logits for each of W's columns and b
    assert found.shares.notna().to_numpy()[:8].all()
    assert found.shares.isna().to_numpy()[8:].all()


def test_means_and_top_eigenpairs_are_those_of_the_operators():
    model, x, y = tiny("conv_bn", examples=20)
    data = batches(x, y)
    found, structure = exact_spectrum(model, data), class_structure(model, data)
    np.testing.assert_allclose(found.arrays["mass"], structure.weights, rtol=1e-12)
    for part in ("class", "cross", "same"):
        expected = structure.gram().eigenvalues(part)
        np.testing.assert_allclose(found.part(part), expected, rtol=0, atol=1e-13)
    pairs = top_eigenpairs(
        GaussNewton(model, data), 4, tolerance=1e-10, max_products=200, memory_budget=1 << 20, seed=0
    )
    np.testing.assert_allclose(found.eigenvalues[:4], pairs.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(found.trace, GaussNewton(model, data).dense().trace(), rtol=1e-12)


def test_a_network_in_train_mode_that_the_operators_take():
    model, x, y = tiny("tanh")
    assert_exact(exact_spectrum(model.train(), batches(x, y), knockouts=BOTH), model, x, y)


def test_frozen_parameters_and_a_loader_that_is_read_once():
    model, x, y = tiny("conv_bn")
    model.requires_grad_(False)
    found = exact_spectrum(model, iter(batches(x, y.int())), knockouts="projection")
    expected = exact_spectrum(tiny("conv_bn")[0], batches(x, y), knockouts=BOTH)
    np.testing.assert_allclose(found.arrays["projection_class"], expected.arrays["projection_class"], atol=1e-13)
    assert "subtraction_class" not in found.arrays


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, x):
        return self.layer(x).detach()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": []}, "no data"),
        ({"knockouts": ["projections"]}, "a knockout is 'subtraction' or 'projection', not 'projections'"),
        ({"parameters": ["9.weight"]}, "has no parameters"),
        ({"data": [(torch.zeros(2, 4).double(), torch.tensor([0, 5]))]}, "labels must lie in 0..2"),
        ({"data": [(torch.zeros(2, 4), torch.tensor([0, 1]))]}, "the inputs are torch.float32"),
        ({"model": Detached()}, "depends on none of the parameters"),
        ({"model": nn.Linear(4, 1).double(), "data": [(torch.zeros(2, 4).double(), torch.zeros(2).long())]}, "1 logit"),
        ({"model": nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double().train()}, "draws random numbers"),
        ({"memory_budget": 1000}, "take fewer examples, or estimate the spectrum by Lanczos"),
    ],
)
def test_what_is_refused(change, sentence):
    model, x, y = tiny("tanh")
    arguments = {"model": model, "data": batches(x, y)} | change
    with pytest.raises(ValueError, match=sentence) as caught:
        exact_spectrum(arguments.pop("model"), arguments.pop("data"), **arguments)
    assert "\n" not in str(caught.value)


def test_gradients_that_overflow_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1e30, 0], [0, 0]]))
        model[0].weight.zero_()
        model[0].bias.zero_()
    with pytest.raises(ValueError, match="gradients of the network overflow"):
        exact_spectrum(model, [(torch.full((1, 2), 1e10), torch.tensor([0]))])


def test_a_large_vocabulary_is_refused_before_anything_of_its_square_is_made():
    """C = 200 000: a matrix of C² numbers would be 320 GB."""
    torch.manual_seed(0)
    model = nn.Linear(1, 200_000, bias=False).eval()
    with pytest.raises(ValueError, match="comes from 200000 parameters and needs"):
        exact_spectrum(model, [(torch.randn(4, 1), torch.tensor([5, 199_999, 7, 5]))])
