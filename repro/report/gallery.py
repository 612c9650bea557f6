"""The gallery of the documentation: every figure of an experiment with its caption, as Markdown beside its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from repro.figures import figure_path, find_figure
from repro.storage.files import write_atomically
from repro.storage.results import Cell


def write_gallery(root: Path, figures: Mapping[str, Sequence[Cell]], page: Path) -> None:
    """Write `page` (docs/gallery.md) and copy the PNGs drawn below `root` into the folder of its name beside it.

    Raises:
        FileNotFoundError: a figure has not been drawn, or lacks results.
    """
    parts = [f"# Gallery\n\nAll figures of experiment {root.name}, as `make reproduce` draws them.\n"]
    for number, cells in figures.items():
        figure = find_figure(number)
        image = figure_path(root, figure).with_suffix(".png").read_bytes()
        target = page.with_suffix("") / f"{figure.file_stem}.png"
        write_atomically(target, lambda path, image=image: path.write_bytes(image))  # type: ignore[misc]
        caption = figure.caption(figure.results(root, cells))
        link = f"![{figure.title}]({target.parent.name}/{target.name})"
        parts.append(f"## Figure {figure.number}. {figure.title}\n\n{link}\n\n{caption}\n")
    write_atomically(page, lambda path: path.write_text("\n".join(parts), encoding="utf-8"))
