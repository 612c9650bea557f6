"""Who looks at a measurement while it is made: counts and times its products, and says when it is time to stop."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from repro.linalg.operator import LinearOperator, Stopped, asked
from repro.watch.checkpoint import MOST_BYTES, Checkpoint, ForeignCheckpointError

log = logging.getLogger(__name__)

CTRL_C = "Ctrl-C"


@dataclass(frozen=True)
class Progress:
    """How far a measurement has come; a `progress` function is given one after each product."""

    products: int  # made so far, or read from a checkpoint
    planned: int  # about so many in all; 0 if nobody has said
    part: int  # which of the spectra is being taken, from 1
    parts: int  # of how many
    converged: int  # leading eigenpairs of it that have converged so far
    wanted: int  # of how many
    seconds: float  # since the measurement began
    seconds_left: float | None  # about; None if nobody has said, and before the second product is made
    cost: str  # what the whole will cost, in a line; empty before the second product is made


class Watch:
    """Watches one measurement.

    Args:
        checkpoint: where products and finished parts are kept, and taken from.
        time_limit: seconds after which no product is begun.
        progress: is given a `Progress` after each product.
        settled: spectra are over when they have settled; see `repro.linalg.spectrum`.

    Attributes:
        found: a measurement puts its arrays here as they are made; they are what there is when it is stopped.
        stopped: why it was stopped; None as long as it was not.
    """

    def __init__(
        self,
        *,
        checkpoint: Checkpoint | None = None,
        time_limit: float | None = None,
        progress: Callable[[Progress], object] | None = None,
        settled: float | None = None,
    ):
        self.checkpoint, self.time_limit, self.progress, self.settled = checkpoint, time_limit, progress, settled
        self.found: dict[str, np.ndarray] = {}
        self.stopped: str | None = None
        self.products, self.begun = 0, time.monotonic()
        self.converged, self.wanted = 0, 0
        self._asked: str | None = None
        self._number = 0  # of the present part in the checkpoint
        self._part, self._parts, self._of_part = 0, 1, 0  # of those planned: the present one, how many, their products
        self._basis = self._kept = 0.0  # bytes in memory, and in a checkpoint
        self._before_part = 0  # products of the parts before
        self._made, self._first_made_at, self._of_one = 0, 0.0, 0.0  # products, and seconds of a single one
        self._cost = ""
        self._proved = False

    def plan(self, parts: int, products: int, *, basis: float, vector: float) -> None:
        """A measurement says of how many parts it is, and about how many products each takes.

        Args:
            basis, vector: bytes of the Lanczos basis, and of one vector.
        """
        self._parts, self._of_part, self._basis = parts, products, basis
        self._kept = min(products * vector, MOST_BYTES)

    def over(self, A: LinearOperator) -> LinearOperator:
        """The same matrix, its products watched."""
        return Watched(A, self)

    def once(self, work: Callable[[], dict[str, np.ndarray]], *, planned: bool = True) -> dict[str, np.ndarray]:
        """What a part of the measurement comes to; one that is in the checkpoint is not done again.

        Args:
            planned: whether it is one of those that `plan` counts; else it is work without products.
        """
        self._number += 1
        if planned:
            self._part, self._before_part = self._part + 1, self.products
        self.converged = self.wanted = 0
        if self.checkpoint is None:
            return work()
        taken = self.checkpoint.taken
        arrays = self.checkpoint.part(self._number)
        if arrays is None:
            arrays = work()
            if self.stopped is None:
                self.checkpoint.finish(arrays)
        elif planned:
            self.products += self.checkpoint.taken - taken
            self._tell()
        return arrays

    def result_of(self, measure: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What a measurement returns; what it has `found`, where it is stopped.

        Raises:
            TimeoutError, KeyboardInterrupt: it was stopped and has found nothing yet.
        """
        try:
            return measure()
        except Stopped:
            if self.found:
                return self.found
            if self._asked == CTRL_C:
                raise KeyboardInterrupt(self.stopped) from None
            raise TimeoutError(
                f"stopped before anything was measured ({self.stopped}): give it more time, or with checkpoint=<folder>"
                " call it again"
            ) from None

    def stop(self, reason: str) -> None:
        """Let the next product be refused."""
        self._asked = reason

    def look(self, seconds: float = 0.0) -> None:
        """Called before work that takes so many seconds.

        Raises:
            Stopped: it is time to stop, or would be before that work is over.
        """
        if self.time_limit is not None and time.monotonic() + seconds - self.begun >= self.time_limit:
            self._asked = self._asked or f"time_limit of {self.time_limit:g} s"
        if self._asked:
            of = f" of about {planned}" if (planned := self._planned()) else ""
            after = f", after {self.products}{of} products" if self.products or planned else ""
            self.stopped = self.stopped or f"{self._asked}{after}"
            raise Stopped(self.stopped)

    def product(self, A: LinearOperator, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        """A V, from the checkpoint or made.

        Raises:
            Stopped: it is time to stop.
        """
        self.look(self._of_one * V.shape[1])
        start = time.monotonic()
        known = self.checkpoint.take(V) if self.checkpoint else None
        if known is not None:
            self._prove(A, V, known)
        else:
            known = (A @ V).T.contiguous().T  # laid out as it is read
            if self.checkpoint:
                self.checkpoint.keep(V, known)
            self._time(V.shape[1], start)
        self.products += V.shape[1]
        self._tell()
        return known

    def _prove(self, A: LinearOperator, V: Tensor, known: Tensor) -> None:
        """The first product that is read is made, too: a checkpoint of another matrix does not come through."""
        if not self._proved:
            self._proved = True
            made = A @ V
            if not torch.allclose(made, known, rtol=0, atol=torch.finfo(V.dtype).eps ** 0.5 * float(made.abs().max())):
                where = self.checkpoint.folder if self.checkpoint else ""
                raise ForeignCheckpointError(
                    f"the products in {where} are of another matrix than {A.name} is now; name another folder, or"
                    " delete it"
                )

    def _time(self, count: int, start: float) -> None:
        """The first product also proves itself and records graphs: it says nothing of the others."""
        now = time.monotonic()
        self._made += count
        if self._made == count:
            self._first_made_at = now
        else:
            self._of_one = (now - start) / count
        if self._of_one and self._planned() and not self._cost:
            self._cost = self._cost_line()
            log.info("%s", self._cost)

    def _cost_line(self) -> str:
        left = max(self._planned() - self.products, 0)
        basis = f"{_size(self._basis)} basis, " if self._basis else ""
        parts = f"{self._parts} spectra, " if self._parts > 1 else ""
        most = "at most " if self.settled else ""
        total = f"{most or 'about '}{duration(left * self._of_one)}"
        where = f"; up to {_size(self._kept)} in {self.checkpoint.folder}" if self.checkpoint else ""
        return f"{basis}{parts}{most}{left} products of {duration(self._of_one)}: {total}{where}"

    def _planned(self) -> int:
        if not self._of_part:
            return 0
        of_this = max(self._of_part, self.products - self._before_part)
        return self._before_part + of_this + max(self._parts - self._part, 0) * self._of_part

    def _tell(self) -> None:
        if self.progress is None:
            return
        now, left, planned = time.monotonic(), None, self._planned()
        if self._of_one and planned:
            pace = (now - self._first_made_at) / (self._made - 1)  # with what Lanczos does between products
            left = max(planned - self.products, 0) * pace
        self.progress(
            Progress(
                self.products,
                planned,
                self._part,
                max(self._parts, self._part),
                self.converged,
                self.wanted,
                now - self.begun,
                left,
                self._cost,
            )
        )


class Watched(LinearOperator):
    """A matrix whose products go by a watch."""

    def __init__(self, A: LinearOperator, watch: Watch):
        super().__init__(torch.empty(1, dtype=A.dtype, device=A.device).expand(A.dim))
        self.A, self.watch = A, watch

    @property
    def name(self) -> str:
        return self.A.name

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        return self.watch.stopped is not None

    @property
    def listening(self) -> bool:  # type: ignore[override]
        return self.watch.progress is not None

    def found(self, converged: int, wanted: int) -> None:
        self.watch.converged, self.watch.wanted = converged, wanted

    def matmat(self, V: Tensor) -> Tensor:  # [P, K] -> [P, K]
        return self.watch.product(self.A, V)


_current: ContextVar[Watch | None] = ContextVar("watch", default=None)


def current() -> Watch:
    """The watch of the measurement that is being made; one that looks at nothing where nobody watches."""
    return _current.get() or Watch()


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let it be `current` in the block; what waits to be kept is written at its end."""
    token, before = _current.set(watch), asked.set(watch.look)
    try:
        yield
    finally:
        _current.reset(token)
        asked.reset(before)
        if watch.checkpoint:
            watch.checkpoint.flush()
            watch.checkpoint.wait()


@contextlib.contextmanager
def interruptible(watch: Watch) -> Iterator[None]:
    """Ctrl-C in the block stops the watched measurement after the product or batch it is at; a second one ends it now.

    Where nothing has been found and no product made there is nothing to save, and the first one ends it. Only the main
    thread hears of Ctrl-C; in others nothing changes.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if watch._asked or not (watch.products or watch.found):
            raise KeyboardInterrupt
        watch.stop(CTRL_C)
        print("stopping after this product or batch; Ctrl-C once more to leave at once", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _size(size: float) -> str:
    return f"{size / 1e9:.2g} GB" if size >= 1e8 else f"{size / 1e6:.2g} MB"


def duration(seconds: float) -> str:
    """A time for people: 4.7 s, 12 min, 2.5 h."""
    for unit, name in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.2g} {name}" if seconds < 10 * unit else f"{seconds / unit:.0f} {name}"
    return f"{seconds:.2g} s"
