"""What a matrix was computed from, so that parts of one are not taken from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Origin(NamedTuple):
    """A few numbers by which a network at its weights and the data are recognised."""

    names: tuple[str, ...]  # of the parameters chosen
    weights: Tensor  # [2, tensors] norms and sums of all parameters and buffers
    counts: Tensor  # [C] examples of each class
    mass: Tensor  # [C, C] 1/N Σ_i p_{i,k} over the examples of class c at (c, k)

    def check_same(self, other: Origin) -> None:
        """Refuse another origin.

        Raises:
            ValueError: the sentence says what differs.
        """
        if self.names != other.names:
            raise ValueError(_sentence("parameters"))
        if self.weights.shape != other.weights.shape or not torch.allclose(self.weights, other.weights, rtol=1e-9):
            raise ValueError(_sentence("weights"))
        allowed = torch.finfo(self.mass.dtype).eps ** 0.25  # probabilities are as accurate as the logits, absolutely
        tiny = torch.finfo(self.mass.dtype).tiny
        same = self.mass.shape == other.mass.shape and torch.equal(self.counts, other.counts)
        if not (same and torch.allclose((self.mass + tiny).log(), (other.mass + tiny).log(), rtol=0, atol=allowed)):
            raise ValueError(_sentence("data"))


def origin_of(names: Sequence[str], tensors: Mapping[str, Tensor], counts: Tensor, mass: Tensor) -> Origin:
    """The origin of a matrix over the parameters `names` of a network with these parameters and buffers."""
    found = [tensor.detach().double() for tensor in tensors.values() if not tensor.is_complex()]
    sizes = [torch.stack([tensor.norm(), tensor.sum()]) for tensor in found]
    return Origin(tuple(names), torch.stack(sizes, dim=1), counts, mass)


def _sentence(what: str) -> str:
    return f"G and the class structure are of different {what}: compute both of one network, with the same arguments"
