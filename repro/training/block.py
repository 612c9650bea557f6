"""Train one cell's networks, which differ in their learning rate alone (Papyan 2020, Section 4 and Appendix D)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from repro.storage.identity import digest
from repro.training import VERSION
from repro.training.checkpoint import BlockState, load_state, save_state
from repro.training.engines import ENGINES, at_once, groups
from repro.training.precision import repeatable
from repro.training.recipe import History, Recipe, Scores
from repro.training.sequential import SingleRun
from repro.training.stacked import StackedRuns

Runs = SingleRun | StackedRuns
OnFinished = Callable[[int, History], None]  # position of the learning rate, its history
OnEpoch = Callable[[int, int], None]  # epochs done and to do, summed over the block's runs
OnCheckpoint = Callable[[int, int, nn.Module], None]  # position of the learning rate, finished epochs, network

EVALUATION_BATCH = 250  # examples a forward pass; larger ones leave the CPU's caches and are slower


class LabelledImages(Protocol):
    """A data set on its device."""

    @property
    def images(self) -> Tensor: ...  # [N, channels, height, width]
    @property
    def labels(self) -> Tensor: ...  # [N]
    @property
    def classes(self) -> int: ...


def train_block(
    build: Callable[[], nn.Module],
    train: LabelledImages,
    test: LabelledImages,
    learning_rates: Sequence[float],
    recipe: Recipe,
    *,
    engine: str = "sequential",
    stack_bytes: float = 2e10,
    stored: Collection[int] = (),
    on_finished: OnFinished | None = None,
    on_epoch: OnEpoch | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    checkpoint_epochs: Sequence[int] = (),
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 300.0,
) -> list[History]:
    """Train one network for each learning rate, from the same initial weights and on the same batches.

    Networks and data live on the device and in the dtype of `train.images`. The same call gives the same bits on
    the same machine with as many threads, whether it was interrupted or not; one rate trained alone equals its run
    in a sequential block. A diverged training is a result (see `History`), not an error. Networks must not draw
    random numbers (dropout).

    Args:
        build: makes the network; called once, after seeding with `recipe.seed`.
        engine: "sequential", one network after the other; "stacked", as many at once as `stack_bytes` hold, which
            pays for small networks on a GPU only.
        stack_bytes: memory that the networks of a stack may take. A stack of another size gives other rounding errors.
        stored: positions of the rates whose histories the caller has; they are neither trained nor told again.
        on_finished: told each history as soon as its run has ended; a resumed block tells those not in `stored` again.
        on_checkpoint: given the network (eval mode) after each of `checkpoint_epochs` finished epochs; 0 is the start.
        checkpoint: where the block keeps its state, at the end of an epoch every `checkpoint_seconds`, and resumes
            from, whatever is `stored` by then; the file is deleted when the block is done.

    Returns:
        The histories of all rates but those in `stored`.

    Raises:
        ValueError: the training set has less than two examples, or the engine is unknown.
    """
    if len(train.labels) < 2:
        raise ValueError(f"batch norm needs at least two training examples, got {len(train.labels)}")
    block = _Block(train, test, learning_rates, recipe, on_finished, on_epoch, on_checkpoint, checkpoint_epochs)
    block.finished.update(stored)
    initial = initial_network(build, train.images, recipe.seed)
    with repeatable(recipe.precision):
        if checkpoint:
            block.keep_state(
                checkpoint, checkpoint_seconds, _identity(initial, train, learning_rates, recipe, engine, stack_bytes)
            )
        block.run(initial, engine, stack_bytes)
    return [block.histories[index] for index in range(len(learning_rates)) if index not in stored]


def initial_network(build: Callable[[], nn.Module], like: Tensor, seed: int) -> nn.Module:
    """The network every run starts from; drawn on the CPU, so that it is the same on every device."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().to(like).to(memory_format=layout(like))  # type: ignore[call-overload]


def layout(like: Tensor) -> torch.memory_format:
    """Channels last makes narrow convolutions 1.4 times as fast on a CPU (docs/benchmarks); unmeasured on GPUs."""
    return torch.channels_last if like.device.type == "cpu" and like.ndim == 4 else torch.preserve_format


def _identity(
    initial: nn.Module,
    train: LabelledImages,
    rates: Sequence[float],
    recipe: Recipe,
    engine: str,
    stack_bytes: float,
) -> str:
    """Digest of what decides a block's outcome; of networks and data, their shapes and sums."""
    tensors = {**initial.state_dict(), "images": train.images, "labels": train.labels}
    sums = {name: [list(t.shape), repr(t.double().sum().item())] for name, t in tensors.items()}
    how = {"recipe": asdict(recipe), "engine": engine, "stack_bytes": stack_bytes, "version": VERSION}
    return digest({"tensors": sums, "rates": list(rates), **how})


@dataclass
class _Block:
    """The trainings of a block: what they need, whom they tell and what came out."""

    train_split: LabelledImages
    test_split: LabelledImages
    rates: Sequence[float]
    recipe: Recipe
    on_finished: OnFinished | None
    on_epoch: OnEpoch | None
    on_checkpoint: OnCheckpoint | None
    checkpoint_epochs: Sequence[int]
    histories: dict[int, History] = field(default_factory=dict)  # of started runs, by position of their rate
    finished: set[int] = field(default_factory=set)

    state_path: Path | None = None
    state_seconds: float = 0.0
    identity: str = ""
    saved_at: float = 0.0

    def keep_state(self, path: Path, seconds: float, identity: str) -> None:
        """Save the block under `path` from time to time."""
        self.state_path, self.state_seconds, self.identity = path, seconds, identity

    def run(self, initial: nn.Module, engine: str, stack_bytes: float) -> None:
        """Finish what a killed job has begun, then train the rest.

        Stacks are cut from the whole block, whatever of it is finished, so that they are the same in every attempt; of
        a stack that is stored in part all is trained once more.
        """
        self.saved_at = time.monotonic()
        loaded = load_state(self.state_path, self.identity) if self.state_path else None
        if loaded:
            self._resume(initial, *loaded)
        if not self.finished.issuperset(range(len(self.rates))):
            batch = next(self._train_batches(0))
            count = at_once(engine, initial, batch, len(self.rates), stack_bytes)
            for indices in groups(range(len(self.rates)), count):
                if not self.finished.issuperset(indices):
                    self.train(ENGINES[engine](initial, self.recipe, indices))
        if self.state_path:
            self.state_path.unlink(missing_ok=True)

    def train(self, runs: Runs, epoch: int = 0) -> None:
        """Train `runs`, which have finished `epoch` epochs, to the end."""
        if epoch == 0:
            self.histories.update({index: History(self.rates[index], runs.engine) for index in runs.indices})
            self._hand_out(runs, epoch)
        while epoch < self.recipe.epochs and runs.indices:
            start, taking_part = time.perf_counter(), runs.indices
            self._train_epoch(runs, epoch)
            epoch += 1
            self._drop_diverged(runs, runs.finite())
            if epoch in self.recipe.evaluated_epochs():
                self._evaluate(runs, epoch)
            for index in taking_part:
                self.histories[index].seconds += (time.perf_counter() - start) / len(taking_part)
                if self.histories[index].diverged or epoch == self.recipe.epochs:
                    self._finish(index)
            self._hand_out(runs, epoch)
            if self.on_epoch:
                self.on_epoch(self._epochs_done(epoch), self.recipe.epochs * len(self.rates))
            self._save(runs, epoch)

    def _train_epoch(self, runs: Runs, epoch: int) -> None:
        decay = self.recipe.decay(epoch)
        runs.start_epoch([self.rates[index] * decay for index in runs.indices])
        for x, y in self._train_batches(epoch):
            runs.step(x, y)

    def _train_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.train_split.images, self.train_split.labels
        for rows in self.recipe.batches(epoch, len(labels)):
            rows = rows.to(labels.device, non_blocking=True)
            yield images[rows].to(memory_format=layout(images)), labels[rows]

    def _evaluate(self, runs: Runs, epoch: int) -> None:
        train, test = (runs.evaluate(_batches(split)) for split in (self.train_split, self.test_split))
        finite = [a.loss is not None and b.loss is not None for a, b in zip(train, test)]
        for index, alive, a, b in zip(runs.indices, finite, train, test):
            if alive:
                self.histories[index].record(epoch, a, b)
        self._drop_diverged(runs, finite)

    def _drop_diverged(self, runs: Runs, finite: Sequence[bool]) -> None:
        """Diverged networks stop here, as chance-level results."""
        chance = Scores(None, 1 - 1 / self.train_split.classes)
        for index, alive in zip(runs.indices, finite):
            if not alive:
                self.histories[index].diverged = True
                self.histories[index].record(self.recipe.epochs, chance, chance)
        if not all(finite):
            runs.keep([position for position, alive in enumerate(finite) if alive])

    def _finish(self, index: int) -> None:
        if self.on_finished and index not in self.finished:
            self.on_finished(index, self.histories[index])
        self.finished.add(index)

    def _save(self, runs: Runs, epoch: int) -> None:
        """Save the block if it is time to."""
        if self.state_path and time.monotonic() - self.saved_at >= self.state_seconds:
            finished = sorted(self.finished & self.histories.keys())
            state = BlockState(self.identity, runs.engine, list(runs.indices), epoch, finished, self.histories)
            save_state(self.state_path, state, runs.tensors())
            self.saved_at = time.monotonic()

    def _resume(self, initial: nn.Module, state: BlockState, tensors: dict[str, Tensor]) -> None:
        """Take up a saved block: tell what is finished, and train the runs it was at to the end."""
        self.histories = state.histories
        for index in state.finished:
            self._finish(index)
        if state.epoch < self.recipe.epochs and not self.finished.issuperset(state.indices):
            runs = ENGINES[state.engine](initial, self.recipe, state.indices)
            for name, tensor in runs.tensors().items():
                tensor.copy_(tensors[name])
            self.train(runs, state.epoch)

    def _hand_out(self, runs: Runs, epoch: int) -> None:
        if self.on_checkpoint and epoch in self.checkpoint_epochs:
            for position, index in enumerate(runs.indices):
                self.on_checkpoint(index, epoch, runs.model(position))

    def _epochs_done(self, epoch: int) -> int:
        running = len(self.histories.keys() - self.finished)
        return self.recipe.epochs * len(self.finished) + epoch * running


def _batches(split: LabelledImages) -> list[tuple[Tensor, Tensor]]:
    images = split.images.to(memory_format=layout(split.images))
    return list(zip(images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH)))
