"""Hess, G and E of other losses than the cross-entropy of class labels, against dense matrices by torch.func."""

import mpmath
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from repro.curvature.cross_class import class_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual
from repro.curvature.other_losses import BinaryCrossEntropy, CallableLoss, SoftCrossEntropy, find_loss

N, K = 7, 3


def network(outputs=K, *tail):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs), *tail).double().eval()


def targets(kind):
    generator = torch.Generator().manual_seed(1)
    real = torch.randn(N, K, generator=generator, dtype=torch.float64)
    return {
        "labels": torch.tensor([0, 1, 2, 0, 0, 1, 0]),
        "soft": real.softmax(dim=1),
        "real": real,
        "one": real[:, 0],
        "bits": (real > 0).double(),
        "bit": (real[:, 0] > 0).double(),
        "counts": (3 * real.abs()).round(),
    }[kind]


X = torch.randn(N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
WEIGHT = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)


def quartic(f, y):
    """One value for each example, and derivatives of every order."""
    return (f - y).pow(4).sum(dim=1) + 0.1 * f.logsumexp(dim=1)


# name -> network, loss as users write it, kind of targets
CASES = {
    "soft labels": (network(), nn.CrossEntropyLoss(), "soft"),
    "soft labels without a word": (network(), None, "soft"),
    "smoothing": (network(), nn.CrossEntropyLoss(label_smoothing=0.1), "labels"),
    "smoothing of soft labels": (network(), nn.CrossEntropyLoss(label_smoothing=0.1), "soft"),
    "weights in the loss": (network(), nn.CrossEntropyLoss(weight=WEIGHT), "labels"),
    "weights of soft labels": (network(), nn.CrossEntropyLoss(weight=WEIGHT), "soft"),
    "mse": (network(), nn.MSELoss(), "real"),
    "mse function": (network(1, nn.Flatten(0)), F.mse_loss, "one"),
    "mse on a grid": (network(6, nn.Unflatten(1, (2, 3))), F.mse_loss, "grid"),
    "bce": (network(1, nn.Flatten(0)), nn.BCEWithLogitsLoss(), "bit"),
    "bce multi-label": (network(), F.binary_cross_entropy_with_logits, "bits"),
    "bce pos_weight": (network(), nn.BCEWithLogitsLoss(pos_weight=WEIGHT), "bits"),
    "bce weight": (network(), nn.BCEWithLogitsLoss(weight=WEIGHT), "bits"),
    "function of labels": (network(), lambda f, y: F.cross_entropy(f, y, label_smoothing=0.2), "labels"),
    "one value for each": (network(), quartic, "real"),
    "huber": (network(), nn.HuberLoss(delta=0.3), "real"),
    "poisson": (network(), nn.PoissonNLLLoss(), "counts"),
}


def dense(model, loss, y):  # -> Hess, G, E [P, P], by the chain rule written out
    names = dict(model.named_parameters())
    theta = torch.cat([p.detach().flatten() for p in names.values()])

    def outputs(t):
        pieces = t.split([p.numel() for p in names.values()])
        return functional_call(model, {n: piece.view_as(p) for (n, p), piece in zip(names.items(), pieces)}, (X,))

    def risk(f):
        return (loss or F.cross_entropy)(f, y).mean()

    J = jacrev(outputs)(theta).flatten(0, -2)  # [N K, P]
    U = jacrev(jacrev(risk))(outputs(theta)).reshape(len(J), len(J))
    whole, G = jacrev(jacrev(lambda t: risk(outputs(t))))(theta), J.T @ U @ J
    return whole, G, whole - G


@pytest.mark.parametrize("case", CASES)
def test_matches_dense_matrices_however_the_data_are_divided(case):
    model, loss, kind = CASES[case]
    y = targets("real").new_ones(N, 2, 3).cumsum(dim=2) if kind == "grid" else targets(kind)
    for A, expected in zip((Hessian, GaussNewton, HessianResidual), dense(model, loss, y)):
        for sizes in ([N], [2, 1, 4]):
            data = list(zip(X.split(sizes), y.split(sizes)))
            operator = A(model, data, loss=loss, memory_budget=len(sizes) % 2 << 30)
            V = torch.randn(operator.dim, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            torch.testing.assert_close(operator @ V, expected @ V, rtol=0, atol=1e-8)
    risk = (loss or F.cross_entropy)(model(X), y).mean()
    assert operator.loss == pytest.approx(risk.item(), rel=1e-12)
    gradient = torch.autograd.grad(risk, list(model.parameters()))
    torch.testing.assert_close(operator.gradient(), torch.cat([g.flatten() for g in gradient]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("loss", "kind"), [(nn.MSELoss(), "real"), (nn.BCEWithLogitsLoss(), "bits")])
def test_agrees_with_curvlinops(loss, kind):
    peers = pytest.importorskip("curvlinops")
    model, y = network(), targets(kind)
    data = [(X, y)]
    v = torch.randn(Hessian(model, data, loss=loss).dim, dtype=torch.float64)
    for A, theirs in ((Hessian, peers.HessianLinearOperator), (GaussNewton, peers.GGNLinearOperator)):
        expected = theirs(model, loss, list(model.parameters()), data, check_deterministic=False) @ v
        torch.testing.assert_close(A(model, data, loss=loss) @ v, expected, rtol=0, atol=1e-10)


def test_weight_decay_and_chosen_parameters_are_of_any_loss():
    model, y = network(), targets("real")
    whole, _, _ = dense(model, nn.MSELoss(), y)
    found = Hessian(model, [(X, y)], loss=nn.MSELoss(), parameters="2", weight_decay=0.3).dense()
    torch.testing.assert_close(found, whole[25:, 25:] + 0.3 * torch.eye(18, dtype=torch.float64))


def test_targets_fit_outputs_but_for_axes_of_length_one_and_precision():
    """As data sets give them: numbers in float64 or integers, of shape [N] for a network that returns [N, 1]."""
    model = network(1).float()
    for loss, y in ((nn.MSELoss(), targets("one")), (nn.BCEWithLogitsLoss(), targets("bit").long())):
        expected = dense(model.double(), loss, y.double()[:, None])[0]
        found = Hessian(model.float(), [(X.float(), y)], loss=loss).dense()
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


mpmath.mp.dps = 50


@pytest.mark.parametrize("margin", [0.0, 8.0, 30.0, 70.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_digit_is_lost_at_a_fit(margin, dtype):
    f, rtol = torch.tensor([[margin], [-margin]], dtype=dtype), 100 * torch.finfo(dtype).eps
    y, a = torch.tensor([[1.0], [0.0]], dtype=dtype), torch.ones(2, 1, dtype=dtype)
    sigma = 1 / (1 + mpmath.e ** mpmath.mpf(margin))
    loss = BinaryCrossEntropy()
    error, curved = (torch.full((1,), float(x), dtype=dtype) for x in (sigma, sigma * (1 - sigma)))
    expected = torch.stack([-error, error])
    torch.testing.assert_close(loss.errors(f, y), expected, rtol=rtol, atol=0)
    torch.testing.assert_close(loss.curvature(f, y, a), curved.expand(2, 1), rtol=rtol, atol=0)
    assert float(loss.total(f, y)) == pytest.approx(float(-2 * mpmath.log(1 - sigma)), rel=rtol)
    soft, logits = SoftCrossEntropy(), torch.cat([f, torch.zeros_like(f)], dim=1)
    found = soft.errors(logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=dtype))
    torch.testing.assert_close(found[:, :1], expected, rtol=rtol, atol=0)


class Detached(nn.Module):
    """A focal weight that no gradient passes, as it is often written."""

    def forward(self, f, y):
        each = F.cross_entropy(f, y, reduction="none")
        return ((1 - (-each).exp()).detach() ** 2 * each).mean()


def cauchy(f, y):
    return (f - y).square().log1p().mean()


def weighted(f, y):
    return F.cross_entropy(f, y, weight=WEIGHT)


@pytest.mark.parametrize(
    ("loss", "kind", "sentence"),
    [
        (nn.MSELoss(reduction="sum"), "real", "adds up over examples.*use reduction='mean'"),
        (lambda f, y: F.mse_loss(f, y, reduction="sum"), "real", "adds up over examples.*use reduction='mean'"),
        (nn.MSELoss(reduction="none"), "real", r"returns \[7, 3\] for 7 examples: their mean is needed"),
        (weighted, "labels", "weighted of a batch is not the mean of .*look for class weights"),
        (nn.CrossEntropyLoss(label_smoothing=1.5), "labels", "label_smoothing is 1.5: a number from 0 to 1"),
        (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), "labels", "not the mean .* look for class weights"),
        (
            nn.CrossEntropyLoss(ignore_index=0),
            "labels",
            "ignore_index is 0: label them -100, or leave those examples out",
        ),
        (
            Detached(),
            "labels",
            "first derivatives of the loss Detached by autograd are not .* look for a part under det",
        ),
        (cauchy, "real", "cauchy is not convex in the outputs: .* eigenvalue -0"),
        (lambda f, y: f.detach().mean() + 0 * y.sum(), "real", "cannot differentiate the loss <lambda> twice"),
        (lambda f, y: (f - f.detach()).abs().sqrt().mean() + 0 * y.mean(), "real", "are not finite: look for a root"),
        (lambda f, y: (f - f.detach()).norm(dim=1).mean() + 0 * y.mean(), "real", "are not finite: look for a root"),
        (nn.GaussianNLLLoss(), "real", r"loss GaussianNLLLoss does not take outputs \[7, 3\] .*missing"),
        (lambda f, y: F.mse_loss(f, y).item(), "real", "returns float for 7 examples"),
        (nn.MSELoss(), "labels", r"returns \[7, 3\] and the targets are \[7\]: .* one target for each output"),
        (nn.BCEWithLogitsLoss(), "real", "targets run from -.* takes 0, 1, or probabilities"),
        (None, "real", "targets are no probabilities.*loss=nn.MSELoss"),
        (None, "one", r"class indices are needed.*loss=nn.MSELoss\(\) for regression"),
        (nn.CrossEntropyLoss(), "one", "class indices are needed"),
    ],
)
def test_refuses_what_has_no_such_matrices(loss, kind, sentence):
    with pytest.raises(ValueError, match=rf"\A[^\n]*{sentence}[^\n]*\Z") as caught:
        GaussNewton(network(), [(X, targets(kind))], loss=loss)
    assert ".long()" not in str(caught.value)


@pytest.mark.parametrize("loss", [nn.MSELoss, "mse", 3])
def test_refuses_what_is_no_function(loss):
    with pytest.raises(TypeError, match=r"a function \(outputs, targets\) -> loss is needed, such as nn.MSELoss"):
        Hessian(network(), [(X, targets("real"))], loss=loss)


def test_names_outputs_that_are_broadcast_against_targets():
    with pytest.raises(ValueError, match=r"look for outputs \[7, 1\] that are broadcast against targets \[7\]"):
        Hessian(network(1), [(X, targets("one"))], loss=lambda f, y: (f - y).square().mean())


def test_targets_that_are_not_finite():
    y = targets("real").masked_fill(targets("real") > 1, float("nan"))
    for loss in (nn.MSELoss(), F.huber_loss):
        with pytest.raises(ValueError, match="targets hold values that are not finite"):
            Hessian(network(), [(X, y)], loss=loss)


def test_the_hessian_needs_no_convex_loss():
    model, y = network(), targets("real")
    torch.testing.assert_close(Hessian(model, [(X, y)], loss=cauchy).dense(), dense(model, cauchy, y)[0])


def test_says_where_g_is_zero(caplog):
    """The negative log-likelihood is linear in log-probabilities; the cross-entropy of them is the same loss."""
    model, y = network(K, nn.LogSoftmax(dim=1)), targets("labels")
    v = torch.randn(43, dtype=torch.float64)
    assert not (GaussNewton(model, [(X, y)], loss=nn.NLLLoss()) @ v).any()
    assert "NLLLoss has no curvature in the outputs, so that G is zero" in caplog.text
    H, same = (Hessian(model, [(X, y)], loss=loss) @ v for loss in (nn.NLLLoss(), None))
    torch.testing.assert_close(H, same)


def test_a_loss_that_computes_in_lower_precision_is_a_mean_to_that():
    y, v = targets("real"), torch.randn(43, dtype=torch.float64)
    found = Hessian(network(), [(X, y)], loss=lambda f, y: F.mse_loss(f.float(), y.float())) @ v
    torch.testing.assert_close(found, Hessian(network(), [(X, y)], loss=nn.MSELoss()) @ v, rtol=1e-5, atol=1e-5)


def test_class_weights_are_of_class_labels():
    with pytest.raises(ValueError, match="class_weights are of the cross-entropy of class labels, not of the mean squ"):
        Hessian(network(), [(X, targets("real"))], loss=nn.MSELoss(), class_weights=WEIGHT)
    with pytest.raises(ValueError, match=r"once: class_weights .* or nn.CrossEntropyLoss\(weight=...\)"):
        Hessian(network(), [(X, targets("labels"))], loss=nn.CrossEntropyLoss(weight=WEIGHT), class_weights=WEIGHT)


@pytest.mark.parametrize(("loss", "kind"), [(nn.CrossEntropyLoss(label_smoothing=0.1), "labels"), (None, "soft")])
def test_class_structure_is_of_class_labels(loss, kind):
    model = network()
    G = GaussNewton(model, [(X, targets(kind))], loss=loss)
    structure = class_structure(model, [(X, targets("labels"))])
    with pytest.raises(
        ValueError, match="class structure is of the softmax cross-entropy of class labels, and this Ga"
    ):
        structure.within_part(G)
    with pytest.raises(ValueError, match="class structure is of the softmax cross-entropy of class labels") as caught:
        class_structure(model, [(X, targets("soft"))])
    assert ".long()" not in str(caught.value)


def test_a_subclass_of_a_known_loss_is_taken_as_it_is_written():
    class Halved(nn.MSELoss):
        def forward(self, input, target):
            return super().forward(input, target) / 2

    loss = find_loss(Halved(), targets("real"))
    assert isinstance(loss, CallableLoss)
    assert find_loss(torch.compile(nn.MSELoss()), targets("real")).name == "mean squared error"
    assert find_loss(torch.compile(quartic), targets("real")).name == "quartic"
    f = torch.zeros(N, K, dtype=torch.float64)
    torch.testing.assert_close(loss.errors(f, targets("real")), -targets("real") / K)
