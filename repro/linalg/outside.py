"""What lies outside of eigenvectors that are known: the largest eigenvalue there, seen from a start of its own.

A Krylov space holds one direction of each eigenspace, that of its start: it misses the other copies of a repeated
eigenvalue, and a basis that is restarted may pass an eigenvalue by. A second run on the orthogonal complement of what
was found, from an independent start, sees both.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from repro.linalg.lanczos import orthogonalise, recurrence, tridiagonal
from repro.linalg.operator import LinearOperator
from repro.linalg.probe import norm, random_unit_vector

Order = Literal["magnitude", "largest"]

CERTAINTY = 0.99  # with which `outer_bounds` hold (ours)


class Outside(NamedTuple):
    """The largest eigenvalue on the complement of known vectors, in the order asked for (|value|, or the value)."""

    seen: float  # there is one as large as this; -inf if there is no complement
    likely: float  # and it is hardly larger than this: by the residual of the Ritz pair that was seen
    vector: Tensor | None  # [P]  its unit eigenvector, if it converged and is larger than what was asked about


def size(values: Tensor, by: Order) -> Tensor:
    """By what eigenvalues are ordered: the absolute value, or the value itself."""
    return values.abs() if by == "magnitude" else values


def outer_bounds(low: float, high: float, steps: int, dim: int) -> tuple[float, float]:
    """Where all eigenvalues lie, with probability CERTAINTY, if Lanczos saw [low, high] from a start on the sphere.

    Kuczyński and Woźniakowski (1992): the largest Ritz value after M steps is off by less than ε times the range of the
    spectrum with probability 1 − 1.648 √P exp(−√ε (2 M − 1)), whatever the matrix; likewise the smallest.
    """
    chance = (1 - CERTAINTY) / 2
    epsilon = (math.log(1.648 * math.sqrt(dim) / chance) / (2 * steps - 1)) ** 2
    if epsilon >= 0.5:
        return -math.inf, math.inf
    room = epsilon / (1 - 2 * epsilon) * (high - low)
    return low - room, high + room


def look_outside(
    A: LinearOperator,
    U: Tensor,
    generator: torch.Generator,
    *,
    by: Order,
    beyond: float,
    certain: float,
    steps: int,
    tolerance: float,
    scale: float,
) -> Outside:  # U [K, P]
    """Lanczos on the complement of the orthonormal rows of U, without a basis, until something is known.

    It ends where nothing outside is larger than `certain`, with probability CERTAINTY, or after `steps` products. Where
    it sees an eigenvalue larger than `beyond`, it goes on, for 4 `steps` at most, until that one has converged, and as
    many products again give its vector. `scale` is the norm of A.
    """
    free = A.dim - len(U)
    if free == 0:
        return Outside(-math.inf, -math.inf, None)
    start = random_unit_vector(A, generator)
    alpha: list[float] = []
    beta: list[float] = []
    for step in islice(recurrence(A, start, orthogonal_to=U, scale=scale), 4 * steps):
        alpha.append(step.alpha)
        beta.append(step.beta)
        values, Y = tridiagonal(alpha, beta).eigh()
        order = size(values, by)
        top = int(order.argmax())
        seen, residual = float(order[top]), beta[-1] * abs(float(Y[-1, top]))
        converged = residual <= tolerance * abs(float(values[top]))
        ends = torch.tensor(outer_bounds(float(values[0]), float(values[-1]), len(alpha), free), dtype=torch.float64)
        bound = float(size(ends, by).max())
        if bound <= certain or (converged if seen > beyond else len(alpha) >= steps):
            break
    else:
        converged |= len(alpha) < 4 * steps  # the Krylov space is exhausted: every eigenvalue outside is a Ritz value
    vector = _ritz_vector(A, start, U, scale, Y[:, top]) if converged and seen > beyond else None
    return Outside(seen, seen + residual, vector)


def _ritz_vector(A: LinearOperator, start: Tensor, U: Tensor, scale: float, y: Tensor) -> Tensor:  # y [M] -> [P]
    """The same run again, its vectors added up."""
    total = torch.zeros_like(start)
    for weight, step in zip(y.tolist(), recurrence(A, start, orthogonal_to=U, scale=scale)):
        total += weight * step.q
    total = orthogonalise(total, U)
    return total / norm(total)
