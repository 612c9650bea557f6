"""A bar that shows how far a measurement has come, on a terminal and in a notebook."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Display

from repro.watch.watch import Progress, duration

PATIENCE = 2.0  # seconds that a measurement may take before there is a bar


class Bar:
    """Shows what it is called with; a context manager. Where there is neither a terminal nor a notebook it is quiet."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True)
        self._shown = self._console.is_terminal or self._console.is_jupyter
        self._display: Display | None = None
        self._said = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    def __call__(self, now: Progress) -> None:
        """Show it, after some seconds of patience; with what it will cost above it, once that is known."""
        if not self._shown or now.seconds < PATIENCE:
            return
        if self._display is None:
            columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}")
            self._display = Display(*columns, console=self._console)
            self._display.add_task("", state="")
            self._display.start()
        if now.cost and not self._said:
            self._display.print(now.cost)
            self._said = True
        part = f"spectrum {now.part} of {now.parts}" if now.parts > 1 else ""
        state = f"{now.products} of about {now.planned} products" if now.planned else f"{now.products} products"
        if now.wanted:
            state += f", {now.converged} of {now.wanted} outliers converged"
        if now.seconds_left is not None:
            state += f", about {duration(now.seconds_left)} left"
        task = self._display.task_ids[0]
        self._display.update(task, description=part, completed=now.products, total=now.planned or None, state=state)
