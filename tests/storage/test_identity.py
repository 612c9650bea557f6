"""Digests tell apart what has other numbers, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.storage import identity
from repro.storage.identity import digest

DATA = {
    "name": "mnist", "title": "MNIST", "reader": "m:f", "classes": 10, "channels": 1, "side": 32, "pad": 2,
    "mean": [0.5], "std": [0.5], "subset_seed": 0, "examples_per_class": 9, "largest_size": 9, "test_examples": 7,
    "paper_epochs": 200,
}  # fmt: skip
SETTINGS = {
    "data": DATA, "builder": "m:build", "settings": {"width": 0.5}, "n_per_class": 10,
    "recipe": {"epochs": 3, "seed": 0, "last_batch": "keep"}, "learning_rate": 0.1, "engine": "stacked",
    "stack_bytes": 1e9, "version": 1,
}  # fmt: skip


def training(**changes):
    given = SETTINGS | changes
    of = identity.network_and_data(*(given.pop(key) for key in ("data", "builder", "settings", "n_per_class")))
    return identity.training(of, given.pop("recipe"), **given)


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"data": DATA | {key: value}}
            for key, value in [("name", "x"), ("reader", "x"), ("pad", 1), ("mean", [0.4])]
        ),
        {"data": DATA | {"subset_seed": 1}},
        {"builder": "m:other"},
        {"settings": {"width": 1.0}},
        {"n_per_class": 11},
        {"recipe": SETTINGS["recipe"] | {"seed": 1}},
        {"recipe": SETTINGS["recipe"] | {"last_batch": "drop"}},
        {"learning_rate": 0.2},
        {"engine": "sequential"},
        {"stack_bytes": 2e9},
        {"version": 2},
    ],
    ids=str,
)
def test_what_decides_a_training_is_in_its_digest(change):
    assert digest(training(**change)) != digest(training())


@pytest.mark.parametrize(
    "change",
    [
        *({"data": DATA | {key: 5}} for key in ("title", "examples_per_class", "largest_size", "test_examples")),
        {"data": DATA | {"paper_epochs": 5}},
    ],
    ids=str,
)
def test_facts_for_people_and_planning_are_in_no_digest(change):
    assert digest(training(**change)) == digest(training())


def test_what_trains_alone_knows_no_stack():
    one, other = (training(engine="sequential", stack_bytes=size) for size in (1e9, 2e9))
    assert digest(one) == digest(other)


@given(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), st.sampled_from([None, "x", "y"])),
       st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), st.sampled_from([None, "x", "y"])))  # fmt: skip
def test_measurements_differ_by_name_version_network_and_settings(a, b):
    one, other = (identity.measurement(name, {"steps": 3}, version, of) for name, version, of in (a, b))
    assert (one == other) == (a == b)
    assert one != identity.measurement(a[0], {"steps": 4}, a[1], a[2])


def test_results_from_before_classes_could_be_chosen_are_those_of_all():
    of_all, before, of_some = (
        identity.measurement("class_means", {"steps": 3, **chosen}, 1, "x")
        for chosen in ({"classes": None}, {}, {"classes": [0, 1]})
    )
    assert of_all == before != of_some


def test_retrained_networks_differ_by_training_and_checkpoints():
    digests = {identity.retrained(run, checkpoints) for run in ("x", "y") for checkpoints in ([0, 3], [0, 4])}
    assert len(digests) == 4


def test_weights_files_differ_by_content_data_decay_and_code(tmp_path):
    first, same, other = (tmp_path / name for name in ("a", "b", "c"))
    for path, content in ((first, b"1"), (same, b"1"), (other, b"2")):
        path.write_bytes(content)
    of = identity.network_and_data(DATA, "m:build", {}, 10)
    wanted = identity.own_weights(first, of, 5e-4, same)
    assert identity.own_weights(same, of, 5e-4, first) == wanted
    others = {
        identity.own_weights(other, of, 5e-4, same),
        identity.own_weights(first, of, 0.0, same),
        identity.own_weights(first, of | {"n_per_class": 11}, 5e-4, same),
        identity.own_weights(first, of, 5e-4, other),
        identity.own_weights(first, of, 5e-4, None),
    }
    assert len(others | {wanted}) == 6


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_equal_digests_mean_equal_json(a, b):
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (digest(a) == digest(b)) == same


def test_the_order_of_keys_does_not_matter_and_digests_stay_as_they_are():
    assert digest({"a": 1, "b": [2.5, None]}) == digest({"b": [2.5, None], "a": 1}) == "fbb68c4db7e0dd9e"


def test_differences_are_told_but_not_rounding():
    stored, wanted = (
        {"lr": 0.1, "training": {"epochs": 3, "seed": 0}},
        {"lr": 0.1 * (1 + 1e-12), "training": {"epochs": 5}},
    )
    assert identity.differences(stored, wanted) == [
        "training.epochs = 3, asked for 5", "training.seed = 0, asked for None",
    ]  # fmt: skip
