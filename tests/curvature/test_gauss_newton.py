"""What is particular to the Gauss-Newton matrix."""

import torch
from oracles import tiny

from repro.curvature.gauss_newton import GaussNewton


def test_is_positive_semidefinite_of_rank_at_most_examples_times_classes_less_one():
    model, x, y = tiny("conv_bn", examples=4)
    eigenvalues = torch.linalg.eigvalsh(GaussNewton(model, [(x, y)]).dense())
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    assert (eigenvalues > 1e-12 * eigenvalues[-1]).sum() <= 4 * 2 < len(eigenvalues)


def test_does_not_depend_on_the_labels():
    model, x, y = tiny("conv_bn")
    found = GaussNewton(model, [(x, (y + 1) % 3)]).dense()
    torch.testing.assert_close(found, GaussNewton(model, [(x, y)]).dense(), rtol=0, atol=0)


def test_keeps_its_digits_where_one_class_is_certain():
    """There (diag(p) − p p^T) J v is a difference of almost equal numbers, unless J v is relative to that class."""
    model, x, y = tiny("linear")
    with torch.no_grad():
        model[0].bias.add_(torch.tensor([9.0, 0.0, 0.0]))
    v = torch.full((18,), 100.0, dtype=torch.float64) + torch.randn(18, dtype=torch.float64)
    exact = GaussNewton(model, [(x, y)]) @ v
    found = GaussNewton(model.float(), [(x.float(), y)]) @ v.float()
    assert (found.double() - exact).norm() < 1e-4 * exact.norm()


def test_is_the_fisher_information():
    """Eq. 6.2: G = Σ_{i,c'} p_{i,c'}/N g g^T with the gradients for every label c'."""
    model, x, y = tiny("tanh")
    p = model(x).detach().softmax(dim=1)
    fisher = 0
    for i in range(len(x)):
        for c in range(3):
            loss = torch.nn.functional.cross_entropy(model(x[i : i + 1]), torch.tensor([c]))
            g = torch.cat([d.flatten() for d in torch.autograd.grad(loss, list(model.parameters()))])
            fisher = fisher + p[i, c] / len(x) * g[:, None] * g
    torch.testing.assert_close(GaussNewton(model, [(x, y)]).dense(), fisher, rtol=0, atol=1e-12)
