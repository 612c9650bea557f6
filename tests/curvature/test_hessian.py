"""Hessian, Gauss-Newton part and residual against dense matrices of tiny networks."""

import pytest
import torch
from oracles import NETWORKS, dense_gauss_newton, dense_hessian, dense_residual, tiny

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual

CASES = [(Hessian, dense_hessian), (GaussNewton, dense_gauss_newton), (HessianResidual, dense_residual)]
each_operator = pytest.mark.parametrize(("operator", "oracle"), CASES, ids=["Hess", "G", "E"])


def batches(x, y, size):
    return list(zip(x.split(size), y.split(size)))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@each_operator
@pytest.mark.parametrize("network", NETWORKS)
def test_matches_the_dense_oracle_kept_and_recomputed(operator, oracle, network):
    model, x, y = tiny(network)
    expected = oracle(model, x, y)
    for budget in (0, 1 << 30):
        close(operator(model, batches(x, y, 4), memory_budget=budget).dense(), expected)


@each_operator
@pytest.mark.parametrize("size", [1, 3, 7])  # 3 leaves a ragged last batch
def test_is_independent_of_the_batch_split(operator, oracle, size):
    model, x, y = tiny("conv_bn")
    close(operator(model, batches(x, y, size)).dense(), oracle(model, x, y))


@each_operator
@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ("0", ["0.weight", "0.bias"]),
        (["7.bias", "0.weight"], ["0.weight", "7.bias"]),
        (lambda n: n.endswith("bias"), None),
    ],
)
def test_restricts_to_chosen_parameters(operator, oracle, selection, names):
    model, x, y = tiny("conv_bn")
    names = names or [n for n, _ in model.named_parameters() if n.endswith("bias")]
    for budget in (0, 1 << 30):
        found = operator(model, batches(x, y, 4), parameters=selection, memory_budget=budget).dense()
        close(found, oracle(model, x, y, names=names))


@each_operator
def test_class_weights_normalise_like_cross_entropy(operator, oracle):
    model, x, y = tiny("tanh")
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    for size in (2, 7):
        close(operator(model, batches(x, y, size), class_weights=weight).dense(), oracle(model, x, y, weight=weight))


@each_operator
def test_is_linear_and_symmetric_and_multiplies_blocks(operator, oracle):
    model, x, y = tiny("residual")
    A = operator(model, batches(x, y, 3))
    U, V = torch.randn(2, A.dim, 3, dtype=torch.float64).unbind()
    close(A @ (2 * U - V), 2 * (A @ U) - A @ V)
    close(U.T @ (A @ V), (A @ U).T @ V)
    close((A @ V)[:, 1], A @ V[:, 1])
    assert A.products == 3 * 6 + 1


def test_the_hessian_is_the_sum_of_its_parts_weight_decay_included():
    model, x, y = tiny("conv_bn")
    H, G, E = (A(model, [(x, y)], weight_decay=0.3) for A in (Hessian, GaussNewton, HessianResidual))
    close(H.dense(), G.dense() + E.dense())
    close(H.dense(), dense_hessian(model, x, y) + 0.3 * torch.eye(H.dim, dtype=H.dtype))


def test_a_partial_budget_keeps_some_batches_and_changes_nothing():
    model, x, y = tiny("conv_bn")
    full = Hessian(model, batches(x, y, 2))
    expected = full.dense()
    half = Hessian(model, batches(x, y, 2), memory_budget=full.kept_bytes // 2)
    close(half.dense(), expected)
    assert 0 < half.kept_bytes <= full.kept_bytes // 2


@pytest.mark.parametrize("operator", [Hessian, GaussNewton, HessianResidual])
def test_float32_agrees_with_float64(operator):
    model, x, y = tiny("conv_bn")
    expected = operator(model, [(x, y)]).dense()
    found = operator(model.float(), [(x.float(), y)]).dense()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_later_training_of_the_model_does_not_change_the_matrix():
    model, x, y = tiny("mlp_bn")
    for budget in (0, 1 << 30):
        A = Hessian(model, [(x, y)], memory_budget=budget)
        expected = A.dense()
        with torch.no_grad():
            model[0].weight.add_(1)
        close(A.dense(), expected)


def test_works_without_recording_of_gradients():
    model, x, y = tiny("tanh")
    with torch.no_grad():
        close(Hessian(model, [(x, y)]).dense(), dense_hessian(model, x, y))


@each_operator
def test_agrees_with_curvlinops(operator, oracle):
    peers = pytest.importorskip("curvlinops")
    model, x, y = tiny("conv_bn")
    model[2].inplace = False
    data = batches(x, y, 3)
    arguments = model, torch.nn.CrossEntropyLoss(), list(model.parameters()), data
    H, G = (
        make(*arguments, check_deterministic=False) for make in (peers.HessianLinearOperator, peers.GGNLinearOperator)
    )
    v = torch.randn(Hessian(model, data).dim, dtype=torch.float64)
    expected = {Hessian: lambda: H @ v, GaussNewton: lambda: G @ v, HessianResidual: lambda: H @ v - G @ v}[operator]()
    close(operator(model, data) @ v, expected)
