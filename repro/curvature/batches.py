"""The data as a list of batches (inputs, labels), in the one form that everything here takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.curvature import checks
from repro.curvature.inputs import Inputs, Positions, as_tensors, count, form, join, take
from repro.linalg.operator import may_stop

Batches = Iterable[tuple[Inputs, Tensor]]
Unpack = Callable[[Any], tuple[Any, Any]]  # a batch as the data give it -> (inputs, labels)

IGNORED = -100  # the label of what is not part of the mean, as in torch's cross_entropy


def batch_list(data: Any, *, by_position: bool = True) -> list[tuple[Inputs, Tensor]]:
    """Read the data once: a list of batches, a DataLoader, a generator, or a single batch.

    A batch is what `read_batch` takes without `unpack`. Whether inputs and labels fit the model is for
    `repro.curvature.checks`.

    Args:
        by_position: whether labels are of classes, and are brought into the form of `labelled`; targets of other losses
            are not.

    Raises:
        TypeError, ValueError: as `read_batch`, or there is no batch with a label.
    """
    if is_batch(data):
        data = [data]
    if not isinstance(data, Iterable) or isinstance(data, Tensor):
        raise TypeError(f"the data are a {type(data).__name__}: a list of batches (inputs, labels) is needed")
    found = [batch if _is_labelled(batch) else read_batch(batch) for batch in data]
    if by_position:
        found = with_labels(found)
    if not found:
        raise ValueError("no data: a mean over examples needs at least one batch")
    return found


def checked_batches(model: nn.Module, data: Batches) -> Iterator[tuple[Inputs, Tensor]]:
    """The batches one by one, labels as int64.

    Raises:
        TypeError, ValueError: as `batch_list`, and for batches that do not fit the model, see `checks.check_batch`.
    """
    like = next(model.parameters())
    for x, y in batch_list(data):
        may_stop()
        checks.check_batch(x, y, like)
        yield x, y.long()


def is_batch(data: Any) -> bool:
    """Whether the data are one batch rather than several: a mapping, or a pair whose second is labels."""
    return isinstance(data, Mapping) or (_is_pair(data) and (_is_array(data[1]) or _is_plain_list(data[1])))


def read_batch(batch: Any, unpack: Unpack | None = None) -> tuple[Inputs, Tensor]:
    """Inputs and labels of a batch.

    Args:
        batch: a pair (inputs, labels), or a mapping with "labels", of which the rest are the inputs. Inputs are tensors
            or numpy arrays, or mappings, lists and tuples of such.
        unpack: makes such a pair of any other batch.

    Raises:
        TypeError: what comes is no such pair; the sentence says what it is instead.
        ValueError: inputs and labels are of different numbers of examples, or labels are the tokens themselves.
    """
    if unpack is not None:
        found = unpack(batch)
        if not _is_pair(found):
            raise TypeError(f"unpack returns a {type(found).__name__}: a pair (inputs, labels) is needed")
        inputs, labels = found
    elif isinstance(batch, Mapping):
        if "labels" not in batch:
            raise TypeError(
                f"a batch of the data is a mapping of {', '.join(map(str, batch))}, without 'labels': name them so, or"
                " say what they are with unpack=lambda batch: (inputs, labels)"
            )
        inputs, labels = {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]
    elif _is_pair(batch):
        inputs, labels = batch
    else:
        what = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, list | tuple) else type(batch).__name__
        raise TypeError(
            f"a batch of the data is a {what}: a pair (inputs, labels) or a mapping with 'labels' is needed; of other"
            " batches say what they are with unpack=lambda batch: (inputs, labels)"
        )
    if isinstance(labels, int | float) or (_is_array(labels) and labels.ndim == 0):
        raise ValueError("the data give single examples, not batches: put them into torch.utils.data.DataLoader first")
    if not _is_array(labels):
        raise TypeError(f"the labels of a batch are a {type(labels).__name__}: one tensor or numpy array is needed")
    x, y = as_tensors(inputs), as_tensors(labels)
    if not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool):
        y = y.long()  # to unsigned ones -100 is a class
    checks.check_first_axis(x, y)
    if unpack is None and isinstance(x, dict):
        _check_next_token(x, y)
    return x, y


def labelled(x: Inputs, y: Tensor) -> tuple[Inputs, Tensor] | None:
    """A batch without what is labelled −100, with one label for each row of the logits; None if nothing is left.

    Whole numbers with several axes [B, ...] are labels of positions, see `repro.curvature.inputs.Positions`.
    """
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        return x, y
    known = y != IGNORED
    some = known.flatten(1).any(dim=1) if y.ndim > 1 else known
    if len(y) and not bool(some.all()):
        if not bool(some.any()):
            return None
        x, y, known = take(x, some), y[some], known[some]
    return (x, y) if y.ndim == 1 else (Positions(x, known), y[known])


def with_labels(batches: Iterable[tuple[Inputs, Tensor]]) -> list[tuple[Inputs, Tensor]]:
    """Each batch in the form of `labelled`; without those in which nothing is labelled."""
    found = (batch if _is_labelled(batch) else labelled(*batch) for batch in batches)
    return [batch for batch in found if batch is not None]


def _check_next_token(x: Mapping[Any, Tensor], y: Tensor) -> None:
    tokens = x.get("input_ids")
    if isinstance(tokens, Tensor) and y.ndim > 1 and tokens.shape == y.shape:
        known = y != IGNORED
        if bool(known.any()) and torch.equal(tokens[known], y[known].to(tokens)):
            raise ValueError(
                "the labels are the input_ids themselves, which a causal language model shifts by one inside its own"
                " loss; here each label belongs to the logits at its own position: shift them with unpack=..., so that"
                " each position has the token after it, and -100 where there is none"
            )


def _is_labelled(batch: Any) -> bool:
    """Whether a batch is in the form of `labelled` already."""
    return _is_pair(batch) and isinstance(batch[0], Positions)


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) == 2


def _is_plain_list(x: Any) -> bool:
    return isinstance(x, list) and bool(x) and isinstance(x[0], int)


def _is_array(x: Any) -> bool:
    return isinstance(x, Tensor) or type(x).__module__ == "numpy"


def by_class(data: Batches, classes: Collection[int] | None = None) -> Iterator[tuple[int, Inputs]]:
    """Regroup batches so that each has rows of one class alone: yields (class, inputs), about as large as they came.

    Rows of other classes than `classes`, by default all, are left out.

    An example with positions of several classes is in the batches of each, with the positions of that class alone.
    """
    waiting: dict[tuple[int, Hashable], list[Inputs]] = {}  # of one class, and of one form
    for x, y in data:
        for c in y.unique().tolist():
            if classes is not None and c not in classes:
                continue
            own = _of_class(x, y == c)
            examples = waiting.setdefault((c, form(own)), [])
            examples.append(own)
            if sum(map(count, examples)) >= count(x):
                may_stop()
                yield c, join(waiting.pop((c, form(own))))
    for (c, _), examples in sorted(waiting.items(), key=lambda item: item[0][0]):
        may_stop()
        yield c, join(examples)


def _of_class(x: Inputs, own: Tensor) -> Inputs:  # own [rows] bool
    if not isinstance(x, Positions) or x.chosen.dtype != torch.bool:
        return take(x, own)
    chosen = torch.zeros_like(x.chosen).masked_scatter(x.chosen, own)
    return take(Positions(x.inputs, chosen), chosen.flatten(1).any(dim=1))


def spread_examples(data: Sequence[tuple[Inputs, Tensor]], wanted: int) -> Inputs:  # of at most `wanted` examples
    """Inputs spread evenly over the data; where batches differ in their inputs' form, those the first begins with."""
    first = data[0][0]
    if any(form(x) != form(first) for x, _ in data):
        return take(first, slice(0, wanted))
    total, begin = sum(count(x) for x, _ in data), 0
    places = sorted({i * total // wanted for i in range(wanted)})
    found: list[Inputs] = []
    for x, _ in data:
        if here := [i - begin for i in places if begin <= i < begin + count(x)]:
            found.append(take(x, here))
        begin += count(x)
    return join(found)
