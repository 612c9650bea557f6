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
from repro.launch import local
from repro.tasks import Task, finished, run

COMPUTED = ("sweep", "select", "retrain", "measure")
COMMANDS = ("all", *COMPUTED, "figures", "report", "plan", "status")


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
        show(stages)
        return
    for stage, tasks in stages.items():
        if name in ("all", stage) or figure is not None:
            run_stage(stage, tasks, experiment)
    print(f"results: {experiment.root}")


def run_stage(stage: str, tasks: list[Task], experiment: Experiment) -> None:
    """Run what is not finished of one stage."""
    if stage in ("sweep", "retrain", "measure"):
        local.run_stage(
            [task for task in tasks if task.config["force"] or not finished(task)], experiment.launch["workers"]
        )
    else:
        for task in tasks:
            run(task)


def show(stages: dict[str, list[Task]]) -> None:
    """A line a stage: tasks finished and to do."""
    for stage, tasks in stages.items():
        if stage in ("sweep", "retrain", "measure"):
            print(f"{stage:8} {sum(map(finished, tasks)):6} of {len(tasks)} tasks finished")


if __name__ == "__main__":
    main()
