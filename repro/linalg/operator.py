"""Symmetric matrices known only through their products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse.linalg


class Stopped(Exception):
    """Work was not begun, because whoever watches wants all to end; see `LinearOperator.stopped` and `may_stop`.

    Searches that can return what they have found until then catch it; everything else lets it pass.
    """


asked: ContextVar[Callable[[], None]] = ContextVar("asked", default=lambda: None)  # who raises `Stopped`, if anybody


def may_stop() -> None:
    """Called between two pieces, two batches say, of long work that is no product with a watched matrix.

    Raises:
        Stopped: whoever watches wants the work to end.
    """
    asked.get()()


class LinearOperator:
    """A symmetric P x P matrix; subclasses define `matmat`.

    `like` is any vector [P] with the operator's dimension, dtype and device.
    `products` counts the columns multiplied so far, so that costs are counted, not estimated.
    `stopped` is True once a product has raised `Stopped`; `listening`, if it wants to hear of `found`. Both are for
    operators whose products somebody watches; see `repro.watch`.
    """

    stopped = False
    listening = False

    def __init__(self, like: Tensor):
        self.dim, self.dtype, self.device = len(like), like.dtype, like.device
        self.products = 0

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return type(self).__name__

    def found(self, converged: int, wanted: int) -> None:
        """A search says how many of the eigenpairs that are wanted have converged so far."""

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        raise NotImplementedError

    def __matmul__(self, V: Tensor) -> Tensor:  # [P] or [P, K] -> same shape
        self.products += 1 if V.ndim == 1 else V.shape[1]
        return self.matmat(V[:, None])[:, 0] if V.ndim == 1 else self.matmat(V)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, Scaled(other, -1.0))

    def __mul__(self, factor: float) -> LinearOperator:
        return Scaled(self, factor)

    __rmul__ = __mul__

    def dense(self) -> Tensor:  # [P, P]; for tests and small problems only
        return self @ torch.eye(self.dim, dtype=self.dtype, device=self.device)

    def scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """The same matrix for SciPy (eigsh, lobpcg, ...): NumPy vectors of its precision in and out."""
        from scipy.sparse.linalg import LinearOperator as SciPyOperator

        def product(V: np.ndarray) -> np.ndarray:  # [P] or [P, 1] or [P, K] -> same shape
            columns = torch.as_tensor(V, dtype=self.dtype, device=self.device)
            return (self @ columns).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return SciPyOperator((self.dim, self.dim), product, product, product, dtype, product)


class Dense(LinearOperator):
    """A symmetric matrix [P, P] held in memory."""

    def __init__(self, A: Tensor):
        super().__init__(A[0])
        self.A = A

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        return self.A @ V


class Sum(LinearOperator):
    """A + B."""

    def __init__(self, A: LinearOperator, B: LinearOperator):
        super().__init__(torch.empty(A.dim, dtype=A.dtype, device=A.device))
        self.A, self.B = A, B

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        return self.A @ V + self.B @ V


class Scaled(LinearOperator):
    """factor * A."""

    def __init__(self, A: LinearOperator, factor: float):
        super().__init__(torch.empty(A.dim, dtype=A.dtype, device=A.device))
        self.A, self.factor = A, factor

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        return self.factor * (self.A @ V)


class LowRank(LinearOperator):
    """U diag(w) U^T, kept as its factors; U need not be orthonormal."""

    def __init__(self, U: Tensor, weights: Tensor):  # [P, K], [K]
        super().__init__(U[:, 0])
        self.U, self.weights = U, weights

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        return self.U @ (self.weights[:, None] * (self.U.T @ V))

    def columns(self) -> Tensor:  # -> [P, K]
        """Columns whose outer products add up to the matrix; its weights must not be negative."""
        return self.U * self.weights.sqrt()


def orthonormal_basis(columns: Tensor) -> Tensor:  # [P, K] -> [P, rank]
    """Orthonormal columns with the span of those given, the strongest direction first; none for columns of zeros."""
    Q, R = torch.linalg.qr(columns)  # [P, K], [K, K]
    U, singular, _ = torch.linalg.svd(R)
    smallest = max(100, columns.shape[1]) * torch.finfo(columns.dtype).eps * singular[:1]
    return Q @ U[:, : int((singular > smallest).sum())]


def deflated(A: LinearOperator, eigenvalues: Tensor, U: Tensor) -> LinearOperator:  # [K], [P, K]
    """A - U diag(eigenvalues) U^T: what is left of A once known eigenpairs are taken out."""
    return A - LowRank(U, eigenvalues)


class Projected(LinearOperator):
    """(I - B B^T) A (I - B B^T) for orthonormal columns B: the projection knockout (Definition 3.2)."""

    def __init__(self, A: LinearOperator, B: Tensor):  # B [P, K], orthonormal
        super().__init__(torch.empty(A.dim, dtype=A.dtype, device=A.device))
        self.A, self.B = A, B

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        AV = self.A @ (V - self.B @ (self.B.T @ V))
        return AV - self.B @ (self.B.T @ AV)
