"""The gallery of the documentation: every figure of an experiment with its caption, as Markdown beside its pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from repro.figures import figure_path, find_figure
from repro.figures.results import Results
from repro.storage.files import write_atomically
from repro.storage.results import Cell


def write_gallery(root: Path, figures: Mapping[str, Sequence[Cell]], page: Path) -> None:
    """Write `page` (docs/gallery.md) and copy the PNGs drawn below `root` into the folder of its name beside it.

    Raises:
        FileNotFoundError: a figure has not been drawn, or lacks results.
    """
    parts = [f"# Gallery\n\nAll figures of experiment {_plain(root.name)}, as `make reproduce` draws them.\n"]
    for number, cells in figures.items():
        figure = find_figure(number)
        image = figure_path(root, figure).with_suffix(".png").read_bytes()
        target = page.with_suffix("") / f"{figure.file_stem}.png"
        write_atomically(target, lambda path, image=image: path.write_bytes(image))  # type: ignore[misc]
        caption = _plain(figure.caption(Results.load(root, figure.measurements, cells)))
        title, folder = _plain(figure.title), quote(target.parent.name)
        link = f"![{title}]({folder}/{target.name})"
        parts.append(f"## Figure {figure.number}. {title}\n\n{link}\n\n{caption}\n")
    write_atomically(page, lambda path: path.write_text("\n".join(parts), encoding="utf-8"))


def _plain(text: str) -> str:
    """Text that neither HTML nor the links of Markdown take for more than that."""
    return html.escape(text, quote=False).replace("[", "&#91;").replace("]", "&#93;")
