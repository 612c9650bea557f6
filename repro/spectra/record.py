"""The record of a spectrum: what a measurement stores of one matrix, and what figures and claims read (numpy only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
PARTS = ("nodes", "weights", "eigenvalues", "residuals", "converged", "deflated", "dim")


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The spectrum of a symmetric P x P matrix: its leading eigenvalues, and a quadrature of all of them.

    A row of `nodes` and `weights` is one estimate of the spectral density: `weights[l, m]` is the share of the P
    eigenvalues that lies near `nodes[l, m]`, so each row of weights sums to one and a single eigenvalue has mass 1/P.
    A row begins with the eigenvalues that are taken out of the density (`deflated`), in their order, each with its
    exact mass 1/P; then comes the quadrature of all other eigenvalues; then, where a Lanczos run ended early, zeros of
    weight zero. What has not converged, or may have a copy, stays in the quadrature, whose mass counts copies.

    For a plain density, without eigenvalues taken out of it, k is 0.

    >>> found = Spectrum.exact([4.0, 1.0, 2.0, 1.0], k=1)
    >>> found.eigenvalues, found.nodes, found.trace
    (array([4.]), array([[4., 2., 1., 1.]]), 8.0)
    >>> found.bulk().nodes
    array([[2., 1., 1.]])
    """

    nodes: Array  # [probes, M]
    weights: Array  # [probes, M]
    eigenvalues: Array  # [k]  largest magnitude first
    residuals: Array  # [k]  |A u - lambda u| for the unit eigenvector u, absolute
    converged: NDArray[np.bool_]  # [k]  residual within the tolerance, and no larger eigenvalue was seen elsewhere
    deflated: NDArray[np.bool_]  # [k]
    dim: int  # P

    @classmethod
    def density(cls, nodes: ArrayLike, weights: ArrayLike, dim: int) -> Spectrum:  # [probes, M] or [M]
        """A quadrature alone (k = 0)."""
        none = np.zeros(0)
        no = none.astype(bool)
        return cls(np.atleast_2d(nodes), np.atleast_2d(weights), none, none, no, no, dim)

    @classmethod
    def exact(cls, eigenvalues: ArrayLike, *, k: int, dim: int | None = None, length: int = 0) -> Spectrum:
        """The spectrum of a matrix whose eigenvalues are known.

        Args:
            eigenvalues: in any order. If they are fewer than `dim`, the others are zero.
            k: how many of the leading ones the record names; all count as converged.
            dim: P, by default the number of `eigenvalues`.
            length: rows are filled up to this M, on which the width of the smoothing depends when a curve is drawn.
        """
        values = np.asarray(eigenvalues, dtype=float)
        values = values[np.argsort(-np.abs(values), kind="stable")]
        dim, rank, top = dim or len(values), len(values), values[:k]
        nodes, weights = np.zeros((2, 1, max(length, rank + (rank < dim))))
        nodes[0, :rank], weights[0, :rank] = values, 1 / dim
        if rank < dim:
            weights[0, rank] = 1 - rank / dim
        every = np.ones(len(top), dtype=bool)
        return cls(nodes, weights, top, np.zeros(len(top)), every, every, dim)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays that a measurement stores, named <name>_nodes, _weights, _eigenvalues, _residuals, ..., _dim."""
        return {f"{name}_{part}": np.asarray(getattr(self, part)) for part in PARTS}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], name: str, *, at: int | None = None, dim: int | None = None
    ) -> Spectrum:
        """The spectrum called `name` among the arrays of a stored result.

        Args:
            at: index of a checkpoint, for a spectrum that was stored by `stack`.
            dim: P, where the result stores none for this spectrum, as some results of before do.

        Raises:
            KeyError: the result holds no such spectrum.
        """
        found = {part: arrays[f"{name}_{part}"] for part in PARTS if f"{name}_{part}" in arrays}
        dim = int(found.pop("dim")) if "dim" in found else dim
        if "nodes" not in found or "weights" not in found or dim is None:
            raise KeyError(name)
        if at is not None:
            found = {part: values[at] for part, values in found.items()}
        eigenvalues = found.setdefault("eigenvalues", np.zeros(0))
        found.setdefault("residuals", np.zeros(len(eigenvalues)))
        found.setdefault("converged", np.zeros(len(eigenvalues), dtype=bool))
        found.setdefault("deflated", found["converged"])  # results of before took out all that had converged
        return cls(**found, dim=dim)

    @staticmethod
    def names(arrays: Mapping[str, np.ndarray]) -> list[str]:
        """Names of the spectra that a stored result holds."""
        found = [key.removesuffix("_nodes") for key in arrays if key.endswith("_nodes")]
        return [name for name in found if f"{name}_dim" in arrays]

    def bulk(self) -> Spectrum:
        """What is left without the K eigenvalues taken out: a density whose rows sum to 1 - K/P."""
        count = int(self.deflated.sum())
        return Spectrum.density(self.nodes[:, count:], self.weights[:, count:], self.dim)

    def named(self, eigenvalues: ArrayLike) -> Spectrum:  # [k]
        """The same with leading eigenvalues that are known exactly from elsewhere; the quadrature stays."""
        values = np.asarray(eigenvalues, dtype=float)
        converged, deflated = np.zeros((2, len(values)), dtype=bool)
        converged[: len(self.converged)] = self.converged
        deflated[: len(self.deflated)] = self.deflated
        return Spectrum(self.nodes, self.weights, values, np.zeros(len(values)), converged, deflated, self.dim)

    @property
    def steps(self) -> int:
        """M, the number of nodes of one estimate."""
        return self.nodes.shape[1]

    @property
    def largest(self) -> float:
        """The largest magnitude of a node that carries mass; zero if there is none."""
        return float(np.abs(self.nodes[self.weights > 0]).max(initial=0))

    def moment(self, power: int) -> float:
        """tr A^power / P, the mean over the probes."""
        return float((self.weights * self.nodes**power).sum() / len(self.nodes))

    @property
    def trace(self) -> float:
        """tr A, the sum of all eigenvalues."""
        return self.dim * self.moment(1)


def stack(checkpoints: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of T checkpoints, such as those of `Spectrum.arrays`, with a first axis T, but one dim.

    Where a Lanczos run ended early rows are filled up with zeros, which carry no weight and have not converged.
    """
    first = checkpoints[0]
    return {
        name: first[name] if name.endswith("dim") else _padded([arrays[name] for arrays in checkpoints])
        for name in first
    }


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays that differ in the length of their last axis, as one array; filled up with zeros (False)."""
    if rows[0].ndim == 0:
        return np.array(rows)
    table = np.zeros((len(rows), *rows[0].shape[:-1], max(row.shape[-1] for row in rows)), dtype=rows[0].dtype)
    for line, row in zip(table, rows):
        line[..., : row.shape[-1]] = row
    return table
