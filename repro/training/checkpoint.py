"""The state of a half-trained block on disk, so that a killed job goes on where it was (safetensors and json)."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from repro.storage.files import write_sealed
from repro.storage.sealed import SEAL, prove_file, stored
from repro.training.recipe import History

log = logging.getLogger(__name__)


@dataclass
class BlockState:
    """Where a block stands: the histories of all started runs, and the epoch of those now running."""

    identity: str  # digest of everything that decides the block's outcome
    engine: str
    indices: list[int]  # the runs in `tensors`
    epoch: int  # finished epochs of those
    finished: list[int]
    histories: dict[int, History]


def save_state(path: Path, state: BlockState, tensors: dict[str, Tensor]) -> None:
    """Write the state and the tensors of the running networks, atomically.

    A state that cannot be written, on a full disk say, is a warning: the training goes on, and what an interruption
    would cost is what it has done since the state before.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"block": json.dumps(asdict(state)), "sealed": SEAL}

    def write(unfinished: Path) -> None:
        try:
            save_file(content, unfinished, metadata)
        except SafetensorError as error:  # it is no OSError, and has the system's in its text: (os error 28)
            code = re.search(r"(?:os error|code:) (\d+)", str(error))
            number = int(code[1]) if code else errno.EIO
            raise OSError(number, os.strerror(number) if code else str(error)) from error

    try:
        write_sealed(path, write)
    except OSError as error:
        log.warning("the training goes on, but cannot be resumed from here: %s", error)


def load_state(path: Path, identity: str) -> tuple[BlockState, dict[str, Tensor]] | None:
    """The state stored under `path`; None, with a warning, if it is of another block, or damaged and so set aside."""
    found = stored(path, _read)
    if found is not None and found[0].identity != identity:
        log.warning("%s was left by a block of another configuration; this block starts from the beginning", path)
        return None
    return found


def _read(path: Path) -> tuple[BlockState, dict[str, Tensor]]:
    prove_file(path)
    with safe_open(path, framework="pt") as file:
        state = BlockState(**json.loads(file.metadata()["block"]))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    state.histories = {int(index): History(**history) for index, history in state.histories.items()}  # type: ignore[arg-type]
    return state, tensors
