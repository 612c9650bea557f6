"""Measure: one measurement of one selected network, of a weights file, or of no network."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from repro.measurements import find_measurement, products
from repro.pipeline.config import Machine
from repro.pipeline.stages.retrain import Retrain
from repro.pipeline.tasks import Task
from repro.pipeline.trainings import Trainings
from repro.storage import identity, results
from repro.storage.index import known

if TYPE_CHECKING:
    from repro.network import Network
    from repro.watch import Checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OwnWeights:
    """A weights file of a user, with the data it is measured on; it takes the place of a selected network.

    Of its trainings only data, network and weight decay count.
    """

    weights: Path
    trainings: Trainings
    machine: Machine

    def finished(self) -> bool:
        """There is nothing to do before it is measured."""
        return True

    def digest(self) -> str:
        """What identifies file, network, the code that builds it, and data."""
        of = self.trainings
        return identity.own_weights(self.weights, of.network_and_data, of.recipe.weight_decay, of.model.code)

    def network(self, device: str) -> Network:
        """The network with its data, on a device."""
        from repro.pipeline.trained import build, load_weights, network_of

        model = load_weights(self.weights, build(self.trainings))
        return network_of(model, self.trainings, self.machine, device)


@dataclass(frozen=True, kw_only=True)
class Measure(Task):
    """A measurement with its settings; `of` is None for one of no network.

    Settings are plain values, so that whether it is finished is told without the code that measures, and torch.
    """

    stage: ClassVar[str] = "measure"
    any_threads: ClassVar[bool] = True

    experiment: str
    measurement: str
    settings: Mapping[str, Any]  # the fields of its Settings
    version: int  # of the measurement's code
    usual_steps: int  # of a spectrum where the settings leave them open; for its cost
    of: Retrain | OwnWeights | None
    asked_device: str

    @property
    def name(self) -> str:
        return f"{self.of.trainings.cell}/{self.measurement}" if self.of else self.measurement

    @property
    def device(self) -> str:
        return self.asked_device

    @property
    def cost(self) -> float:
        from repro.pipeline.cost import measurement_petaflop

        return measurement_petaflop(self.of.trainings, self.settings, self.usual_steps) if self.of else 0.0

    @property
    def path(self) -> Path:
        """Where its result is stored."""
        return results.result_path(self.root, self.measurement, self.of.trainings.cell if self.of else None)

    def finished(self) -> bool:
        made = known(self.path, _read_digest)
        return made is not None and (self.of is None or self.of.finished()) and made == self._digest()

    def run(self, device: str) -> None:
        from repro.storage.provenance import provenance
        from repro.watch import Watch, watching

        digest, origin = self._digest(), self._origin()
        network = [self.of.network(device)] if self.of else []
        kept = self._checkpoint(self.of, digest, device) if self.of else None
        start, before = time.perf_counter(), products()
        with watching(Watch(checkpoint=kept)):
            arrays = find_measurement(self.measurement).measure(*network, self.typed_settings())
        made = provenance(device, time.perf_counter() - start) | {"digest": digest}
        made["products"] = products() - before
        if network:
            made["epochs"] = network[0].epochs
        if kept:
            made["seconds"] += round(kept.seconds_before, 3)
            made["products"] += kept.taken
        results.save_result(self.path, arrays, origin | made)
        if kept:
            kept.remove()
        log.info("%s", self.path)

    def _checkpoint(self, of: Retrain | OwnWeights, digest: str, device: str) -> Checkpoint:
        """Where it keeps what it has, beside its result; what another measurement has left there is removed."""
        from repro.watch import Checkpoint, ForeignCheckpointError
        from repro.watch.fingerprint import environment

        folder = self.path.with_name(f"{self.measurement}.unfinished")
        also = {"settings": dict(self.settings), "batch": of.machine.curvature_batch, **environment(device)}
        own = identity.digest({"result": digest, **also})
        try:
            return Checkpoint(folder, own, seconds=of.machine.checkpoint_seconds)
        except ForeignCheckpointError as error:
            log.warning("%s; this measurement starts from the beginning", error)
            shutil.rmtree(folder)
            return Checkpoint(folder, own, seconds=of.machine.checkpoint_seconds)

    def typed_settings(self) -> Any:
        """The settings as the measurement takes them, an instance of its Settings."""
        return find_measurement(self.measurement).settings(**self.settings)

    def _digest(self) -> str:
        of = self.of.digest() if self.of else None
        return identity.measurement(self.measurement, self.settings, self.version, of)

    def _origin(self) -> dict[str, Any]:
        """What was measured, for people and figures."""
        made: dict[str, Any] = {
            "measurement": {"name": self.measurement, **self.settings},
            "version": self.version,
            "experiment": self.experiment,
        }
        if self.of:
            trainings = self.of.trainings
            model = {"name": trainings.model.name, **trainings.model.settings}
            made |= {"training": asdict(trainings.recipe), "model": model, **trainings.titles}
        return made


def _read_digest(path: Path) -> str:
    """Of what it is a measurement."""
    return results.load_provenance(path)["digest"]
