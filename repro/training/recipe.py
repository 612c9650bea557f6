"""How one network is trained: SGD, step decay, batch order (Papyan 2020, Appendix D; Section 4 of its experiments)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # a recipe is read without torch, which takes seconds to load
    from torch import Tensor

PRECISIONS = ("fp32", "tf32", "bf16")
LAST_BATCHES = ("keep", "drop", "join")


class Scores(NamedTuple):
    """Mean cross-entropy (None: not finite) and fraction of errors of one network on one data set."""

    loss: float | None
    error: float


def scores(loss: float, error: float) -> Scores:
    """The scores of a network whose loss may be NaN or infinite."""
    return Scores(loss if math.isfinite(loss) else None, error)


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum and step decay; the keys of conf/training/*.yaml.

    The learning rate is multiplied by `factor` from epoch max(1, floor(m * epochs)) on, for each fraction m of
    `milestones` (epochs counted from 0, so 200 epochs drop after 66 and after 133).
    `evaluate` says after which epochs losses and errors are measured: "last", a list of epochs, or a number of
    log-spaced epochs. The last epoch is always measured.
    `last_batch` says what becomes of an epoch's last batch where it is smaller than the others: "keep" it, as PyTorch's
    DataLoader does by default, "drop" it (the epoch then misses some examples, others each time), or "join" it to the
    batch before. Batch norm keeps the statistics of that batch, so a few examples in it spoil them.
    """

    epochs: int
    batch_size: int
    momentum: float
    weight_decay: float  # added to the gradient of every parameter, biases and batch norm too
    milestones: list[float]
    factor: float
    evaluate: Any  # "last", a list of epochs, or a number of epochs
    precision: str  # "fp32" | "tf32" | "bf16" (bf16: autocast, weights stay in float32)
    last_batch: str  # "keep" | "drop" | "join"
    seed: int  # of the initial weights and of the batch order

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(f"training needs epochs >= 1 and batch_size >= 2, got {self.epochs} and {self.batch_size}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"training precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
        if self.last_batch not in LAST_BATCHES:
            raise ValueError(
                f"training last_batch {self.last_batch!r} is unknown; choose one of {', '.join(LAST_BATCHES)}"
            )
        if self.evaluate is None or (isinstance(self.evaluate, str) and self.evaluate != "last"):
            raise ValueError(f"evaluate must be 'last', a list of epochs or a number of epochs, got {self.evaluate!r}")

    def decay(self, epoch: int) -> float:
        """What the learning rate is multiplied by during `epoch`, counted from 0."""
        drops = (max(1, math.floor(fraction * self.epochs + 1e-9)) for fraction in self.milestones)
        return self.factor ** sum(epoch >= drop for drop in drops)

    def batch_sizes(self, examples: int) -> list[int]:
        """How many examples each step of an epoch is taken on.

        Where a smaller last batch is kept, a single left-over example joins the batch before it all the same: batch
        norm has no variance over one example.
        """
        whole, left_over = divmod(examples, self.batch_size)
        sizes = [self.batch_size] * whole
        if not left_over:
            return sizes
        if whole and self.last_batch == "drop":
            return sizes
        if whole and (self.last_batch == "join" or left_over == 1):
            return [*sizes[:-1], self.batch_size + left_over]
        return [*sizes, left_over]

    def batches(self, epoch: int, examples: int) -> list[Tensor]:
        """Row numbers of each batch of `epoch`: a function of seed and epoch alone, the same for all learning rates."""
        import torch

        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        sizes = self.batch_sizes(examples)
        return list(torch.randperm(examples, generator=generator)[: sum(sizes)].split(sizes))

    def evaluated_epochs(self) -> list[int]:
        """Numbers of finished epochs after which losses and errors are measured; the last is `epochs`."""
        if isinstance(self.evaluate, int):
            return [epoch for epoch in log_spaced_epochs(self.epochs, self.evaluate) if epoch > 0]
        asked = [] if isinstance(self.evaluate, str) else self.evaluate
        return sorted({epoch for epoch in asked if 0 < epoch < self.epochs} | {self.epochs})


@dataclass
class History:
    """One training: what was measured after which epochs. Losses are mean cross-entropies, errors fractions.

    A diverged training ends with an entry of chance-level errors, 1 - 1/C, and losses None.
    """

    learning_rate: float
    engine: str  # "sequential" | "stacked"
    diverged: bool = False
    epochs: list[int] = field(default_factory=list)  # numbers of finished epochs; ends with the recipe's last
    train_loss: list[float | None] = field(default_factory=list)
    train_error: list[float] = field(default_factory=list)
    test_loss: list[float | None] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    seconds: float = 0.0  # this training's share of the time its block took

    def record(self, epoch: int, train: Scores, test: Scores) -> None:
        """Add what was measured after `epoch` finished epochs."""
        self.epochs.append(epoch)
        self.train_loss.append(train.loss)
        self.train_error.append(train.error)
        self.test_loss.append(test.loss)
        self.test_error.append(test.error)


def log_spaced_epochs(epochs: int, count: int) -> list[int]:
    """At most `count` log-spaced numbers of finished epochs, from 0 (initial weights) and 1 to `epochs`."""
    spaced = np.logspace(0, math.log10(epochs), max(count - 1, 1)).round().astype(int).tolist()
    return sorted({0, *spaced, epochs})


def checkpoint_epochs(epochs: int, count: int) -> list[int]:
    """The epochs at which a retrained network is kept: `count` log-spaced ones, and half and three quarters of them.

    Log-spaced epochs alone leave the later half of training, of which the paper speaks, with its last epoch only.
    """
    return sorted({*log_spaced_epochs(epochs, count), epochs // 2, 3 * epochs // 4})
