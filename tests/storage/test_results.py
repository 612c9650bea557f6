"""Measurement results survive the way to disk and back, and damage is named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from repro.storage.results import Cell, Result, load_provenance, load_result, result_path, save_result

CELL = Cell("mnist", "vgg11", 136)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.bool_]),
        hnp.array_shapes(max_dims=3, max_side=4, min_side=0),
    ),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.none(), max_size=3),
)
def test_round_trip(tmp_path, array, provenance):
    path = tmp_path / "x.npz"
    save_result(path, {"a": array, "scalar": np.array(3)}, provenance)
    result = load_result(path, CELL)
    np.testing.assert_array_equal(result.arrays["a"], array)
    assert result.arrays["a"].dtype == array.dtype
    assert result.arrays["scalar"] == 3
    assert result.provenance == provenance == load_provenance(path)
    assert result.cell == CELL


@pytest.mark.parametrize("damage", ["truncated", "other"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "x.npz"
    save_result(path, {"a": np.arange(1000)}, {})
    path.write_bytes(path.read_bytes()[:200] if damage == "truncated" else b"not a zip file")
    with pytest.raises(ValueError, match=r"x\.npz is damaged.*delete it"):
        load_result(path, CELL)
    with pytest.raises(ValueError, match=r"x\.npz is damaged.*delete it"):
        load_provenance(path)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.array([{"evil": 1}], dtype=object), provenance=np.array("{}"))
    with pytest.raises(ValueError, match="damaged"):
        load_result(path, CELL)


def test_paths(tmp_path):
    assert result_path(tmp_path, "m", CELL) == tmp_path / "results/mnist/vgg11/n136/m.npz"
    assert result_path(tmp_path, "m", None) == tmp_path / "results/m.npz"
    assert result_path(tmp_path, "m", CELL._replace(seed=2)) == tmp_path / "results/mnist/vgg11/n136/seed2/m.npz"


@pytest.mark.parametrize("cell", [CELL, CELL._replace(seed=3), Cell("own data", "m.f", 1)])
def test_a_cell_is_read_off_its_path(cell):
    assert Cell.from_path(Path(str(cell))) == cell


@pytest.mark.parametrize(
    "path", [".", "mnist/vgg11", "mnist/vgg11/136", "mnist/vgg11/n1/seedx", "a/mnist/vgg11/n1/seed1"]
)
def test_other_paths_are_no_cells(path):
    assert Cell.from_path(Path(path)) is None


def test_titles_are_for_people_and_fall_back_on_names():
    titles = {"data_title": "Fashion-MNIST", "model_title": "VGG11 (narrow)"}
    assert Result(Cell("fm", "vgg11", 51), {}, titles).title == "Fashion-MNIST, VGG11 (narrow), 51 per class"
    assert Result(Cell("mine", "net", 5, 2), {}, {}).title == "mine, net, 5 per class, seed 2"
    assert Result(None, {}, {}).title == "no network"
