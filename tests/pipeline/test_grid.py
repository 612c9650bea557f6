"""The grid by index: the paper's rates and sizes, and the words that name parts of it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.pipeline.grid import learning_rate, learning_rate_indices, sample_size

PAPER = {"highest": 0.25, "lowest": 1e-4, "count": 100}


def test_rates_are_the_papers():
    expected = np.logspace(np.log10(0.25), -4, 100)
    assert [learning_rate(k, **PAPER) for k in range(100)] == pytest.approx(expected.tolist(), rel=1e-11)
    assert learning_rate(0, **PAPER) == pytest.approx(0.25, rel=1e-15)


def test_rates_do_not_depend_on_numpys_last_bit(monkeypatch):
    rates, logspace = [learning_rate(k, **PAPER) for k in range(100)], np.logspace
    monkeypatch.setattr(np, "logspace", lambda *args: np.nextafter(logspace(*args), 1))
    assert [learning_rate(k, **PAPER) for k in range(100)] == rates


@pytest.mark.parametrize("index", [-1, 100])
def test_an_index_outside_the_grid_is_refused(index):
    with pytest.raises(ValueError, match="outside the grid of 100"):
        learning_rate(index, **PAPER)


def test_words_for_indices():
    assert learning_rate_indices("all", 3) == [0, 1, 2]
    assert learning_rate_indices(2, 3) == [2]
    assert learning_rate_indices("1-2", 100) == [1, 2]
    assert learning_rate_indices("20-49", 25) == [20, 21, 22, 23, 24]
    assert learning_rate_indices("25-49", 25) == []


@pytest.mark.parametrize("word", ["3-1", "a", "1-", "-1", "25", "1.5", ""])
def test_other_words_are_refused(word):
    with pytest.raises(ValueError, match="lr_index"):
        learning_rate_indices(word, 25)


@given(st.integers(1, 200), st.integers(1, 40))
def test_ranges_of_any_length_cover_every_index_once(count, length):
    blocks = [learning_rate_indices(f"{i}-{i + length - 1}", count) for i in range(0, 200, length)]
    assert [i for block in blocks for i in block] == list(range(count))


def test_sample_sizes():
    assert sample_size(136, [10, 13]) == sample_size("136", [10, 13]) == 136
    assert sample_size("size1", [10, 13]) == 13
    for word in ("size2", "0", "-3", "1.5", "size", "sizex", "ten"):
        with pytest.raises(ValueError, match="size0 to size1"):
            sample_size(word, [10, 13])


def test_rates_fall_by_a_constant_factor():
    rates = [learning_rate(k, **PAPER) for k in range(100)]
    factors = [a / b for a, b in itertools.pairwise(rates)]
    assert math.isclose(min(factors), max(factors), rel_tol=1e-10)
