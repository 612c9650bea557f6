"""The data as a list of batches (inputs, labels)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.curvature import checks

Batches = Iterable[tuple[Tensor, Tensor]]


def batch_list(data: Any) -> list[tuple[Tensor, Tensor]]:
    """Read the data once: a list of batches, a DataLoader, a generator, or a single batch (inputs, labels).

    Whether inputs and labels fit the model is for `repro.curvature.checks`.

    Raises:
        TypeError: what comes is no pair of tensors; the sentence says what it is instead.
        ValueError: there is no batch.
    """
    if _is_pair(data) and all(isinstance(part, Tensor) for part in data):
        data = [data]
    if not isinstance(data, Iterable) or isinstance(data, Tensor):
        raise TypeError(f"the data are a {type(data).__name__}: a list of batches (inputs, labels) is needed")
    found = [_checked_pair(batch) for batch in data]
    if not found:
        raise ValueError("no data: a mean over examples needs at least one batch")
    return found


def checked_batches(model: nn.Module, data: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches one by one, labels as int64.

    Raises:
        TypeError, ValueError: as `batch_list`, and for batches that do not fit the model, see `checks.check_batch`.
    """
    like = next(model.parameters())
    for x, y in batch_list(data):
        checks.check_batch(x, y, like)
        yield x, y.long()


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) == 2


def _checked_pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not _is_pair(batch):
        raise TypeError(
            f"a batch of the data is a {type(batch).__name__}: a pair of tensors (inputs, labels) is needed"
        )
    for part, name in zip(batch, ("inputs", "labels")):
        if isinstance(part, Tensor):
            continue
        advice = "one tensor is needed"
        if type(part).__module__ == "numpy":
            advice = "convert them with torch.from_numpy"
        elif name == "inputs":
            advice = "wrap the model in a module whose forward takes one tensor, and give that"
        raise TypeError(f"the {name} of a batch are a {type(part).__name__}: {advice}")
    x, y = (part.clone() if part.is_inference() else part.detach() for part in batch)
    return x, y


def by_class(data: Batches) -> Iterator[tuple[int, Tensor]]:
    """Regroup batches so that each holds one class alone: yields (class, inputs), about as large as they came."""
    waiting: dict[int, list[Tensor]] = {}
    for x, y in data:
        for c in y.unique().tolist():
            waiting.setdefault(c, []).append(x[y == c])
            if sum(map(len, waiting[c])) >= len(x):
                yield c, torch.cat(waiting.pop(c))
    for c in sorted(waiting):
        yield c, torch.cat(waiting[c])


def spread_examples(data: Sequence[tuple[Tensor, Tensor]], wanted: int) -> Tensor:  # -> [b, ...], b at most `wanted`
    """Inputs spread evenly over the data; where batches differ in their inputs' shape, those the first begins with."""
    first = data[0][0]
    if any(x.shape[1:] != first.shape[1:] or x.dtype != first.dtype for x, _ in data):
        return first[:wanted]
    total, begin = sum(len(x) for x, _ in data), 0
    places = sorted({i * total // wanted for i in range(wanted)})
    rows: list[Tensor] = []
    for x, _ in data:
        rows += [x[i - begin] for i in places if begin <= i < begin + len(x)]
        begin += len(x)
    return torch.stack(rows)
