"""The pipeline: train, select, retrain, measure, draw. What is finished is never computed again.

    python scripts/reproduce.py all                          everything of the default experiment
    python scripts/reproduce.py sweep experiment=paper data=mnist n_per_class=10,13
    python scripts/reproduce.py fig5                         one figure, computing only what it lacks
    python scripts/reproduce.py status
    python scripts/reproduce.py compare embedded smoke       two experiments side by side
    python scripts/reproduce.py all experiment=paper launch=slurm

Commands: all, sweep, select, retrain, measure, figures, report, fig<number>, plan, status, show (what was selected and
what it took), compare, gallery (fills docs/gallery and README with the figures and the score that are there); then
Hydra overrides. With launch=slurm the first eight submit jobs and return (--dry-run only shows them), and there are
further commands: wait (until no job is left), logs (of what failed), retry (what failed or was lost) and cancel.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from repro.pipeline.devices import worker_gpus
from repro.pipeline.experiment import Experiment
from repro.pipeline.launch import queue
from repro.pipeline.launch.hints import Hints
from repro.pipeline.launch.local import Workers
from repro.pipeline.launch.submissions import done_elsewhere, submitted_path
from repro.pipeline.remembered import experiment_of
from repro.pipeline.stages.select import mend_tables
from repro.pipeline.tasks import COMPUTED, Stages, Task, finished, run, unfinished
from repro.storage.files import check_folder
from repro.storage.index import remembering
from repro.storage.layout import RESULTS, check_folder_is, claim_folder

ON_SLURM = ("wait", "logs", "retry", "cancel")
FROM_STORED = ("select", "figures", "report", "gallery", "show")
COMMANDS = ("all", *COMPUTED, "select", "figures", "report", "plan", "status", "show", "compare", "gallery", *ON_SLURM)

README = Path(__file__).resolve().parents[1] / "README.md"
SCORED = "embedded"  # the experiment whose score README shows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", help=f"{', '.join(COMMANDS)}, or fig<number>")
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides, e.g. experiment=paper data=mnist; before them those to compare"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show every sbatch and what it waits for; submit nothing"
    )
    args = parser.parse_intermixed_args()
    try:
        command(args.command, args.overrides, dry_run=args.dry_run)
    except KeyboardInterrupt:
        sys.exit("interrupted; what is finished is kept, the same command goes on from here")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def command(name: str, overrides: list[str], *, dry_run: bool) -> None:
    """Do what `name` asks for with the experiment that `overrides` describe."""
    if name == "compare":
        show_comparison(overrides)
        return
    experiment = experiment_of(overrides)
    figure = name.removeprefix("fig") if name.startswith("fig") and name != "figures" else None
    if figure is None and name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}; there are {', '.join(COMMANDS)} and fig<number>")
    check_folder_is(experiment.root, experiment.experiment)
    stages = experiment.stages(None if figure is None else [figure])
    with remembering(experiment.root):
        carry_out(name, stages, experiment, overrides, dry_run=dry_run, figure=figure)


def carry_out(
    name: str, stages: Stages, experiment: Experiment, overrides: list[str], *, dry_run: bool, figure: str | None
) -> None:
    """Do what `name` asks for with the tasks of the experiment, or only of those of a figure."""
    if name == "plan":
        show_plan(stages, experiment)
        return
    if name in FROM_STORED and experiment.launch.kind == "local":
        check_begun(experiment.root, Hints(["launch=local", *overrides]))
    if name == "gallery":
        fill_gallery(experiment)
        return
    if name == "show":
        show_stored(experiment)
        return
    if name in ("all", "figures", "report"):
        for line in experiment.left_out():
            print(line)
    of_figure = [s for s in stages if s != "sweep" or not experiment.config.missing_allowed]  # it takes what is there
    wanted = {s: of for s, of in stages.items() if name in ("all", "retry", s) or (figure and s in of_figure)}
    if experiment.launch.kind == "slurm":
        on_slurm(name, stages, wanted, experiment, overrides, dry_run)
    elif name in ON_SLURM or dry_run:
        raise ValueError(f"{'--dry-run' if dry_run else name} is about jobs on a cluster; add launch=slurm")
    elif name == "status":
        show_status(stages)
    else:
        check_folder(experiment.root)
        claim_folder(experiment.root, experiment.experiment)
        warn_of_jobs(experiment.root, Hints([*overrides, "launch=slurm"]))
        with Workers(experiment.launch.workers, experiment.config.device) as workers:
            for stage, tasks in wanted.items():
                run_stage(stage, tasks, workers)
        whole = [experiment.root / "figures", experiment.root / "report" / "index.html"]
        for made in whole if figure is None else [task.path for task in stages["figures"]]:  # type: ignore[attr-defined]
            if made.exists():
                print(made)


def check_begun(root: Path, hints: Hints) -> None:
    """Refuse to show what is stored where nothing is.

    Raises:
        ValueError: nothing of the experiment has been trained or measured.
    """
    if not any((root / folder).is_dir() for folder in RESULTS):
        raise ValueError(f"nothing is trained or measured in {root} yet; run {hints.make('reproduce')} first")


def on_slurm(
    name: str, stages: Stages, wanted: Stages, experiment: Experiment, overrides: Sequence[str], dry_run: bool
) -> None:
    """The same on a cluster: submit, or look after what was submitted."""
    from repro.pipeline.launch import slurm, status  # submitit is not needed on this machine alone

    root, launch, hints = experiment.root, experiment.launch, Hints(overrides)
    if name in ON_SLURM:
        queue.command("squeue", "--version")  # where there is none, that is what has to be said
    if name == "status":
        print("\n".join(status.report(stages, root, launch, hints)))
    elif name == "logs":
        print("\n".join(status.unfinished_logs(stages, root)))
    elif name == "cancel":
        print(f"cancelled: {', '.join(queue.cancel(root)) or 'there was nothing to cancel'}")
    elif name == "wait":
        wait(stages, root, hints)
    elif dry_run:
        print("\n".join(slurm.dry_run(wanted, root, launch)))
    else:
        claim_folder(root, experiment.experiment)
        print("\n".join(slurm.submit(wanted, root, launch, hints)) or "nothing to do")
        print(f"submitted; {hints.make('status')} shows how far it is")
        print(f"{hints.make('wait')} waits for the end, {hints.make('cancel')} stops it")


def fill_gallery(experiment: Experiment) -> None:
    """Copy the figures drawn, with their captions, to the documentation, and the score of the claims to README."""
    from repro.report import score
    from repro.report.gallery import write_gallery, write_score

    page = experiment.gallery_page()
    figures = {task.figure: task.cells for task in experiment.stages()["figures"]}  # type: ignore[attr-defined]
    write_gallery(experiment.root, figures, page)
    print(page)
    if experiment.name == SCORED:
        write_score(README, score(experiment.root))
        print(README)


def wait(stages: Stages, root: Path, hints: Hints) -> None:
    """Until no job of the experiment is left; the exit code is 1 if something is not done."""
    from repro.pipeline.launch import status

    try:
        done = status.wait(stages, root, lambda line: print(line, flush=True), seconds=10)
    except KeyboardInterrupt:
        sys.exit(
            f"the jobs go on; {hints.make('wait')} attaches again, {hints.make('status')} looks, "
            f"{hints.make('cancel')} stops them"
        )
    if not done:
        sys.exit(
            f"error: no jobs are left, but not all is done; see {hints.make('status')}, then {hints.make('retry')}"
        )


def warn_of_jobs(root: Path, hints: Hints) -> None:
    """Say so when jobs on the cluster are to do the same."""
    if not submitted_path(root).exists():
        return
    try:
        jobs = queue.jobs_of(root)
    except queue.SlurmError:  # no cluster here
        return
    if jobs:
        print(
            f"caution: {len(jobs)} jobs of this experiment are in the queue, and what they and this run have to do is "
            f"done twice; {hints.make('wait')} waits for them, {hints.make('cancel')} stops them",
            file=sys.stderr,
        )


def run_stage(stage: str, tasks: Sequence[Task], workers: Workers) -> None:
    """Run what is not finished of one stage; a figure that lacks a result does not keep the others from being drawn."""
    if stage in COMPUTED:
        workers.run(unfinished(tasks))
        return
    done, lacking = [], []
    for task in tasks:
        try:
            run(task)
            done.append(task)
        except FileNotFoundError as error:
            lacking.append(f"{stage} {task.name}: {error}")
    done_elsewhere(done)
    if done:
        print(f"{stage}: {len(done)} tasks done", flush=True)
    if lacking:
        raise FileNotFoundError("\n".join(lacking))


def show_status(stages: Stages) -> None:
    """One line per stage: tasks finished and to do."""
    for stage in COMPUTED:
        print(f"{stage:8} {sum(map(finished, stages[stage])):6} of {len(stages[stage])} tasks finished")


def show_stored(experiment: Experiment) -> None:
    """What was selected and measured, and where the time went; of a grid narrowed by overrides, of its cells alone."""
    from repro.report.stored import load_stored
    from repro.report.tables import show, write_tables

    mend_tables(experiment.root)
    tables = show(load_stored(experiment.root), experiment.cells() if experiment.narrowed else None)
    print("\n".join(write_tables(experiment.root / "tables", "show", tables)))


def show_comparison(words: Sequence[str]) -> None:
    """Two experiments side by side, from what both have stored.

    Raises:
        ValueError: they are not two, or one of them has no folder.
    """
    from repro.report.tables import compare, write_tables

    names = [word for word in words if "=" not in word]
    if len(set(names)) != 2:
        raise ValueError("compare takes the names of two experiments: make compare A=embedded B=true_scale")
    outputs = experiment_of([word for word in words if "=" in word]).root.parent
    for name in names:
        if not (outputs / name / "experiment.json").exists():
            there = ", ".join(sorted(path.parent.name for path in outputs.glob("*/experiment.json"))) or "none"
            raise ValueError(f"there is no experiment {name} in {outputs}; there are {there}")
    tables = compare({name: outputs / name for name in names})
    print("\n".join(write_tables(outputs / names[0] / "tables", f"beside-{names[1]}", tables)))


def show_plan(stages: Stages, experiment: Experiment) -> None:
    """Jobs, trainings, hours and disk of what is still to do, predicted from what is finished or timed here."""
    from repro.pipeline.plan import STARTUP_SECONDS, beyond_limit, plan, small_last_batches

    show_status(stages)
    print("predicting time, by finished trainings, and of networks without any by timing them here ...", flush=True)
    on_cluster = experiment.launch.kind == "slurm"
    count, device = experiment.launch.workers, experiment.config.device
    with contextlib.ExitStack() as stack:
        here = None if on_cluster else stack.enter_context(Workers(count, device))
        ahead = plan(stages, job_startup=STARTUP_SECONDS if on_cluster else 0.0, workers=here)
    print(f"to do    {ahead.jobs} jobs: {ahead.trainings} trainings and {ahead.measurements} measurements")
    print(f"time     {ahead.hours:.2f} device hours, of which measurements {ahead.measuring_hours:.2f} (roughly)")
    if here:
        workers = len(worker_gpus(device, count))
        print(
            f"         {ahead.hours / workers:.2f} h by {workers} workers of this machine, if all have work to the end"
        )
    print(f"longest  training job {ahead.longest_job_hours:.2f} h")
    print(f"disk     {ahead.disk_bytes / 1e9:.2f} GB")
    if on_cluster and (advice := beyond_limit(ahead, experiment.launch)):
        print(f"caution  jobs would meet their time limit and be requeued; {advice}")
    for line in small_last_batches(experiment.cells()):
        print(f"caution  {line}, whose statistics batch norm keeps; see training.last_batch")
    for network in ahead.timed:
        print(f"timed    {network}: no training of it is finished yet, so its hours are those of this device")
    for network, ratio in ahead.deviations.items():
        print(f"check    {network}: predicted {ratio:+.0%} against the time that its finished trainings took")


if __name__ == "__main__":
    main()
