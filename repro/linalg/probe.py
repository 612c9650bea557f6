"""Random probes of an operator: reproducible random vectors, and the check of symmetry that every run makes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repro.linalg.operator import LinearOperator

CHUNK = 1 << 16  # coordinates at a time


def random_vectors(A: LinearOperator, columns: int, generator: torch.Generator) -> Tensor:  # -> [P, K]
    """Independent columns ~ N(0, I), in the dtype and on the device of A.

    Drawn on the CPU in float64, so that a seed means the same vectors on every device and in either precision.
    """
    V = torch.empty(columns, A.dim, dtype=A.dtype, device=A.device)
    for row in V:
        row.copy_(torch.randn(A.dim, dtype=torch.float64, generator=generator))
    return V.T


def random_signs(A: LinearOperator, generator: torch.Generator) -> Tensor:  # -> [P]
    """Independent entries of 1 and −1 with even chances, in the dtype and on the device of A; drawn on the CPU."""
    bits = torch.randint(2, (A.dim,), dtype=torch.int8, generator=generator).to(A.device)
    return bits.to(A.dtype).mul_(2).sub_(1)


def inner(u: Tensor, v: Tensor) -> float:  # [P], [P]
    """<u, v>, added up in float64: over millions of coordinates a float32 sum on the CPU keeps only four digits.

    There in chunks that stay in the cache, in a sixth of the time that it takes to convert whole vectors.
    """
    if u.device.type != "cpu":
        return float((u * v).sum(dtype=torch.float64))
    return sum(torch.dot(a.double(), b.double()).item() for a, b in zip(u.split(CHUNK), v.split(CHUNK)))


def norm(v: Tensor) -> float:  # [P]
    """|v|, its squares added up in float64 for the same reason."""
    return math.sqrt(inner(v, v)) if v.device.type == "cpu" else float(torch.linalg.vector_norm(v, dtype=torch.float64))


def random_unit_vector(A: LinearOperator, generator: torch.Generator) -> Tensor:  # -> [P]
    """A direction distributed uniformly on the sphere."""
    v = random_vectors(A, 1, generator)[:, 0]
    return v / norm(v)


def check_pair(A: LinearOperator, left: float, right: float, size: float) -> None:
    """Compare <u, A v> with <v, A u>, which a run has computed anyway; `size` is |A u| + |A v|.

    Raises:
        ValueError: A v is not finite, or A is not one fixed symmetric matrix to half the working precision. An operator
            that changes between products (active dropout, batch norm in train mode) is caught as well.
    """
    if not (math.isfinite(left) and math.isfinite(right)):
        raise ValueError(f"{A.name}: a product with a random vector is not finite; look for a non-finite loss")
    if abs(left - right) > torch.finfo(A.dtype).eps ** 0.5 * size:
        raise ValueError(
            f"{A.name} is not one fixed symmetric matrix: <u, A v> = {left:.6g} but <v, A u> = {right:.6g}; "
            "every product must use the same data, parameters and masks"
        )
