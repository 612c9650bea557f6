"""From the files of conf/ and a command line to a typed configuration; the only place that knows Hydra.

Files and command lines override the values of one schema, the class Config with the settings of every measurement in
it, so that a misspelt key or a value of the wrong type is refused wherever it stands, in one sentence.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra import main as application
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from repro.data import DataSet
from repro.measurements import MEASUREMENTS, find_measurement
from repro.pipeline.config import CONF, Config, check_name
from repro.pipeline.grid import sample_size
from repro.pipeline.schema import schema_of, typed
from repro.pipeline.tasks import Task, run
from repro.storage.layout import claim_folder

OF_EXPERIMENT = ("launch", "measurements", "figures")  # keys that do not depend on the cell
OF_CELL = ("n_per_class", "seed", "model", "training", "learning_rates")  # keys that may depend on its size and seed


def _schema() -> type[Any]:
    """Config with the settings of every measurement in it."""
    kinds = {name: find_measurement(name).settings for name in MEASUREMENTS}
    settings = make_dataclass(
        "Measurements", [(name, kind, field(default_factory=kind)) for name, kind in kinds.items()]
    )
    return make_dataclass(
        "Configuration", [("measurements", settings, field(default_factory=settings))], bases=(schema_of(Config),)
    )


SCHEMA = _schema()
ConfigStore.instance().store(name="schema", node=SCHEMA)  # the first of the defaults in conf/train.yaml
OmegaConf.register_new_resolver("folder", check_name, replace=True)  # Hydra makes its folders before anything of ours


def config_of(cfg: DictConfig) -> Config:
    """A composed configuration, checked and typed.

    Raises:
        ValueError: a key is unknown or missing, or a value is impossible.
    """
    _check_keys(cfg)
    plain = {key: _resolved(cfg, key) for key in map(str, cfg)}
    given: Mapping[str, Any] = plain["measurements"]
    settings = {name: find_measurement(name).settings(**values) for name, values in given.items()}
    return typed(Config, plain | {"measurements": settings})


def _claimed_config(cfg: DictConfig) -> Config:
    """The configuration of a command that is a Hydra application; its folder is made the experiment's.

    Raises:
        ValueError: it is impossible, or the folder is another experiment's.
    """
    config = config_of(cfg)
    if config.weights:  # two files of one name are two networks; a path from here outlives a move of both
        experiment = f"weights {os.path.relpath(config.weights, config.outputs)}"
    else:
        experiment = str(HydraConfig.get().runtime.choices.get("experiment"))
    claim_folder(config.root, experiment)
    return config


def run_application(tasks_of: Callable[[Config], Iterable[Task]], config: str) -> None:
    """Do the tasks of what conf/<config>.yaml and the command line come to, as a Hydra application.

    What is wrong with that configuration, or goes wrong with a task, is told in one sentence.
    """

    @functools.wraps(tasks_of)  # Hydra names the application by the file of this function
    def command(cfg: DictConfig) -> None:
        try:
            for task in tasks_of(_claimed_config(cfg)):
                run(task)
        except (ValueError, RuntimeError, OSError) as error:
            sys.exit(f"error: {error}")

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints the error itself, and exits
    sys.argv[1:] = own_weights(sys.argv[1:])
    try:
        application(version_base="1.3", config_path=str(CONF), config_name=config)(command)()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        sys.exit(f"error: {_sentence(error)}")


class Composer:
    """Composes the configurations of an experiment's cells; see `Experiment`."""

    def __init__(self, overrides: Sequence[str], axes: Sequence[str], conf: Path):
        parsed = list(zip(_parse(overrides), overrides, strict=True))
        self._conf = conf
        self._common = [line for override, line in parsed if override.key_or_group not in axes]
        self.chosen = {o.key_or_group: line.partition("=")[2] for o, line in parsed if o.key_or_group in axes}
        first = [f"{axis}={values_of(axis, self.chosen)[0]}" for axis in ("data", "model") if axis in self.chosen]
        cfg, hydra = self._compose(first)  # settings of a network make sense with that network
        self.config = config_of(cfg)
        self.params = {"seed": cfg.seed, **(hydra.sweeper.params or {}), **self.chosen}
        self.experiment = str(hydra.runtime.choices.get("experiment"))

    def cells(self, data: str, model: str, sizes: Sequence[str], seeds: Sequence[str]) -> Iterator[Config]:
        """The configuration of each sample size and seed of a network on a data set.

        What may depend on the data set and the network is composed anew, what may depend on size and seed too is
        resolved for each; the rest is the experiment's.
        """
        cfg, _ = self._compose([f"data={data}", f"model={model}"])
        of_pair = {key: _resolved(cfg, key) for key in map(str, cfg) if key not in OF_EXPERIMENT}
        known_sizes = typed(DataSet, of_pair["data"]).sizes
        if "n_per_class" not in self.chosen:
            sizes = [size for size in sizes if size in map(str, self.config.sizes_of.get(model, sizes))]
        for size, seed in itertools.product(sizes, seeds):
            if not seed.isdecimal():
                raise ValueError(f"seed={seed} is not a number")
            cfg.n_per_class, cfg.seed = sample_size(size, known_sizes), int(seed)
            of_cell = {key: _resolved(cfg, key) for key in OF_CELL}
            of_experiment = {key: getattr(self.config, key) for key in OF_EXPERIMENT}
            yield typed(Config, of_pair | of_cell | of_experiment)

    def _compose(self, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """The configuration, and Hydra's own."""
        try:
            with initialize_config_dir(str(self._conf.resolve()), version_base="1.3"):
                cfg = compose("train", overrides=[*self._common, *overrides], return_hydra_config=True)
                networks = GlobalHydra.instance().config_loader().get_group_options("model")
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise ValueError(_sentence(error)) from error
        for key in ("epochs_of", "rates_of", "sizes_of"):
            if unknown := [name for name in cfg[key] if name not in networks]:
                near = " or ".join(difflib.get_close_matches(unknown[0], networks, n=2)) or ", ".join(networks)
                raise ValueError(f"configuration: {key}.{unknown[0]}: there is no such network; did you mean {near}?")
        hydra = cfg.hydra
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, hydra


def _resolved(cfg: DictConfig, key: str) -> Any:
    """The value of a top-level key as plain numbers, words, lists and dictionaries."""
    try:
        value = cfg[key]
        if not OmegaConf.is_config(value):
            return value
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(_sentence(error)) from error


def values_of(axis: str, params: Mapping[str, Any]) -> list[str]:
    """The values of one axis, from '10,13', 'range(0,8)' or a single one.

    Raises:
        ValueError: there are none.
    """
    if params.get(axis) in (None, ""):
        raise ValueError(
            f"the axis {axis} of the grid is empty; give it values in hydra.sweeper.params or as {axis}=..."
        )
    (override,) = _parse([f"{axis}={params[axis]}"])
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.value())]


def own_weights(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command; with `weights=<file>`, which `measure` takes, no experiment's settings hold.

    `model=<module>:<function>` is the function that builds the network; it is called with `channels`, `classes` and the
    settings given as `+model.<key>=...`.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    added = ["~experiment", "name=weights"] if given.get("weights") else []
    if ":" in (builder := given.get("model", "")):
        arguments = [argument for argument in arguments if not argument.startswith("model=")]
        added += ["model=own", f"model.build={builder}", f"model.name={builder.replace(':', '.')}"]
    first = next((i for i, argument in enumerate(arguments) if argument[:1] != "-" and "=" in argument), len(arguments))
    return [*arguments[:first], *added, *arguments[first:]]  # options such as -m come before all of them


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ValueError(f"override {' '.join(overrides)}: {str(error).splitlines()[0]}") from error


def _check_keys(node: DictConfig, prefix: str = "") -> None:
    """Refuse keys that were added to (+key=...) or taken from (~key) what the schema has, at any depth.

    Raises:
        ValueError: naming the first of them.
    """
    kind = OmegaConf.get_type(node)
    if kind is not None and is_dataclass(kind):
        known = [each.name for each in dataclasses.fields(kind)]
        if added := [str(key) for key in node if key not in known]:
            raise ValueError(_unknown(prefix + added[0], known))
        if taken := [key for key in known if key not in node and not OmegaConf.is_missing(node, key)]:
            raise ValueError(f"configuration: {prefix}{taken[0]} is missing; ~{prefix}{taken[0]} took it away")
    for key in map(str, node):
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            child = node[key]
            if isinstance(child, DictConfig):
                _check_keys(child, f"{prefix}{key}.")


def _sentence(error: Exception) -> str:
    """What is wrong with a configuration, in one sentence."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = difflib.get_close_matches(name, error.options, n=2) or sorted(error.options)
        return f"configuration: there is no {group}={name}; did you mean {' or '.join(options)}?"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, InterpolationResolutionError) and isinstance(cause.__cause__, ValueError):
        return str(cause.__cause__)
    if cause is None or not cause.full_key:
        return f"configuration: {' '.join(str(error).split())}"
    where = f" ({str(error).splitlines()[0].partition(':')[0]})" if str(error).startswith("In ") else ""
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        parent = cause.parent_node
        siblings = [str(key) for key in parent] if isinstance(parent, DictConfig) else []
        return _unknown(str(cause.full_key), siblings) + where
    if cause.full_key == "measurement":
        return "configuration: measurement is a name; settings are measurements.<measurement>.<setting>=..."
    if "is not a subclass of Shown" in str(cause):
        return "configuration: figures that the experiment lacks are added in its file, conf/experiment/<name>.yaml"
    return f"configuration: {str(cause).splitlines()[0]} (key {cause.full_key}){where}"


def _unknown(key: str, siblings: Iterable[str]) -> str:
    """That there is no such key, and which are near: by their whole name, or those of that name elsewhere."""
    if key.partition(".")[0] == "site":
        first = "`# @package _global_`"
        return f"conf/site/local.yaml lacks the first line {first}, without which none of it holds; add it"
    prefix, _, name = key.rpartition(".")
    beside = [f"{prefix}.{sibling}" if prefix else sibling for sibling in siblings]
    near = difflib.get_close_matches(key, dict.fromkeys([*beside, *_all_keys(SCHEMA)]), n=2, cutoff=0.75)
    near = near or [known for known in _all_keys(SCHEMA) if known.endswith(f".{name}")][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(beside))}"
    return f"configuration: there is no key {key}; {hint}"


def _all_keys(kind: type[Any], prefix: str = "") -> list[str]:
    """Every key of a schema, with those of the schemas in it."""
    found = []
    for each in dataclasses.fields(kind):
        found.append(f"{prefix}{each.name}")
        if is_dataclass(each.type):
            found += _all_keys(each.type, f"{prefix}{each.name}.")  # type: ignore[arg-type]
    return found
