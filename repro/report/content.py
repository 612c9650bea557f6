"""What the report's sections show, as tables of text ready to be laid out."""

from __future__ import annotations

import base64
import gzip
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from repro.figures import figure_path, find_figure
from repro.report.stored import Stored
from repro.storage.results import Cell
from repro.storage.runs import by_cell

SCALE = 0.55  # CSS pixels of a figure's pixel: its text is then as large as the page's

PICTURE = "fig05"  # what the page and README open with


class Table(NamedTuple):
    """A table of text, and its full content as csv to download."""

    columns: list[str]
    rows: list[list[str]]
    csv: str  # a data URI, gzip-compressed


class FigureEntry(NamedTuple):
    """A figure of the report, or the reason why it is not there."""

    label: str  # Figure 5, Figure x1
    anchor: str
    title: str
    caption: str
    known: str  # of the paper's figure; empty if nothing is said
    image: str  # data URI of the PNG; empty if it could not be drawn
    csv: str
    width: int  # of the image on the page, in CSS pixels
    height: int
    missing: str  # why there is no image


def table(frame: pd.DataFrame, full: pd.DataFrame | None = None) -> Table:
    """`frame` to be shown; `full`, by default the same, to be downloaded."""
    text = [["" if pd.isna(value) else str(value) for value in row] for row in frame.itertuples(index=False)]
    csv = (frame if full is None else full).to_csv(index=False)
    return Table([str(column) for column in frame.columns], text, csv_uri(csv))


def csv_uri(text: str) -> str:
    """Gzip keeps the page small; no time is stored, so the same numbers give the same page."""
    return "data:application/gzip;base64," + base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def overview(stored: Stored) -> list[tuple[str, str]]:
    """What was run and where, as pairs of a term and its description."""
    found: list[tuple[str, str]] = []
    runs = stored.runs
    if len(runs):
        diverged = int(runs.diverged.astype(bool).sum())
        rates = f"{runs.lr_index.nunique()} learning rates, {runs.lr.min():.2g} to {runs.lr.max():.2g}"
        found += [
            ("Data", ", ".join(runs.data_title.unique())),
            ("Networks", ", ".join(runs.model_title.unique())),
            ("Examples per class", ", ".join(str(n) for n in sorted(runs.n_per_class.unique()))),
            ("Trainings", f"{len(runs)} ({rates}; {diverged} diverged), {_range(runs.epochs)} epochs"),
            ("Trained on", ", ".join(f"{name} ({n})" for name, n in runs.device.value_counts().items())),
        ]
    of = [result.provenance for results in stored.results.values() for result in results]
    if of:
        found += [("Measurements", f"{len(of)} results of {len(stored.results)} kinds of measurement")]
        found += [("Measured on", _counted(p.get("device", "unknown") for p in of))]
        found += [("Code", _counted(p.get("code", "unknown") for p in of))]
        found += [("Versions", _counted(f"Python {p.get('python')}, torch {p.get('torch')}" for p in of))]
    return found or [("Nothing", "has been run yet")]


def _range(values: pd.Series) -> str:
    return str(values.min()) if values.nunique() == 1 else f"{values.min()}-{values.max()}"


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in Counter(names).most_common())


def selected_table(stored: Stored) -> Table:
    """The selected run of each cell beside its retraining; downloads as the table of all runs."""
    if stored.selected.empty:
        return table(pd.DataFrame())
    trained = by_cell(stored.runs)
    rows = []
    for run in stored.selected.itertuples():
        cell = Cell(run.data, run.model, run.n_per_class, run.seed)
        record = stored.retrained.get(cell, {})
        again, of = record.get("retrained_test_error"), len(trained.get(cell, ()))
        rows.append(
            {
                "data": run.data_title,
                "network": run.model_title,
                "n per class": run.n_per_class,
                "seed": run.seed,
                "learning rate": f"{run.lr:.3g} (k = {run.lr_index})" + (f", of {of} trained" if of else ""),
                "test error": f"{run.test_error:.2%}",
                "train error": f"{run.train_error:.2%}",
                "retrained": "" if again is None else f"{again:.2%}",
                "epochs": run.epochs,
            }
        )
    return table(pd.DataFrame(rows), stored.runs)


def cost_line(stored: Stored) -> str:
    """What it took, in a line."""
    if not (costs := _costs(stored)):
        return "Nothing has been computed yet."
    trainings = sum(pieces for stage, pieces, _ in costs if not stage.startswith("measure"))
    measured = sum(pieces for stage, pieces, _ in costs if stage.startswith("measure"))
    seconds = _duration(sum(seconds for _, _, seconds in costs))
    return f"{trainings} trainings and {measured} measurements, {seconds} of computing, one after the other."


def cost_table(stored: Stored) -> Table:
    """Seconds of computing by stage and kind of measurement (sums over pieces, as if done one after the other)."""
    costs = _costs(stored)
    costs.append(("all", sum(cost[1] for cost in costs), sum(cost[2] for cost in costs)))
    return table(pd.DataFrame([(a, n, _duration(s)) for a, n, s in costs], columns=["stage", "pieces", "time"]))


def _costs(stored: Stored) -> list[tuple[str, int, float]]:
    """Stage, pieces and seconds."""
    costs = []
    if len(stored.runs):
        costs.append(("sweep", len(stored.runs), float(stored.runs.seconds.sum())))
    if stored.retrained:
        seconds = sum(record["provenance"]["seconds"] for record in stored.retrained.values())
        costs.append(("retraining", len(stored.retrained), seconds))
    for name, results in sorted(stored.results.items()):
        costs.append((f"measure {name}", len(results), sum(r.provenance.get("seconds", 0.0) for r in results)))
    return costs


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def origin_table(stored: Stored) -> Table:
    """Where each result comes from."""
    rows = [
        {
            "measurement": name,
            "network": result.title,
            "code": result.provenance.get("code", ""),
            "torch": result.provenance.get("torch", ""),
            "device": result.provenance.get("device", ""),
            "seconds": f"{result.provenance.get('seconds', 0):.1f}",
            "digest": result.provenance.get("digest", ""),
        }
        for name, results in sorted(stored.results.items())
        for result in results
    ]
    return table(pd.DataFrame(rows))


def picture(entries: Sequence[FigureEntry]) -> FigureEntry | None:
    """The figure that opens the page: `PICTURE`, or the first that is drawn."""
    drawn = sorted((entry for entry in entries if not entry.missing), key=lambda entry: entry.anchor != PICTURE)
    return drawn[0] if drawn else None


def figure_entries(root: Path, figures: Mapping[str, Sequence[Cell]]) -> list[FigureEntry]:
    """The experiment's figures as drawn, with captions and numbers."""
    return [_entry(root, number, cells) for number, cells in figures.items()]


def _entry(root: Path, number: str, cells: Sequence[Cell]) -> FigureEntry:
    figure = find_figure(number)
    label, path = f"Figure {figure.number}", figure_path(root, figure)
    try:
        caption = figure.caption(figure.results(root, cells))
        image = path.with_suffix(".png").read_bytes()
        csv = csv_uri(path.with_suffix(".csv").read_text())
    except (FileNotFoundError, ValueError) as reason:
        return FigureEntry(label, figure.file_stem, figure.title, "", "", "", "", 0, 0, f"Not drawn: {reason}")
    uri = "data:image/png;base64," + base64.b64encode(image).decode()
    width, height = (round(pixels * SCALE) for pixels in struct.unpack(">II", image[16:24]))  # of the PNG's header
    return FigureEntry(label, figure.file_stem, figure.title, caption, figure.known, uri, csv, width, height, "")
