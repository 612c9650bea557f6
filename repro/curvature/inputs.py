"""What a network takes: one tensor, or dicts, lists and tuples of tensors, all with the examples as their first axis.

Everything in `repro.curvature` handles inputs through the functions below, so that it does not matter which they are.
Where a network has logits at several positions of an example, and some or all of them are labelled (the tokens of a
text, the pixels of an image), inputs come as `Positions`; then the logits have one row for each labelled position, and
a mean over rows is a mean over labelled positions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

Inputs = Any  # a tensor [B, ...]; a dict, list or tuple of such, of any nesting; or `Positions`


class Positions(NamedTuple):
    """Inputs of a network with logits at several positions, and at which of them it is measured."""

    inputs: Inputs  # of B examples
    # [B, ...] bool, one entry for each position: those that are measured; or [B] int64: one position of each example,
    # by its place among all of them in row-major order
    chosen: Tensor


def as_tensors(x: Any, where: str = "") -> Inputs:
    """The same with numpy arrays as tensors and mappings as dicts, without their graphs.

    Raises:
        TypeError: something else is among them; the sentence says where.
    """
    if isinstance(x, Tensor) and x.layout != torch.strided:
        raise TypeError(f"the inputs of a batch{where and f', at {where},'} are sparse: make them dense, x.to_dense()")
    if isinstance(x, Tensor):
        return x.clone() if x.is_inference() else x.detach()
    if type(x).__module__ == "numpy" and hasattr(x, "dtype") and x.dtype.kind in "biufc":
        return torch.as_tensor(x.copy())  # one that may be written to, whose strides torch knows
    if isinstance(x, Mapping) and x:
        return {key: as_tensors(value, f"{where}[{key!r}]") for key, value in x.items()}
    if isinstance(x, list | tuple) and x:
        parts = [as_tensors(value, f"{where}[{i}]") for i, value in enumerate(x)]
        return parts if isinstance(x, list) else tuple(parts)
    raise TypeError(
        f"the inputs of a batch{where and f', at {where},'} are of type {type(x).__name__}: tensors or numpy arrays are"
        " needed, with the examples as first axis; choose what the model takes with unpack=..."
    )


def count(x: Inputs) -> int:
    """B, how many examples there are."""
    return len(tree_leaves(x)[0])


def rows(x: Inputs) -> int:
    """How many rows the logits have: one for each example, or for each position that is measured."""
    return int(x.chosen.sum()) if isinstance(x, Positions) and x.chosen.dtype == torch.bool else count(x)


def take(x: Inputs, index: Any) -> Inputs:
    """Some of the examples: a slice, a mask [B] or indices."""
    return x[index] if isinstance(x, Tensor) else tree_map(lambda leaf: leaf[index], x)


def split(x: Inputs, size: int) -> list[Inputs]:
    """Consecutive examples, at most `size` at a time."""
    return [take(x, slice(first, first + size)) for first in range(0, count(x), size)]


def join(parts: Sequence[Inputs]) -> Inputs:
    """Examples of the same form, one after the other."""
    return tree_map(lambda *leaves: torch.cat(leaves), *parts)


def form(x: Inputs) -> Hashable:
    """What two inputs must have in common to be joined: how they are nested, and what one example looks like."""
    leaves, nesting = tree_flatten(x)
    return repr(nesting), tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)


def describe(x: Inputs) -> str:
    """Shapes, for people."""
    return str(tree_map(lambda leaf: list(leaf.shape), x.inputs if isinstance(x, Positions) else x))


def one_row_each(x: Inputs) -> Inputs:
    """The same rows of logits from as many examples: each is repeated for each of its positions that are measured."""
    if not isinstance(x, Positions) or x.chosen.dtype != torch.bool:
        return x
    example, position = x.chosen.flatten(1).nonzero(as_tuple=True)
    return Positions(take(x.inputs, example), position)
