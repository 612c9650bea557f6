"""Pages of the documentation about an experiment, and the score of the claims in README: what `make gallery` writes."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from repro.figures import figure_path, find_figure
from repro.report.content import Table, cost_table, selected_table, table
from repro.report.stored import load_stored
from repro.report.verdicts import summary, verdict_table, verdicts
from repro.storage.files import write_atomically
from repro.storage.results import Cell

FILLED = "<!-- what follows is written by `make gallery` -->"


def write_gallery(root: Path, figures: Mapping[str, Sequence[Cell]], page: Path) -> None:
    """Write `page` (docs/gallery.md) and copy the PNGs drawn below `root` into the folder of its name beside it.

    What stands in the page above the line `FILLED` is kept; below it then come the experiment's numbers too. Such a
    page is of an experiment that takes long: of figures that are not drawn yet it says so, and shows the others; and
    what is stored of the experiment, without weights, is copied beside the figures.

    Raises:
        FileNotFoundError: a figure has not been drawn, or lacks results.
    """
    parts = [
        f"# Gallery\n\nAll figures of experiment {_plain(root.name)}, as `make reproduce` draws them. "
        "`make gallery` puts them here.\n"
    ]
    kept = page.exists() and FILLED in (text := page.read_text(encoding="utf-8"))
    if kept:
        parts = [f"{text.partition(FILLED)[0]}{FILLED}\n", *numbers(root)]
        for path in small_files(root):
            copy(path, page.with_suffix("") / path.relative_to(root))
    missing: list[str] = []
    for number, cells in figures.items():
        figure = find_figure(number)
        drawn = figure_path(root, figure).with_suffix(".png")
        if not drawn.exists():
            if kept:
                missing.append(figure.number)
                continue
            raise FileNotFoundError(f"figure {figure.number} is not drawn yet ({drawn}); run `make figures` first")
        target = page.with_suffix("") / f"{figure.file_stem}.png"
        copy(drawn, target)
        caption = _plain(figure.caption(figure.results(root, cells)))
        known = f"\n*About the paper: {_plain(figure.known)}*\n" if figure.known else ""
        title, folder = _plain(figure.title), quote(target.parent.name)
        link = f"![{title}]({folder}/{target.name})"
        parts.append(f"## Figure {figure.number}. {title}\n\n{link}\n\n{caption}\n{known}")
    if missing:
        parts.append(f"Not drawn yet: Figures {', '.join(missing)}.\n")
    write_atomically(page, lambda path: path.write_text("\n".join(parts), encoding="utf-8"))


def small_files(root: Path) -> list[Path]:
    """What is stored below an experiment's folder beside weights: tables, records of networks and results."""
    records = [*sorted(root.glob("selected/**/run.json")), *sorted(root.glob("results/**/*.npz"))]
    return [path for path in (root / "runs.csv", root / "selected.csv", *records) if path.exists()]


def copy(path: Path, target: Path) -> None:
    """Copy a file; it appears whole."""
    write_atomically(target, lambda unfinished: shutil.copyfile(path, unfinished))


def numbers(root: Path) -> list[str]:
    """The selected networks, the claims and the times of an experiment, as paragraphs.

    They follow from `small_files` alone.
    """
    stored = load_stored(root)
    found = verdicts(stored)
    claims = verdict_table(found).drop(columns="figure").rename(columns={"asked": "asked for", "why": "why it fails"})
    return [
        "## Numbers\n",
        _markdown(selected_table(stored)),
        f"The paper's claims on these cells: {_plain(summary(found))}.\n",
        _markdown(table(claims)),
        "Times of each, one after the other:\n",
        _markdown(cost_table(stored)),
    ]


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(_plain(cell).replace('|', '&#124;') for cell in line)} |" for line in lines) + "\n"


def _plain(text: str) -> str:
    """Text that neither HTML nor the links of Markdown take for more than that."""
    return html.escape(text, quote=False).replace("[", "&#91;").replace("]", "&#93;")


def write_score(readme: Path, score: str) -> None:
    """Put the score of the claims between its two marks in README.

    Raises:
        ValueError: the marks are not there.
    """
    text, found = re.subn(
        r"(?<=<!-- score -->)[^\n]*(?=<!-- /score -->)",
        lambda _: f"{score}.",
        readme.read_text(encoding="utf-8"),
    )
    if found != 1:
        raise ValueError(f"{readme} needs one line with <!-- score --><!-- /score -->, where the score goes")
    write_atomically(readme, lambda path: path.write_text(text, encoding="utf-8"))
