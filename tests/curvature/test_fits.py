"""Hess, G and E of a network that fits its data, down to a loss of 1e-12, in both precisions."""

import pytest
import torch
from oracles import dense_jacobian
from torch import nn
from torch.func import functional_call, hessian

from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian, HessianResidual
from repro.linalg.lanczos import fast_lanczos

LOSSES = [1.0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12]


def fitted(loss: float, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network whose head is scaled until its mean cross-entropy is `loss`, to one percent; labels are its classes."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double().eval()
    x = torch.randn(40, 4, dtype=torch.float64)
    margins = model(x).detach().sort(dim=1).values
    x = x[(margins[:, 2] - margins[:, 1]).argsort()[-12:]]  # the clear ones, so that one scale fits all
    y = model(x).argmax(dim=1)
    y = (y + 1) % 3 if loss == 1 else y  # some loss is there only if the labels are wrong
    head = model[-1].weight.detach().clone(), model[-1].bias.detach().clone()
    low, high = 1e-6, 1e6
    for _ in range(200):
        scale = (low * high) ** 0.5
        model[-1].weight.data, model[-1].bias.data = head[0] * scale, head[1] * scale
        found = float(Hessian(model, [(x, y)]).loss)
        low, high = (scale, high) if (found > loss) == (loss != 1) else (low, scale)
    assert found == pytest.approx(loss, rel=1e-2) or loss == 1
    return model.to(dtype), x.to(dtype), y


def exact(model, x, y):
    """Dense Hess, G and E in float64 with p − e_y written without its cancellation, by torch.func."""
    model, x = model.double(), x.double()
    own = dict(model.named_parameters())
    theta = torch.cat([p.detach().flatten() for p in own.values()])

    def logits(theta):
        pieces = theta.split([p.numel() for p in own.values()])
        return functional_call(model, {name: t.view_as(p) for (name, p), t in zip(own.items(), pieces)}, (x,))

    p, J = logits(theta).softmax(dim=1), dense_jacobian(model, x)
    others = p * (1 - nn.functional.one_hot(y, 3))
    errors = others - nn.functional.one_hot(y, 3) * others.sum(dim=1, keepdim=True)
    pairs = J[:, :, None] - J[:, None]  # diag(p) − p p^T is half the sum of p_j p_k (e_j − e_k)(e_j − e_k)^T
    G = torch.einsum("nj,nk,njkp,njkq->pq", p, p, pairs, pairs) / 2 / len(x)
    E = torch.einsum("nk,nkpq->pq", errors, hessian(logits)(theta)) / len(x)
    return G + E, G, E


@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.float32, 1e-4), (torch.float64, 1e-8)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("loss", LOSSES)
def test_products_have_their_digits_at_every_loss(loss, dtype, digits):
    model, x, y = fitted(loss, dtype)
    operators = [make(model, [(x[:7], y[:7]), (x[7:], y[7:])]) for make in (Hessian, GaussNewton, HessianResidual)]
    found = [A.dense().double() for A in operators]
    for A in operators:
        fast_lanczos(A, 2)  # refuses a matrix that is not symmetric
    for ours, theirs in zip(found, exact(model, x, y)):
        assert (ours - theirs).norm() <= digits * theirs.norm()
