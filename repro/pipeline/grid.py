"""The learning rates and sample sizes of a sweep by index (Papyan 2020, Appendix D: certain)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def learning_rate(index: int, *, highest: float, lowest: float, count: int) -> float:
    """The `index`-th of `count` log-spaced rates, 0 being the highest."""
    if not 0 <= index < count:
        raise ValueError(f"lr_index {index} is outside the grid of {count} learning rates (0 to {count - 1})")
    rate = np.logspace(np.log10(highest), np.log10(lowest), count)[index]
    return float(f"{rate:.12g}")  # numpy's last bit depends on the CPU, a run's identity must not


def learning_rate_indices(choice: int | str, count: int) -> list[int]:
    """The indices that a value of lr_index names: one ('7'), a range with both ends ('0-24') or 'all'.

    A range is cut at the end of the grid, so that one list of ranges serves networks with fewer rates.

    Raises:
        ValueError: not of that form, or an index outside the grid.
    """
    text = str(choice)
    if text == "all":
        return list(range(count))
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
        raise ValueError(f"lr_index={text} is not an index, a range such as 0-24, or 'all'")
    if not dash and int(first) >= count:
        raise ValueError(f"lr_index {first} is outside the grid of {count} learning rates (0 to {count - 1})")
    return list(range(int(first), min(int(last or first) + 1, count)))


def sample_size(choice: int | str, sizes: Sequence[int]) -> int:
    """Training examples per class that a value of n_per_class names: a number, or 'size3' for the data set's sizes[3].

    Raises:
        ValueError: neither, or beyond the end of the list.
    """
    text = str(choice)
    if text.isdigit() and int(text) > 0:
        return int(text)
    index = text.removeprefix("size")
    if text.startswith("size") and index.isdigit() and int(index) < len(sizes):
        return sizes[int(index)]
    raise ValueError(
        f"n_per_class={text} is neither a positive number nor one of its data set's size0 to size{len(sizes) - 1}"
    )
