"""Numbers of Hess, G or E of a network of your own: leading eigenvalues, trace, diagonal, Frobenius norm.

repro.top(model, data).eigenvalues            # the sharpness; with k=10 ten eigenvalues, with their vectors
found = repro.moments(model, data)            # of Hess, or with matrix="gauss_newton" of G
found.trace.value, found.trace.error          # and its standard error
found.frobenius_norm.value, found.diagonal.value
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from repro.curvature.diagonal import gauss_newton_diagonal
from repro.linalg import moments as linalg_moments
from repro.linalg.eigenpairs import Eigenpairs, top_eigenpairs
from repro.linalg.moments import Estimate, Moments
from repro.linalg.outside import Order
from repro.measurements.hessian_spectrum import MATRICES
from repro.measurements.settings import MEMORY, check_choice
from repro.network import Data, Network

Matrix = Literal["hessian", "gauss_newton", "residual"]


def top(
    model: nn.Module,
    data: Data,
    k: int = 1,
    *,
    matrix: Matrix = "hessian",
    by: Order = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    memory_budget: int = MEMORY,
    seed: int = 0,
    **network: Any,
) -> Eigenpairs:
    """The k leading eigenvalues alone, with their eigenvectors and residuals: with k = 1 the sharpness of the loss.

    Args:
        matrix: "hessian", "gauss_newton" (G) or "residual" (E = Hess − G).
        by: "largest" for the algebraically largest, "magnitude" for those of largest absolute value.
        tolerance: relative residual at which a pair counts as converged; the search ends there or at `max_products`.
        memory_budget: bytes for the basis of the search and, as much again, for graphs kept between products.
        network: further arguments of `repro.Network`, such as `loss` and `parameters`.

    Returns:
        `.eigenvalues` [k], `.vectors` [P, k] in the order of `model.named_parameters()`, `.residuals`, `.converged`
        [k], `.products`; see `repro.linalg.eigenpairs.Eigenpairs`.

    Raises:
        ValueError: k is not in 1..P, another word than these, or a model or data that `repro.Network` refuses.

    >>> import torch, repro
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    >>> found = repro.top(model, (torch.randn(30, 4), torch.arange(30) % 3), 2)
    >>> found.eigenvalues.shape, bool(found.converged.all())
    (torch.Size([2]), True)
    """
    check_choice("by", by, Order)
    check_choice("matrix", matrix, Matrix)
    A = Network(model, data, **network).matrix(MATRICES[matrix], memory_budget=memory_budget)
    return top_eigenpairs(
        A, k, tolerance=tolerance, max_products=max_products, memory_budget=memory_budget, seed=seed, by=by
    )


def moments(
    model: nn.Module,
    data: Data,
    *,
    matrix: Matrix = "hessian",
    products: int = 40,
    memory_budget: int = MEMORY,
    seed: int = 0,
    **network: Any,
) -> Moments:
    """Trace, diagonal and Frobenius norm of Hess, G or E, each with its standard error: see `repro.linalg.moments`.

    Trace and diagonal of G, the diagonal of the Fisher matrix, are exact with an error of zero for the cross-entropy of
    up to `products` + 1 classes; with more that would take longer than all the rest. Other diagonals are noisy entry by
    entry.

    Args:
        matrix: "hessian", "gauss_newton" (G) or "residual" (E = Hess − G).
        products: matrix-vector products to spend, at least 4; errors fall as their inverse root.
        memory_budget: bytes for a basis of half as many vectors and, as much again, for graphs kept between products.
        network: further arguments of `repro.Network`, such as `loss` and `parameters`.

    Returns:
        `.trace`, `.frobenius_norm` and `.diagonal`, each with `.value` and `.error`; the diagonal is a vector [P] in
        the order of `model.named_parameters()`.

    Raises:
        ValueError: fewer than 4 products, another matrix, or a model or data that `repro.Network` refuses.

    >>> import torch, repro
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    >>> data = torch.randn(30, 4), torch.arange(30) % 3
    >>> found = repro.moments(model, data)
    >>> bool(found.trace.error > 0), found.diagonal.value.shape
    (True, torch.Size([67]))
    >>> float(repro.moments(model, data, matrix="gauss_newton").trace.error)
    0.0
    """
    check_choice("matrix", matrix, Matrix)
    checked = Network(model, data, **network)
    A = checked.matrix(MATRICES[matrix], memory_budget=memory_budget)
    found = linalg_moments.moments(A, products=products, memory_budget=memory_budget, seed=seed)
    if matrix == "gauss_newton" and checked.has_class_structure and checked.classes - 1 <= products:
        exact = gauss_newton_diagonal(checked.model, checked.batches(), parameters=checked.parameters)
        zero = torch.zeros_like(exact)
        found = found._replace(trace=Estimate(exact.sum().cpu(), zero.sum().cpu()), diagonal=Estimate(exact, zero))
    return found
