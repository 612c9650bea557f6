"""Training or test data: read once, in their order, and held on the model's device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset

from repro.curvature.batches import Unpack, is_batch, read_batch, with_labels
from repro.curvature.inputs import Inputs, form, join, split, take


class Examples(NamedTuple):
    """All examples, and one label for each or one for each of their positions.

    >>> held = read_examples((torch.zeros(5, 2), torch.tensor([0, 1, 0, -100, 1])), torch.device("cpu"), 2)
    >>> held.labels  # -100 is no label
    tensor([0, 1, 0, 1])
    >>> [len(x) for x, _ in held.batches(2)]
    [2, 1, 1]
    """

    parts: list[tuple[Inputs, Tensor]]  # labels [n], or [n, ...] of positions; one part for each form of inputs
    by_position: bool = True  # whether labels are of classes, see `repro.curvature.batches.batch_list`

    @property
    def inputs(self) -> Inputs:
        """Of all examples.

        Raises:
            ValueError: they are not of one form, as texts are that each batch pads to a length of its own.
        """
        if len(self.parts) > 1:
            raise ValueError("the inputs differ in their shapes from batch to batch, and cannot be one tensor")
        return self.parts[0][0]

    @property
    def labels(self) -> Tensor:  # [N]
        """One for each row of the logits."""
        return torch.cat([y for _, y in self.batches(len(self.parts[0][1]))])

    def batches(self, size: int) -> list[tuple[Inputs, Tensor]]:
        """Consecutive examples, at most `size` at a time, with labels for the rows of their logits."""
        found = [pair for x, y in self.parts for pair in zip(split(x, size), y.split(size), strict=True)]
        return with_labels(found) if self.by_position else found

    def to(self, device: torch.device) -> Examples:
        """The same on another device."""
        return self._replace(parts=tree_map(lambda leaf: leaf.to(device), self.parts))

    def first_of_each_class(self, wanted: int) -> Examples:
        """The first `wanted` examples of each class; fewer where a class has not so many.

        Raises:
            ValueError: examples have labels at several positions, or inputs are not of one form.
        """
        y = self.parts[0][1]
        if y.ndim > 1:
            raise ValueError(
                "test_per_class takes some examples of each class, but these have labels at several positions each: set"
                " test_per_class to None, in exact_spectrum to 0"
            )
        x, chosen = self.inputs, torch.cat([(y == c).nonzero()[:wanted, 0] for c in y.unique()]).sort().values
        return Examples([(take(x, chosen), y[chosen])])


def read_examples(
    data: Any, device: torch.device, batch_size: int, unpack: Unpack | None = None, *, by_position: bool = True
) -> Examples:
    """Data in any form: tensors (inputs, labels), a mapping with "labels", a Dataset, a DataLoader, a list of batches.

    Args:
        batch_size: for a Dataset.
        unpack: makes (inputs, labels) of what each batch is, see `repro.curvature.batches.read_batch`.
        by_position: whether labels are of classes, see `repro.curvature.batches.batch_list`.

    Raises:
        TypeError: data in another form; the sentence says what is needed.
        ValueError: a loader that leaves examples out, images as bytes, or no data.
    """
    parts: list[tuple[list[Inputs], list[Tensor]]] = []
    before = None
    try:
        for batch in _batches(data, batch_size, unpack):
            x, y = tree_map(lambda leaf: leaf.to(device), read_batch(batch, unpack))
            if isinstance(x, Tensor) and x.dtype == torch.uint8:
                raise ValueError(
                    "the inputs are uint8: convert them to the model's dtype as in its training (ToTensor, ...)"
                )
            here = form((x, y))
            if here != before:
                parts.append(([], []))
                before = here
            parts[-1][0].append(x)
            parts[-1][1].append(y)
    except TypeError as error:
        if "default_collate" not in str(error):
            raise
        raise TypeError(f"{error}; give the data set a transform that makes tensors, ToTensor() for images") from error
    held = Examples([(join(inputs), torch.cat(labels)) for inputs, labels in parts], by_position)
    if not held.parts or not held.batches(batch_size):
        raise ValueError("no data: a mean over examples needs at least one batch, and a label other than -100")
    return held


def _batches(data: Any, batch_size: int, unpack: Unpack | None) -> Iterable[Any]:
    """Data in any of the accepted forms as batches."""
    if isinstance(data, DataLoader):
        if data.drop_last:
            raise ValueError(
                "the loader has drop_last=True, so the mean would leave examples out: pass its data set instead"
            )
        return data
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=batch_size)
    if is_batch(data) or (unpack is not None and isinstance(data, Tensor | tuple)):
        return [data]
    if isinstance(data, Iterable) and not isinstance(data, Tensor | str):
        return data
    raise TypeError(
        f"the data are a {type(data).__name__}: tensors (inputs, labels), a mapping with 'labels', a Dataset, a"
        " DataLoader or a list of batches are needed"
    )
