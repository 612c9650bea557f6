"""The factor of diag(p) − p pᵀ and the coefficients of the means, against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.curvature.softmax_root import class_weights, complement, mean_columns, softmax_root


def rows_of(logits):
    """The factor [B, C-1, C] whose rows are √p_k (cotangents of g_k − τ g_a)."""
    root = softmax_root(logits)
    return root.scale[:, :, None] * root.cotangents()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.floats(0, 200), st.integers(0, 10**6))
def test_it_is_a_square_root(C, spread, seed):
    logits = spread * torch.randn(5, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p = logits.softmax(dim=1)
    expected = -p[:, :, None] * p[:, None] * (1 - torch.eye(C, dtype=p.dtype))
    expected -= torch.diag_embed(expected.sum(dim=2))  # p_k (1 − p_k), without its cancellation
    A = rows_of(logits)
    error = (A.transpose(1, 2) @ A - expected).abs()
    size = expected.diagonal(dim1=1, dim2=2).sqrt()  # entry (j, k) is at most size_j size_k
    assert (error <= 1e-13 * size[:, :, None] * size[:, None] + 1e-300).all()


def test_errors_combine_as_cotangents_do():
    logits = 3 * torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    J = torch.randn(4, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    root, p = softmax_root(logits), logits.softmax(dim=1)
    g = torch.einsum("bkc,bcp->bkp", p[:, None] - torch.eye(5, dtype=p.dtype), J)  # of each label
    torch.testing.assert_close(root.combine(g), torch.einsum("bkc,bcp->bkp", root.cotangents(), J))
    torch.testing.assert_close(root.combine(g.view(4, 5, 7, 1))[..., 0], root.combine(g))


@pytest.mark.parametrize("p", [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [1.0, 1e-30, 1e-60], [0.5, 0.5, 0.0]])
def test_the_complement_is_orthonormal_and_perpendicular(p):
    q = torch.tensor([p], dtype=torch.float64).sqrt()
    Z = complement(q, q.argmax(dim=1))[0]
    torch.testing.assert_close(Z.T @ Z, torch.eye(2, dtype=q.dtype))
    assert (q @ Z).abs().max() < 1e-15


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 0, 1, 2, 3], [0, 0, 0, 0, 3, 3, 3, 0], [1] * 8])
def test_columns_make_the_parts_from_the_rows(labels, spread):
    """M Mᵀ is the part's matrix of coefficients in the factor's coordinates: Zᵀ Π Z."""
    logits = spread * torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y, root, p = torch.tensor(labels), softmax_root(logits), logits.softmax(dim=1)
    M = mean_columns(root, y, class_weights(root.log_p, y))
    Z = torch.block_diag(*complement(p.sqrt(), root.pivot))  # [N C, N (C-1)]
    pair = torch.zeros(8, 4, 4, 4, dtype=p.dtype)  # unit vectors of (i, k) for each (c, c')
    for i, c in enumerate(labels):
        for k in range(4):
            pair[i, k, c, k] = (p[i, k] / p[y == c, k].sum()).sqrt()
    spanned = torch.zeros(32, 32, dtype=p.dtype)
    for c in set(labels):
        vectors, others = pair[:, :, c].flatten(0, 1), [k for k in range(4) if k != c]
        mass = p[y == c].sum(dim=0)
        mean = vectors[:, others] @ (mass[others] / mass[others].sum()).sqrt()
        own, found = vectors[:, c], M[:, :, c].flatten(0, 1)
        assert_outer(found[:, :1], Z, mean[:, None])
        assert_outer(found[:, 1:2], Z, own[:, None])
        cross = vectors[:, others] @ vectors[:, others].T - torch.outer(mean, mean)
        torch.testing.assert_close(found[:, 2:] @ found[:, 2:].T, Z.T @ cross @ Z, rtol=0, atol=1e-14)
        spanned += vectors @ vectors.T
    whole = M.flatten(0, 1).flatten(1)
    torch.testing.assert_close(whole @ whole.T, Z.T @ spanned @ Z, rtol=0, atol=1e-14)


def assert_outer(columns, Z, vectors):
    expected = Z.T @ vectors
    torch.testing.assert_close(columns @ columns.T, expected @ expected.T, rtol=0, atol=1e-14)


def test_weights_of_certain_predictions_and_of_empty_classes():
    log_p = torch.tensor([[0.0, -800.0, -900.0], [0.0, -850.0, -2000.0]], dtype=torch.float64)
    weights = class_weights(log_p, torch.tensor([0, 0]))
    assert weights.log_pairs[0, 1] == pytest.approx(-800 - torch.log(torch.tensor(2.0)).item())
    assert weights.log_pairs[1].isneginf().all()
    assert weights.mass.sum() == 1
    M = mean_columns(softmax_root(log_p), torch.tensor([0, 0]), weights)
    assert torch.isfinite(M).all()
    torch.testing.assert_close(M[:, :, 0, 2].abs().max(), torch.ones((), dtype=M.dtype), rtol=1e-12, atol=0)
