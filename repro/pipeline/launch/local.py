"""Run the tasks of a stage on this machine: one persistent worker process per core or GPU, with one thread each.

Workers live on between tasks, so that Python, torch and the data are loaded once. Where a stage has fewer tasks than
there are cores, those that may share the idle ones.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Task as Bar
from rich.text import Text

from repro.pipeline import tasks
from repro.pipeline.devices import worker_gpus
from repro.pipeline.tasks import Task

T = TypeVar("T")

WORKER_ENVIRONMENT = {  # read when a worker starts and loads torch
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads of a task that has several sleep while they wait: others may work here
    # glibc hands large freed blocks back and takes them anew, page by page, in each product; kept, a Hessian product of
    # the narrow ResNet18 takes 0.82 of the time, and its evaluation 0.76. Only the two together help.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
_all_here: Any = None  # in a worker: the barrier at which all of them meet
KILLED = "a worker process was killed (out of memory?)"


class FailedTasksError(RuntimeError):
    """Some tasks of a stage raised; what the others finished is kept."""


class Workers:
    """Worker processes that live on from stage to stage; a context manager.

    Args:
        count: how many; "auto" is one per GPU where there are any and `device` admits them, else one per core.
        device: what the tasks ask for: auto, cpu, cuda or cuda:<number>.
    """

    def __init__(self, count: int | str, device: str = "auto"):
        self._count, self._device = count, device
        self._pool: ProcessPoolExecutor | None = None
        self._ready: Any = None  # how many workers have loaded what tasks need
        self._workers = 0  # of the pool

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            print("stopping ...", file=sys.stderr, flush=True)
            for worker in multiprocessing.active_children():  # they would finish their tasks, and files never break
                worker.kill()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, pending: Sequence[Task]) -> None:
        """Run tasks of one stage that are not finished, longest first; go on when one fails.

        Raises:
            FailedTasksError: a task raised or its worker was killed; the sentence names task, reason and log file.
        """
        if not pending:
            return
        failures = self._failures(sorted(pending, key=_size, reverse=True))
        if failures:
            shown = "\n".join(f"  {name}: {reason}" for name, reason in failures[:5])
            raise FailedTasksError(
                f"{len(failures)} of {len(pending)} tasks of stage {pending[0].stage} failed; "
                f"the others are kept, run again to do the rest:\n{shown}"
            )

    def on_all(self, function: Callable[..., T], *arguments: Any) -> list[T]:
        """What a function returns in each worker, where all run it at the same time with one thread each.

        Raises:
            RuntimeError: a worker was killed.
        """
        self._pool = self._pool or self._start()
        futures = [self._pool.submit(_at_once, function, arguments) for _ in range(self._workers)]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise RuntimeError(f"{KILLED}; fewer of them, launch.workers=..., need less memory") from error

    def _failures(self, pending: Sequence[Task]) -> list[tuple[str, str]]:
        """Name and reason of each task that failed.

        Where a worker is killed, for memory say, the tasks that ran then are run again after all others, each alone.
        """
        failures, again = [], list[Task]()
        with _progress(pending[0].stage, pending, lambda: self._ready is not None and self._ready.value > 0) as ended:
            for todo, alone in ((pending, False), (again, True)):
                for ran, error in self._ends(todo, alone=alone):
                    if len(ran) > 1:
                        again += ran
                        continue
                    (task,) = ran
                    if error is not None:
                        killed = isinstance(error, BrokenProcessPool)
                        reason = KILLED if killed else f"{type(error).__name__}: {error}"
                        failures.append((task.name, f"{reason}; log: {log_path(task)}"))
                    ended(task)
        return failures

    def _ends(self, pending: Sequence[Task], *, alone: bool) -> Iterator[tuple[list[Task], BaseException | None]]:
        """Each task as it ends, with what it raised; all that ran when a worker was killed come together.

        Raises:
            FailedTasksError: the workers are killed before they begin.
        """
        waiting, running = deque(pending), dict[Future[None], Task]()
        while waiting or running:
            self._pool = self._pool or self._start()
            with _interrupts_held(), contextlib.suppress(BrokenProcessPool):  # then those that run say it, too
                while waiting and len(running) < (1 if alone else self._workers):
                    future = self._pool.submit(run_logged, waiting[0], self.threads(waiting[0], len(pending)))
                    running[future] = waiting.popleft()
            done = wait(running, return_when=FIRST_COMPLETED).done
            if broken := not running or any(map(_lost, done)):
                done = wait(running).done  # the others end with it
            lost = [running[future] for future in done if _lost(future)]
            for future in done:
                task = running.pop(future)
                if not _lost(future):
                    yield [task], future.exception()
            if broken:
                self._pool.shutdown()
                self._pool = None
                if self._ready.value == 0:
                    raise FailedTasksError("the worker processes are killed before they begin (out of memory?)")
            if lost:
                yield lost, BrokenProcessPool()

    def threads(self, task: Task | type[Task], count: int) -> int:
        """Threads of a task that runs beside count − 1 others."""
        if self._count != "auto" or not task.any_threads:
            return 1
        return max(1, len(os.sched_getaffinity(0)) // count)

    def _start(self) -> ProcessPoolExecutor:
        os.environ |= WORKER_ENVIRONMENT
        context = multiprocessing.get_context("spawn")  # a forked CUDA context would not work
        started, gpus = context.Value("i", 0), worker_gpus(self._device, self._count)
        self._ready = context.Value("i", 0)
        arguments = (started, self._ready, context.Barrier(len(gpus)), gpus)
        self._workers = len(gpus)
        return ProcessPoolExecutor(len(gpus), mp_context=context, initializer=_begin, initargs=arguments)


def _lost(future: Future[None]) -> bool:
    """Whether a worker was killed while this ran."""
    return future.done() and isinstance(future.exception(), BrokenProcessPool)


def log_path(task: Task) -> Path:
    """The log file of a task, below its experiment's folder."""
    return task.root / "logs" / task.stage / f"{task.name.replace('/', '_')}.log"


class TaskLog(logging.FileHandler):
    """A log that may fall silent, on a full disk say, and does not take its task with it. A process says so once."""

    said: ClassVar[bool] = False

    def __init__(self, path: Path):
        super().__init__(path, delay=True)  # opened by the first record, so that it, too, may fail
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._silent = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._silent:
            try:
                Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
                super().emit(record)
            except OSError:
                self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self._silent = True
        if not TaskLog.said:
            reason = sys.exc_info()[1]
            print(f"cannot write {self.baseFilename} ({reason}); the tasks go on without logs", file=sys.stderr)
        TaskLog.said = True

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written is still to be written
            super().close()


def run_logged(task: Task, threads: int | None = None) -> None:
    """Run one task with its log in its own file; an exception leaves its traceback there and is raised.

    Args:
        threads: of torch; None leaves them as they are.
    """
    handler = TaskLog(log_path(task))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    start = time.perf_counter()
    try:
        if threads is not None:
            set_threads(threads)
        tasks.run(task)
        root.info("done in %.1f s", time.perf_counter() - start)
    except BaseException:
        root.error(traceback.format_exc())
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


def set_threads(count: int) -> None:
    """How many threads torch takes from here on in this process."""
    import torch

    torch.set_num_threads(count)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes that are started in it never hear of it, their driver does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(started: Any, ready: Any, barrier: Any, gpus: Sequence[str | None]) -> None:
    """Set up a worker: its GPU (None: what its driver sees), an end when its driver is killed, and torch."""
    global _all_here
    _all_here = barrier
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if (gpu := gpus[number % len(gpus)]) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch is loaded

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import repro.pipeline.trained  # noqa: F401  what every task needs, and seconds of work

    with ready.get_lock():
        ready.value += 1


def _at_once(function: Callable[..., T], arguments: Sequence[Any]) -> T:
    """In a worker: what a function returns that all workers begin at the same time."""
    set_threads(1)
    _all_here.wait()
    return function(*arguments)


def _size(task: Task) -> float:
    """Relative cost of a task: only the order of tasks and the bar's pace depend on it."""
    return task.cost or 1e-9  # next to nothing


class _Counts(ProgressColumn):
    """Tasks that have ended and all there are; before the first begins, that workers are being started."""

    def __init__(self, ready: Callable[[], bool]):
        super().__init__()
        self._ready = ready

    def render(self, task: Bar) -> Text:
        return Text("{done}/{count} tasks".format_map(task.fields) if self._ready() else "starting workers")


@contextlib.contextmanager
def _progress(stage: str, pending: Sequence[Task], ready: Callable[[], bool]) -> Iterator[Callable[[Task], None]]:
    """A bar on a terminal, a line at the end elsewhere; yields what to call when a task has ended."""
    console, start = Console(stderr=True), time.perf_counter()
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        _Counts(ready),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=600) as bar:
        shown = bar.add_task(stage, total=sum(map(_size, pending)), done=0, count=len(pending))

        def ended(task: Task) -> None:
            bar.update(shown, advance=_size(task), done=bar.tasks[0].fields["done"] + 1)

        yield ended
    if not console.is_terminal:
        print(f"{stage}: {len(pending)} tasks in {time.perf_counter() - start:.0f} s", flush=True)
