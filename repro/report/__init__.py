"""One self-contained HTML page about an experiment: works offline, opens from disk, needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from repro.report.claims import claims_table, summary
from repro.report.content import cost_table, figure_entries, origin_table, overview, selected_table
from repro.report.reference import reference_table
from repro.report.stored import load_stored
from repro.storage.files import write_atomically
from repro.storage.results import Cell


def build(root: Path, figures: Mapping[str, Sequence[Cell]]) -> Path:
    """Write <root>/report/index.html from what is stored below an experiment's folder; missing results are named.

    Args:
        figures: the numbers of the experiment's figures and the cells that each shows.
    """
    stored = load_stored(root)
    pages = Environment(
        loader=PackageLoader("repro.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    claims = claims_table(stored)
    html = pages.get_template("index.html").render(
        experiment=root.name,
        overview=overview(stored),
        claims=claims,
        claims_summary=summary(claims),
        references=reference_table(stored),
        figures=figure_entries(root, figures),
        selected=selected_table(stored),
        cost=cost_table(stored),
        origin=origin_table(stored),
    )
    page = root / "report" / "index.html"
    write_atomically(page, lambda path: path.write_text(html, encoding="utf-8"))
    return page
