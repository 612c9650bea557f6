"""Section 8 in closed form against dense matrices, quadrature and samples."""

import pytest
import torch

from repro.curvature.logistic import (
    bayes_error,
    constant_covariances,
    constant_gauss_newton,
    expected_gauss_newton,
    levels,
    sample,
    softmax_gauss_newton,
)

CASES = [(3, 3, 4.0, 0.2), (4, 7, 0.5, 0.6), (5, 6, 9.0, 0.01)]


@pytest.mark.parametrize(("C", "D", "snr", "alpha"), CASES)
def test_lemma_is_the_expectation(C, D, snr, alpha):
    """E G = Ave_c E[x x^T | c] ⊗ U^c with E[x x^T | c] = I + s e_c e_c^T."""
    U, eye = constant_covariances(C, alpha), torch.eye(D, dtype=torch.float64)
    expected = sum(torch.kron(eye + snr * torch.outer(eye[c], eye[c]), U[c]) for c in range(C)) / C
    found = expected_gauss_newton(classes=C, features=D, snr=snr, alpha=alpha)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("C", "D", "snr", "alpha"), CASES)
def test_theorem_gives_the_eigenvalues_of_the_lemma(C, D, snr, alpha):
    dense = expected_gauss_newton(classes=C, features=D, snr=snr, alpha=alpha)
    values, counts = levels(classes=C, features=D, snr=snr, alpha=alpha)
    assert int(counts.sum()) == C * D
    expected = torch.linalg.eigvalsh(dense).flip(0)
    torch.testing.assert_close(values.repeat_interleave(counts), expected, rtol=1e-12, atol=1e-14)


def test_samples_match_their_definition():
    C, D, N, alpha, snr = 3, 4, 50, 0.3, 2.0
    x, y = sample(classes=C, features=D, snr=snr, examples=N, generator=torch.Generator().manual_seed(0))
    again, _ = sample(classes=C, features=D, snr=snr, examples=N, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, x)
    U = constant_covariances(C, alpha)
    constant = sum(torch.kron(torch.outer(v, v), U[c]) for v, c in zip(x, y)) / N
    torch.testing.assert_close(constant_gauss_newton(x, y, classes=C, alpha=alpha), constant, rtol=1e-12, atol=1e-14)
    softmax = 0
    for v in x:
        p = (snr**0.5 * v[:C]).softmax(0)
        softmax = softmax + torch.kron(torch.outer(v, v), p.diag() - torch.outer(p, p)) / N
    found = softmax_gauss_newton(x, classes=C, snr=snr, batch=16)
    torch.testing.assert_close(found, softmax, rtol=1e-12, atol=1e-14)


def test_sample_average_approaches_the_expectation():
    case = {"classes": 3, "features": 4, "snr": 4.0}
    x, y = sample(**case, examples=60_000, generator=torch.Generator().manual_seed(1))
    error = constant_gauss_newton(x, y, classes=3, alpha=0.2) - expected_gauss_newton(**case, alpha=0.2)
    assert error.abs().max() < 0.02


@pytest.mark.parametrize("C", [2, 10])
def test_bayes_error(C):
    assert bayes_error(0.0, C) == pytest.approx(1 - 1 / C, abs=1e-12)
    x, y = sample(classes=C, features=C, snr=4.0, examples=100_000, generator=torch.Generator().manual_seed(0))
    assert bayes_error(4.0, C) == pytest.approx(float((x.argmax(1) != y).double().mean()), abs=0.006)
    if C == 2:  # Φ(−t/√2)
        closed = float(torch.special.ndtr(torch.tensor(-(2.0**0.5), dtype=torch.float64)))
        assert bayes_error(4.0, C) == pytest.approx(closed, abs=1e-12)


def test_unfit_arguments_are_refused():
    with pytest.raises(ValueError, match="needs D >= C"):
        levels(classes=4, features=3, snr=1.0, alpha=0.1)
    with pytest.raises(ValueError, match="error of guessing"):
        levels(classes=4, features=5, snr=1.0, alpha=0.9)
