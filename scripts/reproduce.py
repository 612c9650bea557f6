"""The pipeline: train, select, retrain, measure, draw. What is finished is never computed again.

    python scripts/reproduce.py all                          everything of the default experiment
    python scripts/reproduce.py sweep experiment=paper data=mnist n_per_class=10,13
    python scripts/reproduce.py fig5                         one figure, computing only what it lacks
    python scripts/reproduce.py status
    python scripts/reproduce.py all experiment=paper launch=slurm

Commands: all, sweep, select, retrain, measure, figures, report, fig<number>, plan, status; then Hydra overrides.
"""

from __future__ import annotations

import argparse
import sys

from repro.experiment import Experiment
from repro.launch.local import Workers
from repro.tasks import Task, finished, run

COMPUTED = ("sweep", "retrain", "measure")
COMMANDS = ("all", *COMPUTED, "select", "figures", "report", "plan", "status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", help=f"{', '.join(COMMANDS)}, or fig<number>")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. experiment=paper data=mnist")
    args = parser.parse_args()
    try:
        command(args.command, args.overrides)
    except KeyboardInterrupt:
        sys.exit("interrupted; what is finished is kept, the same command goes on from here")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def command(name: str, overrides: list[str]) -> None:
    """Do what `name` asks for with the experiment that `overrides` describe."""
    experiment = Experiment(overrides)
    figure = name.removeprefix("fig") if name.startswith("fig") and name != "figures" else None
    if figure is None and name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}; there are {', '.join(COMMANDS)} and fig<number>")
    stages = experiment.stages(None if figure is None else [figure])
    if name in ("plan", "status"):
        (show_plan if name == "plan" else show_status)(stages)
        return
    with Workers(experiment.launch["workers"]) as workers:
        for stage, tasks in stages.items():
            if name in ("all", stage) or figure is not None:
                run_stage(stage, tasks, workers)
    print(f"results: {experiment.root}")


def run_stage(stage: str, tasks: list[Task], workers: Workers) -> None:
    """Run what is not finished of one stage."""
    if stage in COMPUTED:
        workers.run([task for task in tasks if task.config["force"] or not finished(task)])
    else:
        for task in tasks:
            run(task)


def show_status(stages: dict[str, list[Task]]) -> None:
    """A line a stage: tasks finished and to do."""
    for stage in COMPUTED:
        print(f"{stage:8} {sum(map(finished, stages[stage])):6} of {len(stages[stage])} tasks finished")


def show_plan(stages: dict[str, list[Task]]) -> None:
    """Jobs, trainings, hours and disk of what is still to do, predicted from a calibration on this device."""
    from repro.plan import plan  # imports torch, which the other commands do without

    show_status(stages)
    print("timing each network on this device ...", flush=True)
    ahead, deviation = plan(stages["sweep"], stages["retrain"])
    print(f"to do    {ahead.jobs} jobs, {ahead.trainings} trainings (measurements not counted)")
    print(f"time     {ahead.hours:.2f} device hours, longest job {ahead.longest_job_hours:.2f} h")
    print(f"disk     {ahead.disk_bytes / 1e9:.2f} GB")
    for network, ratio in deviation.items():
        print(f"check    {network}: predicted {ratio:+.0%} against the finished runs' own time")


if __name__ == "__main__":
    main()
