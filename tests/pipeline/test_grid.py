"""The grid by index: the paper's rates and sizes, and the words that name parts of it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.pipeline.grid import LearningRates, sample_size

PAPER = LearningRates(highest=0.25, lowest=1e-4, count=100)


def test_rates_are_the_papers():
    expected = np.logspace(np.log10(0.25), -4, 100)
    assert [PAPER.rate(k) for k in range(100)] == pytest.approx(expected.tolist(), rel=1e-11)
    assert PAPER.rate(0) == pytest.approx(0.25, rel=1e-15)


def test_rates_fall_by_a_constant_factor():
    factors = [PAPER.rate(k) / PAPER.rate(k + 1) for k in range(99)]
    assert math.isclose(min(factors), max(factors), rel_tol=1e-10)


def test_rates_do_not_depend_on_numpys_last_bit(monkeypatch):
    rates, logspace = [PAPER.rate(k) for k in range(100)], np.logspace
    monkeypatch.setattr(np, "logspace", lambda *args: np.nextafter(logspace(*args), 1))
    assert [PAPER.rate(k) for k in range(100)] == rates


@pytest.mark.parametrize("index", [-1, 100])
def test_an_index_outside_the_grid_is_refused(index):
    with pytest.raises(ValueError, match="outside the grid of 100"):
        PAPER.rate(index)


@pytest.mark.parametrize(
    ("highest", "lowest", "count"), [(1e-5, 1e-4, 3), (0.1, 0.0, 3), (0.1, -1.0, 3), (0.1, 0.01, 0)]
)
def test_what_is_no_grid_is_refused(highest, lowest, count):
    with pytest.raises(
        ValueError, match=f"learning_rates: highest={highest:g}, lowest={lowest:g}, count={count} make no"
    ):
        LearningRates(highest, lowest, count)


def test_words_for_indices():
    rates = LearningRates(0.25, 1e-4, 25)
    assert rates.indices("all") == list(range(25))
    assert rates.indices(2) == rates.indices("2") == [2]
    assert rates.indices("1-2") == [1, 2]
    assert rates.indices("0-24") == list(range(25))
    assert rates.indices("4of4") == [19, 20, 21, 22, 23, 24]


@pytest.mark.parametrize(
    "word", ["3-1", "a", "1-", "-1", "25", "20-49", "25-49", "1.5", "", "0of4", "5of4", "1of0", "of", "1of"]
)
def test_other_words_are_refused(word):
    with pytest.raises(ValueError, match=f"lr_index={word}"):
        LearningRates(0.25, 1e-4, 25).indices(word)


@given(st.integers(1, 200), st.integers(1, 40))
def test_the_parts_of_any_grid_cover_every_index_once_and_evenly(count, parts):
    rates = LearningRates(0.25, 1e-4, count)
    blocks = [rates.indices(f"{part}of{parts}") for part in range(1, parts + 1)]
    assert list(itertools.chain(*blocks)) == list(range(count))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_sample_sizes():
    assert sample_size(136, [10, 13]) == sample_size("136", [10, 13]) == 136
    assert sample_size("size1", [10, 13]) == 13
    for word in ("size2", "0", "-3", "1.5", "size", "sizex", "ten"):
        with pytest.raises(ValueError, match="size0 to size1"):
            sample_size(word, [10, 13])
