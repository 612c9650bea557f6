"""Trainings of a cell: where they lie, and what makes them others."""

import dataclasses
import json

from cells import small
from networks import architecture

from repro.storage.identity import digest
from repro.storage.results import Cell


def test_the_cell_is_that_of_data_network_size_and_seed(trainings):
    assert trainings.cell == Cell("fashion_mnist_embedded", "mlp", 4)
    assert small(6, seed=3).cell == Cell("fashion_mnist_embedded", "mlp", 6, 3)
    assert trainings.examples == 40


def test_titles_are_for_people():
    assert small().titles == {"data_title": "Fashion-MNIST (subset)", "model_title": "MLP (width 0.02)"}


def test_an_identity_is_json_and_names_the_rate(trainings):
    wanted = trainings.identity(1)
    assert json.loads(json.dumps(wanted)) == wanted
    assert [trainings.identity(index)["lr"] for index in range(3)] == [0.25, 0.05, 0.01]


def test_where_a_network_is_called_otherwise_it_is_the_same(trainings):
    renamed = dataclasses.replace(
        trainings, model=dataclasses.replace(architecture("mlp", width=0.02), name="mine", title="Mine")
    )
    assert digest(renamed.identity(0)) == digest(trainings.identity(0))
    assert renamed.cell != trainings.cell


def test_other_settings_of_the_network_or_the_recipe_make_another_training(trainings):
    others = [small(5), small(settings={"layers": 4}), small(momentum=0.5), small(seed=1), small(last_batch="drop")]
    digests = {digest(of.identity(0)) for of in (trainings, *others)}
    assert len(digests) == 6
