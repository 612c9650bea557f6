"""The trainings of one cell of the grid: what is trained, on what, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from repro.data import DataSet
from repro.models import Architecture
from repro.models.size import NetworkSize, network_size
from repro.pipeline.grid import LearningRates
from repro.storage import identity
from repro.storage.results import Cell
from repro.training import VERSION, Recipe


@dataclass(frozen=True)
class Trainings:
    """Trainings that differ in their learning rate alone, by its index in `rates`."""

    data: DataSet
    model: Architecture
    n_per_class: int
    recipe: Recipe
    rates: LearningRates
    engine: str  # sequential or stacked; see repro.training
    stack_bytes: float

    @property
    def cell(self) -> Cell:
        """Their cell of the grid."""
        return Cell(self.data.name, self.model.name, self.n_per_class, self.recipe.seed)

    @property
    def examples(self) -> int:
        """Of the training set."""
        return self.n_per_class * self.data.classes

    @property
    def titles(self) -> dict[str, str]:
        """Names for people, which go into the provenance of results."""
        return {"data_title": self.data.title, "model_title": self.model.full_title}

    @cached_property
    def network_size(self) -> NetworkSize:
        """Of the network that is trained."""
        return network_size(self.model, channels=self.data.channels, classes=self.data.classes, side=self.data.side)

    @cached_property
    def network_and_data(self) -> dict[str, Any]:
        """What identifies network and data."""
        return identity.network_and_data(asdict(self.data), self.model.builder, self.model.settings, self.n_per_class)

    def identity(self, index: int) -> dict[str, Any]:
        """All that decides the outcome of the training with one of the learning rates."""
        return identity.training(
            self.network_and_data,
            self._recipe,
            learning_rate=self.rates.rate(index),
            engine=self.engine,
            stack_bytes=self.stack_bytes,
            version=VERSION,
        )

    @cached_property
    def digests(self) -> list[str]:
        """Of the training with each of the learning rates."""
        return [identity.digest(self.identity(index)) for index in range(self.rates.count)]

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        return asdict(self.recipe)
