"""The configuration of an experiment, as types: what each key of conf/ is, and what Hydra checks values against."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from repro.data import DataSet
from repro.pipeline.grid import LearningRates
from repro.training import Recipe

CONF = (Path(__file__).parent.parent / "conf").resolve()  # a link to conf/ in a checkout, a copy where it is installed
STAGES = ("sweep", "select", "retrain", "measure", "figures", "report")


@dataclass(frozen=True)
class Resources:
    """What a SLURM job asks for; names and units are those of submitit's SlurmExecutor (time in minutes)."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    exclusive: bool | None = None
    gres: str | None = None
    nodes: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem: str | None = None
    time: int | None = None
    signal_delay_s: int | None = None  # notice before the time limit: a job is told and requeued that much ahead
    array_parallelism: int | None = None  # jobs of an array that run at once
    mail_user: str | None = None
    mail_type: str | None = None
    setup: list[str] | None = None  # shell lines before the job
    additional_parameters: dict[str, Any] | None = None  # further options of sbatch


@dataclass(frozen=True)
class StageResources(Resources):
    """What the jobs of one stage ask for instead; None is what all stages ask for."""

    tasks_per_job: int | None = None  # how many tasks a job does one after the other; None: all


@dataclass(frozen=True)
class Launch:
    """Where tasks run; the keys of conf/launch/<name>.yaml."""

    kind: str  # local or slurm
    rates_per_task: int  # trainings of one task of the sweep, at most
    petaflop_per_task: float | None = None  # its work (1e15 operations), at most; None is no limit
    workers: Any = "auto"  # on this machine: how many processes; auto: one per core, or one per GPU
    retries: int = 0  # on SLURM: further passes over a stage, for tasks whose job died
    requeues: int = 0  # on SLURM: times that a job which met its time limit goes on
    resources: Resources = field(default_factory=Resources)
    stages: dict[str, StageResources] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.stages) - set(STAGES)):
            raise ValueError(f"launch.stages.{unknown[0]}: there is no such stage; there are {', '.join(STAGES)}")
        if self.kind not in ("local", "slurm"):
            raise ValueError(f"launch.kind is {self.kind!r}; it must be local or slurm")
        if self.rates_per_task < 1 or (self.petaflop_per_task is not None and self.petaflop_per_task <= 0):
            raise ValueError(
                "launch.rates_per_task must be at least 1 and launch.petaflop_per_task more than 0, "
                f"got {self.rates_per_task} and {self.petaflop_per_task}"
            )
        if self.workers != "auto" and not (isinstance(self.workers, int) and self.workers >= 1):
            raise ValueError(f"launch.workers is {self.workers!r}; it must be auto or a positive number")
        if min(self.retries, self.requeues) < 0:
            raise ValueError("launch.retries and launch.requeues cannot be negative")

    def of_stage(self, stage: str) -> dict[str, Any]:
        """What the jobs of a stage ask for, by name; what nobody asks for is left out."""
        own = self.stages.get(stage, StageResources())
        found = {key.name: getattr(self.resources, key.name) for key in fields(Resources)}
        found |= {key: value for key, value in vars(own).items() if key in found and value is not None}
        return {key: value for key, value in found.items() if value is not None}

    def tasks_per_job(self, stage: str) -> int | None:
        """How many tasks of a stage a job does one after the other; None: all."""
        return self.stages.get(stage, StageResources()).tasks_per_job


@dataclass(frozen=True)
class Shown:
    """Which cells a figure shows: those whose coordinates are among the values; None admits all."""

    data: list[str] | None = None
    model: list[str] | None = None
    n_per_class: list[Any] | None = None  # numbers, or size<k>
    seed: list[int] | None = None


@dataclass(frozen=True)
class Machine:
    """Where and how it is computed: no result depends on it beyond rounding."""

    device: str  # auto, cpu, cuda, cuda:1
    data_root: str  # where data sets are, or are downloaded to
    download: bool
    checkpoint_seconds: float  # a training saves itself that often, and resumes
    curvature_batch: int  # examples per batch when curvature is averaged

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device={self.device} is none of auto, cpu, cuda and cuda:<number>")
        if self.curvature_batch < 1:
            raise ValueError(f"curvature_batch={self.curvature_batch}: at least one example per batch is needed")


def check_name(name: str) -> str:
    """The name of an experiment, if a folder in `outputs` can be called so.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(
            f"name={name}: an experiment is called as its folder in outputs, by letters, digits and . + - _, the first "
            "of them a letter or digit"
        )
    return name


@dataclass(frozen=True)
class Config(Machine):
    """One cell of the grid and what holds for the whole experiment: the keys of conf/train.yaml and measure.yaml."""

    name: str
    outputs: str
    data: DataSet
    model: dict[str, Any]  # see repro.models.Architecture
    training: Recipe
    learning_rates: LearningRates
    launch: Launch
    measurements: Mapping[str, Any]  # an instance of its Settings for each measurement
    figures: dict[str, Shown]
    n_per_class: int | str
    width: float  # times the paper's widths, of networks whose file refers to it
    seed: int
    lr_index: int | str
    engine: str
    stack_bytes: float
    checkpoints: int
    retrain_tolerance: float
    missing_allowed: int
    force: bool
    epochs_of: dict[str, int]
    rates_of: dict[str, dict[str, float]]
    sizes_of: dict[str, list[Any]]
    gallery: str | None
    measurement: str | None = None  # of `python -m repro measure`
    weights: str | None = None

    def __post_init__(self) -> None:
        from repro.training.engines import ENGINES  # loads torch, which what is composed already does without

        super().__post_init__()
        check_name(self.name)
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine}: it must be {' or '.join(ENGINES)}")
        for key, least in (("checkpoints", 1), ("missing_allowed", 0), ("retrain_tolerance", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"{key}={getattr(self, key)} must be at least {least}")

    @property
    def root(self) -> Path:
        """The folder of the experiment's results, or of those of a weights file."""
        experiment = Path(self.outputs) / self.name
        return experiment / Path(self.weights).stem if self.weights else experiment

    @property
    def machine(self) -> Machine:
        """The part that no result depends on."""
        return Machine(**{key.name: getattr(self, key.name) for key in fields(Machine)})
