"""One module a figure: stored results in, matplotlib figure out. Nothing here imports torch.

A module `fig05_<slug>.py` is Figure 5 of the paper, `x01_<slug>.py` extra figure x1, which is ours. Each has
    a docstring whose first line is the title,
    MEASUREMENTS: tuple[str, ...]              what it is drawn from,
    FALLBACK: str                              optional: replaces "exact_spectrum" on cells that are too large for it,
    draw(results: Results) -> Figure,
    caption(results: Results) -> str           what is seen: data, network, n, epoch, experiment; one plain paragraph,
    PAPER: str                                 what is known of the paper's figure, and what is our choice; optional.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from repro.storage.files import write_atomically, write_json
from repro.storage.identity import drawing
from repro.storage.results import Cell
from repro.storage.sealed import read_json, stored

if TYPE_CHECKING:  # whoever asks which figures there are draws none
    from matplotlib.figure import Figure

    from repro.figures.results import Results


def _modules() -> dict[str, str]:
    """Number ("5", "x1") -> module, the paper's figures first."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(__path__):
        if match := re.fullmatch(r"(fig|x)(\d+)_\w+", module.name):
            number = ("x" if match[1] == "x" else "") + str(int(match[2]))
            if number in found:
                raise ValueError(
                    f"figure {number} is both {found[number]}.py and {module.name}.py; give one another number"
                )
            found[number] = module.name
    return dict(sorted(found.items(), key=lambda item: (item[0].startswith("x"), int(item[0].lstrip("x")))))


FIGURES: dict[str, str] = _modules()


class PaperFigure(NamedTuple):
    """One figure of the registry."""

    number: str  # "5", or "x1" for ours
    module: str

    @property
    def file_stem(self) -> str:
        """Name of its files: fig05, x01."""
        return self.module.split("_")[0]

    @property
    def title(self) -> str:
        first_line = (self._loaded().__doc__ or "").strip().splitlines()[0]
        title = re.sub(r"^(Extra figure|Figure|Fig\.?) \w+\s*[:.]\s*", "", first_line).rstrip(".")
        return title[:1].upper() + title[1:]

    @property
    def measurements(self) -> tuple[str, ...]:
        return tuple(self._loaded().MEASUREMENTS)

    @property
    def fallback(self) -> str | None:
        """What takes the place of `exact_spectrum` on cells that are too large for it; None: nothing does."""
        return getattr(self._loaded(), "FALLBACK", None)

    def drawn_from(self, measurement: str) -> bool:
        """Whether one measurement is all that it needs."""
        return len(self.measurements) == 1 and measurement in (*self.measurements, self.fallback)

    def results(self, root: Path, cells: Iterable[Cell], experiment: str | None = None) -> Results:
        """What is stored below `root` of all that the figure is drawn from; see `Results.load`."""
        from repro.figures.results import Results

        return Results.load(root, self.measurements, cells, experiment, fallback=self.fallback)

    def draw(self, results: Results) -> Figure:
        """The figure, in the house style whatever the caller's matplotlib settings are."""
        from repro.figures import style

        with style.theme():
            return self._loaded().draw(results)

    def caption(self, results: Results) -> str:
        return self._loaded().caption(results)

    @property
    def known(self) -> str:
        """What is known of the paper's figure, apart from the caption; empty if the module says nothing."""
        return getattr(self._loaded(), "PAPER", "")

    def _loaded(self) -> ModuleType:
        return importlib.import_module(f"{__name__}.{self.module}")


def find_figure(number: str | int) -> PaperFigure:
    """The figure called 5, "05", "fig5", "x1" or "x01".

    Raises:
        ValueError: there is none; the sentence names the nearest and all there are.
    """
    name = str(number).strip().lower()
    asked = re.sub(r"^fig(ure)?\s*", "", name)
    asked = re.sub(r"^(x?)0+(?=\d)", r"\1", asked)
    if asked in FIGURES:
        return PaperFigure(asked, FIGURES[asked])
    near = difflib.get_close_matches(name, [*FIGURES, *FIGURES.values()], n=2)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"There is no figure {number!r}.{hint} There are: {', '.join(FIGURES)}.")


def figure_path(root: Path, figure: PaperFigure, label: str = "") -> Path:
    """Where a figure's files lie below an experiment's folder, without suffix; `label` says which cells it shows."""
    return root / "figures" / (f"{figure.file_stem}-{label}" if label else figure.file_stem)


def draw(
    root: Path, number: str, cells: Sequence[Cell], experiment: str, *, label: str = "", force: bool = False
) -> None:
    """Draw one figure of an experiment from what is stored below `root`: PDF, PNG, and the numbers drawn as csv.

    Nothing is done, unless forced, where these files are there and were drawn from the same results by the same code,
    which a digest in the json file beside them tells.
    """
    paper_figure = find_figure(number)
    path = figure_path(root, paper_figure, label)
    read = [name for name in (*paper_figure.measurements, paper_figure.fallback) if name]
    wanted = {"digest": drawing(root, paper_figure.number, read, cells, experiment)}
    if not force and _drawn_as(path, wanted):
        return
    from repro.figures import style
    from repro.figures.numbers import drawn_numbers

    results = paper_figure.results(root, cells, experiment)
    figure = paper_figure.draw(results)
    path.with_suffix(".json").unlink(missing_ok=True)  # until all files are written, they are nobody's
    style.save_figure(figure, path)
    numbers = drawn_numbers(figure)
    write_atomically(path.with_suffix(".csv"), lambda p: numbers.to_csv(p, index=False, float_format="%.6g"))
    write_json(path.with_suffix(".json"), wanted)


def _drawn_as(path: Path, wanted: Mapping[str, str]) -> bool:
    """Whether all files of a figure are there, and the digest beside them is the one wanted."""
    if not all(path.with_suffix(suffix).exists() for suffix in (".pdf", ".png", ".csv", ".json")):
        return False
    return stored(path.with_suffix(".json"), read_json) == wanted
