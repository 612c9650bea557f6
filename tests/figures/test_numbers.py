"""The csv beside a figure holds what is drawn."""

import numpy as np

from repro.figures import style
from repro.figures.numbers import drawn_numbers


def test_lines_scatters_bars_and_heat_maps_are_read_by_panel():
    figure, axes = style.subplots(2, 2)
    (line, scatter), (bars, image) = axes
    line.plot([1, 2, 3], [4, np.nan, 6], label="train")
    line.axhline(5)
    line.fill_between([1, 2], [0, 0], [1, 1])
    line.set_title("lines")
    scatter.scatter([1, 2], [3, 4], label="c")
    bars.bar([1, 2], [5, 7])
    figure.colorbar(image.imshow([[1.0, 2.0], [3.0, 4.0]]), ax=image)
    numbers = drawn_numbers(figure)
    lines = numbers[numbers.panel == "a"]
    assert lines[["title", "series", "x", "y"]].values.tolist() == [["lines", "train", 1, 4], ["lines", "train", 3, 6]]
    assert numbers[numbers.panel == "b"][["x", "y"]].values.tolist() == [[1, 3], [2, 4]]
    assert numbers[numbers.panel == "c"][["x", "y"]].values.tolist() == [[1, 5], [2, 7]]
    assert numbers[numbers.panel == "d"].value.tolist() == [1, 2, 3, 4]
    assert set(numbers.panel) == {"a", "b", "c", "d"}


def test_an_empty_figure_has_no_numbers():
    assert drawn_numbers(style.subplots(1, 1)[0]).empty
