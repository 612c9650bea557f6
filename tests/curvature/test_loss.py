"""The cross-entropy and its derivatives against arithmetic of fifty digits, from a loss of one to one of 1e-30."""

import mpmath
import pytest
import torch

from repro.curvature.loss import ErrorsOfLogits, cross_entropies, curvature, errors

mpmath.mp.dps = 50
MARGINS = [0.0, 1.0, 8.0, 30.0, 70.0]  # of the most probable class; a loss of 1e-30 at 70


def exact(logits, y, a):
    """ℓ, p − e_y and (diag(p) − p p^T) a of one example."""
    f = [mpmath.mpf(float(x)) for x in logits]
    total = mpmath.fsum(mpmath.e**x for x in f)
    p = [mpmath.e**x / total for x in f]
    mean = mpmath.fsum(q * mpmath.mpf(float(b)) for q, b in zip(p, a))
    loss = mpmath.log(total) - f[y]
    return [loss], [q - (k == y) for k, q in enumerate(p)], [q * (mpmath.mpf(float(b)) - mean) for q, b in zip(p, a)]


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("label", [0, 2], ids=["right", "wrong"])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 3e-5), (torch.float64, 1e-13)])
def test_every_digit_is_there_at_a_fit(margin, label, dtype, digits):
    logits = torch.tensor([[margin, -0.7, 0.4, -1.3]], dtype=dtype)
    a, y = torch.tensor([[0.3, -1.1, 0.8, 0.5]], dtype=dtype), torch.tensor([label])
    p = logits.softmax(dim=1)
    found = (cross_entropies(logits, y), errors(p, y)[0], curvature(p, a)[0])
    for ours, theirs in zip(found, exact(logits[0], label, a[0])):
        expected = torch.tensor([float(x) for x in theirs], dtype=torch.float64)
        torch.testing.assert_close(ours.double(), expected, rtol=digits, atol=0)


def test_errors_of_logits_have_the_curvature_as_their_derivative():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y, a = torch.tensor([0, 1, 2, 3, 0]), torch.randn(5, 4, dtype=torch.float64)
    found = ErrorsOfLogits.apply(logits, y)
    torch.testing.assert_close(found, logits.softmax(dim=1) - torch.nn.functional.one_hot(y, 4))
    (product,) = torch.autograd.grad(found, logits, a)
    (expected,) = torch.autograd.grad(logits.softmax(dim=1), logits, a)
    torch.testing.assert_close(product, expected)
    torch.testing.assert_close(
        errors(logits.detach().softmax(dim=1), 2), errors(logits.softmax(dim=1), torch.full((5,), 2)).detach()
    )
