"""KFAC, CFAC and EKFAC against dense Kronecker products and defining identities."""

import pytest
import torch
from torch import nn

from repro.curvature.kfac import cfac, class_mean_cosines, ekfac_eigenvalues, kfac_eigenvalues, kronecker_factors
from repro.curvature.layers import LayerGaussNewton, LayerSamples, LayerStream

C, N = 3, 9
CLOSE = {"rtol": 1e-10, "atol": 1e-13}


def samples_of(kind: str) -> list[LayerSamples]:
    torch.manual_seed(2)
    if kind == "linear":
        model, x, layer = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, C)), torch.randn(N, 5), "0"
    else:
        model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, C))
        x, layer = torch.randn(N, 2, 3, 3), "0"
    y = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0, 2])
    x = x.double()
    return list(LayerStream(model.double().eval(), [(x[:4], y[:4]), (x[4:], y[4:])], layer))


@pytest.fixture(params=["linear", "conv"])
def samples(request):
    return samples_of(request.param)


def whole(samples):
    return LayerSamples(*(torch.cat(tensors) for tensors in zip(*samples)))


def shared(samples, sharing):
    h, delta, p, y = whole(samples)
    if sharing == "reduce":
        h, delta = h.mean(dim=1, keepdim=True), delta.sum(dim=2, keepdim=True)
    return h, delta, p, y


def written_out(samples, sharing, members):
    """Delta and H as averages over the examples `members`, sample by sample."""
    h, delta, p, _ = shared(samples, sharing)
    T = h.shape[1]
    H = sum(torch.outer(v, v) for i in members for v in h[i]) / (T * len(members))
    Delta = sum(p[i, k] * torch.outer(v, v) for i in members for k in range(C) for v in delta[i, k])
    return Delta / (T * len(members)), H, T


def kfac(factors):
    """T Delta ⊗ H."""
    Delta, H = factors.average()
    return factors.positions * torch.kron(Delta, H)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_kfac_and_cfac_match_dense_products(samples, sharing):
    factors = kronecker_factors(samples, sharing=sharing)
    y = whole(samples).y
    Delta, H, T = written_out(samples, sharing, range(N))
    dense = T * torch.kron(Delta, H)
    torch.testing.assert_close(kfac(factors), dense, **CLOSE)
    torch.testing.assert_close(kfac_eigenvalues(factors), torch.linalg.eigvalsh(dense).flip(0), **CLOSE)
    by_class = 0
    for c in range(C):
        members = (y == c).nonzero()[:, 0].tolist()
        Delta, H, T = written_out(samples, sharing, members)
        by_class = by_class + len(members) / N * T * torch.kron(Delta, H)
    torch.testing.assert_close(cfac(factors).dense(), by_class, **CLOSE)


def test_cfac_minus_kfac_is_the_covariance_of_the_factors(samples):
    """CFAC − KFAC = T Ave_c (Delta_c − Delta) ⊗ (H_c − H)."""
    factors = kronecker_factors(samples, sharing="expand")
    Delta, H = factors.average()
    covariance = sum(
        factors.positions * share * torch.kron(D_c - Delta, H_c - H)
        for share, D_c, H_c in zip(factors.shares, factors.Delta, factors.H)
    )
    torch.testing.assert_close(cfac(factors).dense() - kfac(factors), covariance, **CLOSE)
    assert covariance.norm() > 1e-3 * kfac(factors).norm()


def test_kfac_and_ekfac_are_exact_for_one_example_of_a_linear_layer():
    h, delta, p, y = whole(samples_of("linear"))
    one = [LayerSamples(h[:1], delta[:1], p[:1], y[:1])]
    exact = LayerGaussNewton(one).dense()
    factors = kronecker_factors(one, sharing="expand")
    torch.testing.assert_close(kfac(factors), exact, **CLOSE)
    torch.testing.assert_close(cfac(factors).dense(), exact, **CLOSE)
    torch.testing.assert_close(ekfac_eigenvalues(one, factors), torch.linalg.eigvalsh(exact).flip(0), **CLOSE)


def test_cfac_equals_kfac_where_classes_share_statistics(samples):
    h, delta, p, _ = whole(samples)
    copies = [LayerSamples(h, delta, p, torch.full((N,), c)) for c in range(C)]
    factors = kronecker_factors(copies, sharing="expand")
    torch.testing.assert_close(cfac(factors).dense(), kfac(factors), **CLOSE)


def test_ekfac_is_the_diagonal_of_the_exact_matrix_in_kfacs_eigenbasis(samples):
    factors = kronecker_factors(samples, sharing="expand")
    exact = LayerGaussNewton(samples).dense()
    Delta, H = factors.average()
    basis = torch.kron(torch.linalg.eigh(Delta).eigenvectors, torch.linalg.eigh(H).eigenvectors)
    expected = (basis.T @ exact @ basis).diagonal().sort(descending=True).values
    found = ekfac_eigenvalues(samples, factors)
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(found.sum(), exact.trace(), **CLOSE)


def test_ekfac_is_the_best_diagonal_in_that_basis(samples):
    """So it is never farther from G^l than KFAC, in Frobenius norm."""
    factors = kronecker_factors(samples, sharing="expand")
    exact = LayerGaussNewton(samples).dense()
    Delta, H = factors.average()
    basis = torch.kron(torch.linalg.eigh(Delta).eigenvectors, torch.linalg.eigh(H).eigenvectors)
    ekfac = basis @ (basis.T @ exact @ basis).diagonal().diag() @ basis.T
    assert (ekfac - exact).norm() < (kfac(factors) - exact).norm()


def test_class_mean_cosines(samples):
    h, delta, p, y = whole(samples)
    expected = []
    for c in range(C):
        members = [(i, k) for i in range(N) if y[i] == c for k in range(C) if k != c]
        g = sum(p[i, k] * delta[i, k].T @ h[i] for i, k in members)
        error = sum(p[i, k] * delta[i, k].sum(0) for i, k in members)
        product = torch.outer(error, h[y == c].mean(dim=(0, 1)))
        expected.append((g * product).sum() / (g.norm() * product.norm()))
    torch.testing.assert_close(class_mean_cosines(samples), torch.stack(expected), **CLOSE)


def test_class_mean_is_the_product_for_one_example_a_class():
    h, delta, p, _ = whole(samples_of("linear"))
    one_each = [LayerSamples(h[:C], delta[:C], p[:C], torch.arange(C))]
    torch.testing.assert_close(class_mean_cosines(one_each), torch.ones(C, dtype=torch.float64))
    with pytest.raises(ValueError, match="no data"):
        class_mean_cosines([])
