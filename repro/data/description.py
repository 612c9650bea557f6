"""What is to be known of a data set before it is read: its files conf/data/<name>.yaml are of this form."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from repro.data.subsets import paper_sizes


@dataclass(frozen=True)
class DataSet:
    """A data set; the keys of conf/data/<name>.yaml.

    Adding one takes such a file and a reader, a function that can be imported as `module:function`:
    (root: Path, *, train: bool, download: bool) -> images uint8 [N, channels, H, W], labels integer [N].
    """

    name: str  # of its file, and of folders of results
    title: str  # for people
    reader: str  # module:function
    classes: int
    channels: int
    side: int  # height and width in pixels of the images that networks see, padding included
    pad: int  # width of the border of zero (black) pixels that is put around the images as read
    mean: list[float]  # of each channel, of pixels in [0, 1]; subtracted, and divided by std, AFTER padding
    std: list[float]
    subset_seed: int  # of the draw of n examples per class (0 in the paper)
    examples_per_class: int  # training examples of the rarest class: no subset can have more
    largest_size: int  # the paper's subsets have 20 sizes, log-spaced from 10 to this many examples per class
    test_examples: int  # in the whole test set
    paper_epochs: int  # for how many epochs the paper trains on it

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"{self.name}: mean {self.mean} and std {self.std} must have {self.channels} values each")

    @property
    def sizes(self) -> list[int]:
        """The paper's subsets that there are enough examples for; `n_per_class: size3` means sizes[3]."""
        return [size for size in paper_sizes(self.largest_size) if size <= self.examples_per_class]

    def find_reader(self) -> Callable[..., Any]:
        """The function that `reader` names.

        Raises:
            ValueError: it cannot be imported.
        """
        try:
            if not callable(reader := pkgutil.resolve_name(self.reader)):
                raise ValueError("it is no function")
            return reader
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"data set {self.name!r}: its reader {self.reader!r} cannot be imported: {error}; a reader is "
                "module:function, and the module's folder must be on the Python path (PYTHONPATH=...)"
            ) from error

    def check_subset(self, n_per_class: int) -> None:
        """Refuse more examples per class than there are.

        Raises:
            ValueError: naming both.
        """
        if n_per_class > self.examples_per_class:
            raise ValueError(
                f"n_per_class={n_per_class}, but {self.title} has only {self.examples_per_class} training examples in "
                f"its smallest class; n_per_class can be at most that"
            )
