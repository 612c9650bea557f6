"""The learning rates and sample sizes of a sweep by index (Papyan 2020, Appendix D: certain)."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LearningRates:
    """`count` log-spaced learning rates; the first, of index 0, is the highest."""

    highest: float
    lowest: float
    count: int

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.highest or self.count < 1:
            raise ValueError(
                f"learning_rates: highest={self.highest:g}, lowest={self.lowest:g}, count={self.count} make no grid; "
                "rates fall from highest to lowest, both above 0, and there is at least one"
            )

    def rate(self, index: int) -> float:
        """The learning rate of an index.

        Raises:
            ValueError: it is outside the grid.
        """
        if not 0 <= index < self.count:
            raise ValueError(
                f"lr_index {index} is outside the grid of {self.count} learning rates (0 to {self.count - 1})"
            )
        return _log_spaced(self.highest, self.lowest, self.count)[index]

    def indices(self, choice: int | str) -> list[int]:
        """The indices that a value of lr_index names: one (7), a range with both ends (0-24), a part (2of4) or all.

        The parts of a grid are as even as can be and cover it, however many rates it has; a part may be empty where
        there are more parts than rates.

        Raises:
            ValueError: not of that form, or an index outside the grid.
        """
        text = str(choice)
        if text == "all":
            return list(range(self.count))
        if part := re.fullmatch(r"(\d+)of(\d+)", text):
            number, parts = int(part[1]), int(part[2])
            if not 1 <= number <= parts:
                raise ValueError(f"lr_index={text}: the parts are 1of{parts} to {parts}of{parts}")
            return np.array_split(np.arange(self.count), parts)[number - 1].tolist()
        if not (span := re.fullmatch(r"(\d+)(?:-(\d+))?", text)):
            raise ValueError(f"lr_index={text} is not an index, a range such as 0-24, a part such as 1of4, or 'all'")
        first, last = int(span[1]), int(span[2] or span[1])
        if last < first or last >= self.count:
            raise ValueError(
                f"lr_index={text} is outside the grid of {self.count} learning rates (0 to {self.count - 1}); "
                "parts such as 1of4 fit any grid"
            )
        return list(range(first, last + 1))


@functools.cache
def _log_spaced(highest: float, lowest: float, count: int) -> list[float]:
    rates = np.logspace(np.log10(highest), np.log10(lowest), count)
    return [float(f"{rate:.12g}") for rate in rates]  # numpy's last bit depends on the CPU, a run's identity must not


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
