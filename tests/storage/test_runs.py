"""Stored trainings: identity, refusal of other settings, damage."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.storage.files import digest
from repro.storage.results import Cell
from repro.storage.runs import cell_of, identity, read_run, run_finished, run_path, table, write_run

CONFIG = {
    "root": "anywhere",
    "device": "cpu",
    "data": {"name": "mnist", "classes": 10, "sizes": [10]},
    "model": {"name": "mlp", "width": 1.0},
    "n_per_class": 10,
    "training": {"epochs": 3, "seed": 0},
}
METRICS = {"diverged": False, "train_loss": 0.1, "train_error": 0.0, "test_loss": 0.5, "test_error": 0.2}
MADE = {"seconds": 1.0, "device": "cpu"}


def stored(tmp_path, wanted):
    path = tmp_path / "lr003.json"
    write_run(path, wanted, {"metrics": METRICS, "history": {}}, MADE)
    return path


def test_a_stored_run_is_finished_and_read_back(tmp_path):
    wanted = identity(CONFIG, 3, 0.1)
    path = stored(tmp_path, wanted)
    assert run_finished(path, wanted)
    assert not run_finished(tmp_path / "lr004.json", wanted)
    assert read_run(path)["metrics"] == METRICS
    row = table([(Cell("mnist", "mlp", 10), 3, path), (Cell("mnist", "mlp", 10), 4, tmp_path / "lr004.json")])
    assert row[["lr_index", "lr", "test_error", "epochs"]].values.tolist() == [[3, 0.1, 0.2, 3]]


def test_other_settings_are_refused_with_both_values(tmp_path):
    path = stored(tmp_path, identity(CONFIG, 3, 0.1))
    other = {**CONFIG, "training": {"epochs": 5, "seed": 0}}
    with pytest.raises(ValueError, match=r"training\.epochs = 3, asked for 5.*force=true"):
        run_finished(path, identity(other, 3, 0.1))


@pytest.mark.parametrize(
    "damage", [lambda text: text[:40], lambda text: text.replace('"seed": 0', '"seed": 1'), lambda _: "[]"]
)
def test_damaged_or_tampered_files_are_named(tmp_path, damage):
    path = stored(tmp_path, identity(CONFIG, 3, 0.1))
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=r"lr003\.json is damaged.*delete it"):
        read_run(path)


def test_where_and_how_it_is_computed_is_no_part_of_identity():
    elsewhere = {**CONFIG, "root": "other", "device": "cuda", "data": {**CONFIG["data"], "sizes": [10, 13]}}
    assert identity(elsewhere, 3, 0.1) == identity(CONFIG, 3, 0.1)


SETTINGS = st.fixed_dictionaries(
    {
        "n_per_class": st.integers(1, 30),
        "model": st.fixed_dictionaries(
            {"name": st.sampled_from(["mlp", "vgg11"]), "width": st.sampled_from([0.5, 1.0])}
        ),
        "training": st.fixed_dictionaries({"epochs": st.integers(1, 3), "seed": st.integers(0, 2)}),
    }
)


@given(SETTINGS, SETTINGS, st.integers(0, 12), st.integers(0, 12))
def test_digest_and_path_identify_a_run(a, b, i, j):
    one, other = identity({**CONFIG, **a}, i, 0.1), identity({**CONFIG, **b}, j, 0.1)
    assert (digest(one) == digest(other)) == ((a, i) == (b, j))
    paths = [run_path(Path("x"), cell_of({**CONFIG, **s}), k) for s, k in ((a, i), (b, j))]
    same_place = (a["n_per_class"], a["model"]["name"], i) == (b["n_per_class"], b["model"]["name"], j)
    assert (paths[0] == paths[1]) == same_place
    assert json.loads(json.dumps(one)) == one


def test_a_rate_that_differs_by_rounding_is_the_same_run(tmp_path):
    config = {"training": {"epochs": 2}, "lr": 0.1, "lr_index": 0}
    write_run(tmp_path / "run.json", config, {"metrics": {}}, {})
    assert run_finished(tmp_path / "run.json", {**config, "lr": 0.1 * (1 + 1e-12)})
    with pytest.raises(ValueError, match=r"lr = 0\.1, asked for 0\.1001"):
        run_finished(tmp_path / "run.json", {**config, "lr": 0.1001})
