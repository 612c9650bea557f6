"""What pages show of the folders they describe, so that no page lists files by hand (a hook of mkdocs)."""

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, page, **_) -> str:
    if page.file.src_uri == "benchmarks.md":
        return "\n\n".join([markdown, *map(table, sorted((ROOT / "docs/benchmarks").glob("*.csv")))])
    if page.file.src_uri == "api/measurements.md":
        modules = sorted((ROOT / "repro/measurements").glob("[a-z]*.py"))
        options = "    options: {members: [Settings, measure]}"
        shown = (f"::: repro.measurements.{module.stem}\n{options}" for module in modules)
        return "\n\n".join([markdown, *shown])
    return markdown


def table(path: Path) -> str:
    """A csv file as a section of Markdown, its numbers to four digits."""
    header, *rows = csv.reader(path.read_text().splitlines())
    cells = [[name.replace("_", " ") for name in header], ["---"] * len(header), *[map(short, row) for row in rows]]
    body = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([f"## {path.stem.replace('_', ' ').capitalize()}", "", *body])


def short(cell: str) -> str:
    return f"{float(cell):.4g}" if re.fullmatch(r"-?\d+\.\d{4,}", cell) else cell.replace("|", "\\|")
