"""One self-contained HTML page about an experiment: works offline, opens from disk, needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from repro.report.content import (
    cost_line,
    cost_table,
    figure_entries,
    origin_table,
    overview,
    picture,
    selected_table,
    table,
)
from repro.report.reference import reference_table
from repro.report.stored import load_stored
from repro.report.verdicts import summary, verdict_table, verdicts
from repro.storage.files import write_atomically
from repro.storage.results import Cell
from repro.storage.runs import at_edge_of_grid


def build(root: Path, figures: Mapping[str, Sequence[Cell]], cautions: Sequence[str] = ()) -> Path:
    """Write <root>/report/index.html from what is stored below an experiment's folder; missing results are named.

    Args:
        figures: the numbers of the experiment's figures and the cells that each shows. Claims take all that is stored.
        cautions: sentences on how the networks were trained that a reader of the verdicts has to know; selected
            learning rates at the edge of their grid are found here, from the table of runs.
    """
    stored = load_stored(root)
    pages = Environment(
        loader=PackageLoader("repro.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found, entries = verdicts(stored), figure_entries(root, figures)
    html = pages.get_template("index.html").render(
        experiment=root.name,
        overview=overview(stored),
        verdicts=found,
        verdicts_csv=table(verdict_table(found)).csv,
        summary=summary(found),
        cautions=[*cautions, *at_edge_of_grid(stored.runs, stored.selected)],
        references=reference_table(stored),
        picture=picture(entries),
        figures=entries,
        anchors={entry.label.removeprefix("Figure "): entry.anchor for entry in entries},
        selected=selected_table(stored),
        cost_line=cost_line(stored),
        cost=cost_table(stored),
        origin=origin_table(stored),
    )
    page = root / "report" / "index.html"
    write_atomically(page, lambda path: path.write_text(html, encoding="utf-8"))
    return page


def score(root: Path) -> str:
    """The score of the claims on all that is stored below an experiment's folder, in one line."""
    return summary(verdicts(load_stored(root)))
