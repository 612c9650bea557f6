"""A small cell of the grid, on this machine's CPU."""

import pytest
from cells import small

from repro.pipeline.composition import Composer
from repro.pipeline.config import CONF, Machine
from repro.pipeline.trainings import Trainings


@pytest.fixture
def trainings() -> Trainings:
    return small()


@pytest.fixture
def machine() -> Machine:
    return Machine(device="cpu", data_root="nowhere", download=False, checkpoint_seconds=300.0, curvature_batch=100)


@pytest.fixture
def composed():
    """The configuration that a command line comes to."""
    return lambda *overrides: Composer(overrides, (), CONF).config
