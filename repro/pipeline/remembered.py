"""Experiments remembered, so that the same command lists its tasks again without Hydra and torch.

    ~/.cache/repro/<digest>.experiment         (or below $XDG_CACHE_HOME)

What an experiment comes to follows from the overrides, the files of conf/ with the variables of the environment that
they name, the code of this package and the versions of a few libraries; the digest is over all of these. What follows
from anything else, such as a module of a user, is composed each time. The folder is private, as what is in it is
unpickled, and can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from repro.pipeline.config import CONF
from repro.pipeline.launch.private import private_folder
from repro.storage.files import write_sealed
from repro.storage.identity import PACKAGE
from repro.storage.sealed import SEAL, proven, stored

if TYPE_CHECKING:
    from repro.pipeline.experiment import Experiment

LIBRARIES = ("hydra-core", "numpy", "omegaconf", "torch")
VARIABLE = re.compile(rb"oc\.env:\s*(\w+)")  # of the environment, whose value counts
KEPT = 20  # experiments


def experiment_of(overrides: Sequence[str], conf: Path = CONF) -> Experiment:
    """The experiment that overrides describe; see `Experiment`, whose errors it raises."""
    from repro.pipeline.experiment import Experiment

    path = None
    with contextlib.suppress(OSError):  # no home, or one that cannot be written to
        path = _path(overrides, conf)
    found = stored(path, _read) if path else None
    if found is None:
        found = Experiment(overrides, conf)
        if path and _is_ours(found):
            with contextlib.suppress(OSError):
                for trainings in found.cells().values():
                    _ = trainings.digests, trainings.network_size  # computed now, they are kept
                content = pickle.dumps(found) + SEAL.encode()
                write_sealed(path, lambda unfinished: unfinished.write_bytes(content))
                _forget_old(path.parent)
    return found


def _path(overrides: Sequence[str], conf: Path) -> Path | None:
    """Where an experiment is kept; None if Hydra is told to look elsewhere."""
    if any(override.startswith("hydra") for override in overrides):
        return None
    content = hashlib.sha256(repr((list(overrides), sys.version, [version(name) for name in LIBRARIES])).encode())
    texts = {str(file): file.read_bytes() for file in _files(conf)} | {"": " ".join(overrides).encode()}
    for name, text in texts.items():
        variables = {key: os.environ.get(key.decode()) for key in VARIABLE.findall(text)}
        content.update(f"{name} {len(text)} {variables} ".encode() + text)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return private_folder(Path(home) / "repro") / f"{content.hexdigest()[:32]}.experiment"


def _files(conf: Path) -> Iterator[Path]:
    """The files that decide what an experiment comes to."""
    for folder, suffix in ((conf, ".yaml"), (PACKAGE, ".py")):
        yield from sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())


def _read(path: Path) -> Experiment:
    return pickle.loads(proven(path))


def _is_ours(experiment: Experiment) -> bool:
    """Whether code of this package alone decides what the experiment comes to."""
    functions = [
        of for trainings in experiment.cells().values() for of in (trainings.model.builder, trainings.data.reader)
    ]
    return all(function.startswith("repro.") for function in functions)


def _forget_old(folder: Path) -> None:
    by_age = sorted(folder.glob("*.experiment"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[KEPT:]:
        path.unlink(missing_ok=True)
