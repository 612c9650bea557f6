"""A figure is drawn again only where its inputs, its code or its files have changed."""

import shutil

import numpy as np
import pytest

from repro.figures import PaperFigure, draw, style
from repro.storage import identity
from repro.storage.results import Cell, result_path, save_result
from repro.storage.runs import write_table

CELL = Cell("mnist", "mlp", 5)


@pytest.fixture
def root(tmp_path):
    """An experiment with one result and a table of runs."""
    save_result(result_path(tmp_path, "hessian_spectrum", CELL), {"x": np.ones(2)}, {})
    write_table(tmp_path / "runs.csv", [{"lr": 0.1}])
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """The list of drawings made: an empty picture stands for each."""
    made = []

    def picture(self, results):
        made.append(self.number)
        return style.subplots(1, 1)[0]

    monkeypatch.setattr(PaperFigure, "draw", picture)
    return made


def test_what_is_unchanged_is_not_drawn_again(root, drawn):
    for _ in range(3):
        draw(root, "3", [CELL], "x")
    assert drawn == ["3"]
    draw(root, "3", [CELL], "x", force=True)
    assert drawn == ["3", "3"]


@pytest.mark.parametrize("suffix", ["pdf", "png", "csv", "json"])
def test_a_missing_file_is_drawn_again(root, drawn, suffix):
    draw(root, "3", [CELL], "x")
    (root / "figures" / f"fig03.{suffix}").unlink()
    draw(root, "3", [CELL], "x")
    assert len(drawn) == 2
    assert (root / "figures" / f"fig03.{suffix}").exists()


def test_another_result_table_or_experiment_is_drawn_again(root, drawn):
    draw(root, "3", [CELL], "x")
    save_result(result_path(root, "hessian_spectrum", CELL), {"x": np.zeros(2)}, {})
    draw(root, "3", [CELL], "x")
    write_table(root / "runs.csv", [{"lr": 0.2}])
    draw(root, "3", [CELL], "x")
    draw(root, "3", [CELL], "y")
    assert len(drawn) == 4


def test_a_result_that_the_figure_does_not_show_changes_nothing(root, drawn):
    draw(root, "3", [CELL], "x")
    save_result(result_path(root, "weights", CELL), {"x": np.zeros(2)}, {})
    save_result(result_path(root, "hessian_spectrum", CELL._replace(seed=1)), {"x": np.zeros(2)}, {})
    draw(root, "3", [CELL], "x")
    assert drawn == ["3"]


def test_changed_code_draws_again(root, drawn, monkeypatch):
    draw(root, "3", [CELL], "x")
    monkeypatch.setattr(identity, "code_that_draws", lambda: {"figures/fig03.py": "another"})
    draw(root, "3", [CELL], "x")
    assert len(drawn) == 2


def test_a_damaged_digest_is_drawn_again(root, drawn):
    draw(root, "3", [CELL], "x")
    (root / "figures" / "fig03.json").write_text("{")
    draw(root, "3", [CELL], "x")
    assert len(drawn) == 2


def test_the_code_that_draws_is_the_packages_and_their_libraries(tmp_path, monkeypatch):
    shutil.copytree(identity.PACKAGE / "figures", tmp_path / "figures", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(identity.PACKAGE / "spectra", tmp_path / "spectra", ignore=shutil.ignore_patterns("__pycache__"))
    of = identity.code_that_draws.__wrapped__
    before = of()
    monkeypatch.setattr(identity, "PACKAGE", tmp_path)
    assert of() == before
    with (tmp_path / "spectra" / "record.py").open("a") as file:
        file.write("# another comment\n")
    assert {name for name, found in of().items() if found != before[name]} == {"spectra/record.py"}
