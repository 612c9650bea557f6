"""The registry of figures, and the rule that none of them imports torch."""

import subprocess
import sys

import pytest

from repro.figures import FIGURES, PaperFigure, find_figure


@pytest.mark.parametrize("asked", ["3", 3, "03", "fig3", "fig03", "Figure 3"])
def test_a_figure_has_many_spellings(asked):
    assert find_figure(asked).module == "fig03_hessian_spectrum"


@pytest.mark.parametrize("asked", ["x1", "x01", "figx1", "X1"])
def test_extra_figures_too(asked):
    found = find_figure(asked)
    assert (found.number, found.file_stem) == ("x1", "x01")


@pytest.mark.parametrize("asked", [99, "hessian_spectrm", "x99", ""])
def test_an_unknown_figure_is_named_with_what_there_is(asked):
    with pytest.raises(ValueError, match=r"There is no figure .*There are: .*3, 4"):
        find_figure(asked)


def test_near_matches_are_offered():
    with pytest.raises(ValueError, match="Did you mean fig03_hessian_spectrum"):
        find_figure("fig03_hessian_spectra")


def test_the_papers_figures_come_first_in_order():
    numbers = list(FIGURES)
    assert numbers == sorted(numbers, key=lambda n: (n.startswith("x"), int(n.lstrip("x"))))


@pytest.mark.parametrize("number", FIGURES)
def test_every_figure_declares_itself(number):
    figure = PaperFigure(number, FIGURES[number])
    assert figure.title
    assert not figure.title.startswith(("Figure", "Extra"))
    assert all(isinstance(name, str) for name in figure.measurements)


def test_no_figure_imports_torch():
    modules = ", ".join(f"repro.figures.{module}" for module in FIGURES.values())
    code = f"import sys, repro.report, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
