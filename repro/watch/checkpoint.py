"""A measurement on disk while it is made: the products of its matrices, from which a killed one goes on.

    <folder>/<identity>-<part>-<first>-<count>.products     products [count, P] of a part, from the one numbered `first`
    <folder>/<identity>-<part>.part                         what a finished part came to, in place of its products

Everything between two products is deterministic and costs little beside them, so a measurement that is begun again with
its first products read instead of made goes on with the same bits, whatever its algorithm. Each product is kept with
the checksum of the vector it was made of, and taken for no other.

Bounds. On disk a part, one spectrum say, takes as many vectors of P numbers as it makes products, about 1.2 times what
its Lanczos basis takes in memory; never more than `MOST_BYTES`, nor half of what is free: the products that come after
are made again. Files are written beside the work, which waits only where they are slower than the products: for
`SHARE` of the time at most, and some seconds to begin with. Where that is not enough, of a part that is then over soon
nothing is kept until it is finished.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repro.storage.files import check_folder
from repro.storage.results import Result, load_result, save_result
from repro.storage.sealed import stored

log = logging.getLogger(__name__)

MOST_BYTES = 20e9  # on disk (ours): 175 products of a network of 28 million parameters
SHARE = 0.05  # of the time may be spent on checksums and on waiting for the disk (ours)
GRACE = 10.0  # seconds of it that are granted at first
BUFFER = 64 << 20  # bytes of products that wait in memory to be written
NAME = re.compile(r"([0-9a-f]{16})-(\d{4})(?:-(\d{6})-(\d{6})\.products|\.part)")


class ForeignCheckpointError(ValueError):
    """A folder holds the checkpoint of another measurement."""


class Checkpoint:
    """The checkpoint of one measurement, in a folder of its own that is removed when the measurement is over.

    Two processes may work on one measurement: they write the same.

    Args:
        identity: 16 hexadecimal digits of all that decides the products: weights, data, settings, device.
        seconds: between two writings, at least; so much work is lost at most.

    Raises:
        ForeignCheckpointError: what is in the folder was left by a measurement of another identity.
        OSError: the folder cannot be made or not be written to.
    """

    def __init__(self, folder: Path, identity: str, *, seconds: float = 60.0):
        if folder.is_file():
            raise NotADirectoryError(f"checkpoint={folder} is a file: name a folder, it will be made")
        check_folder(folder)
        self.folder, self.identity, self.seconds = folder, identity, seconds
        if foreign := [path for path in folder.iterdir() if _identity(path) not in (None, identity)]:
            raise ForeignCheckpointError(
                f"{folder} holds the checkpoint of another measurement ({foreign[0].name}): other weights, data, "
                "settings, device or versions; name another folder, or delete it"
            )
        self.taken = 0  # products that were read and not made
        self.seconds_before = 0.0  # that earlier attempts took, as far as they are in what was read
        self._most = min(MOST_BYTES, shutil.disk_usage(folder).free / 2)
        self._begun = self._written_at = time.monotonic()
        self._spent = self._waited = 0.0  # seconds of this attempt: in all, and those until products were written
        self._written = 0  # bytes of products
        self._broken = False
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._begin(0)

    def part(self, part: int) -> dict[str, np.ndarray] | None:
        """What a part came to, if it is finished; else its products are read and kept from here on."""
        self.flush()
        self.wait()
        self._begin(part)
        found = stored(self._part_path, lambda path: load_result(path, None))
        if found is None:
            return None
        self.seconds_before = max(self.seconds_before, found.provenance["seconds"])
        self.taken += found.provenance["products"]
        return found.arrays

    def finish(self, arrays: dict[str, np.ndarray]) -> None:
        """Keep what the present part came to, and remove its products."""
        self._forget()
        self._write(self._part_path, arrays, {"products": self._position})
        self.wait()
        for segment in _segments(self.folder, self.identity, self._part):
            segment.path.unlink(missing_ok=True)

    def take(self, V: Tensor) -> Tensor | None:  # [P, K] -> [P, K]
        """The next products, if they are on disk and of these vectors."""
        if self._segment_of(self._position) is None:
            return None
        rows = [self._row(number, v) for number, v in enumerate(V.T.cpu().numpy(), start=self._position)]
        if any(row is None for row in rows):
            return None
        self.flush()  # what was made in the place of a damaged file
        self._position += len(rows)
        self.taken += len(rows)
        return torch.from_numpy(np.stack(rows)).to(V.device).T  # type: ignore[arg-type]

    def keep(self, V: Tensor, products: Tensor) -> None:  # [P, K] both
        """Keep products, on disk when it is time to."""
        first = self._position
        self._position += V.shape[1]
        if self._full:
            return
        start = time.monotonic()
        pairs = enumerate(zip(V.T.cpu().numpy(), products.T.cpu().numpy()), start=first)
        # A signal may end the process between any two of these lines, and what waits is then still written: all at once
        self._waiting += [Kept(number, _checksum(vector), row.copy()) for number, (vector, row) in pairs]
        self._spent += time.monotonic() - start
        waiting = sum(kept.product.nbytes for kept in self._waiting)
        due = waiting >= BUFFER or time.monotonic() - self._written_at >= self.seconds
        if not self._affordable(waiting if due else 0):
            log.info("the products of this part are not kept from number %d on: no room or no time", self._position)
            self._forget(full=True)
        elif due:
            start = time.monotonic()
            self.flush()
            waited = time.monotonic() - start
            self._spent, self._waited = self._spent + waited, self._waited + waited

    def flush(self) -> None:
        """Begin to write what waits in memory."""
        if self._waiting:
            self.wait()
            first, count = self._waiting[0].number, len(self._waiting)
            path = self.folder / f"{self.identity}-{self._part:04d}-{first:06d}-{count:06d}.products"
            arrays = {
                "products": np.stack([kept.product for kept in self._waiting]),
                "of": np.array([kept.of for kept in self._waiting], dtype=np.uint32),
            }
            self._forget()
            self._write(path, arrays, {})
            self._written += arrays["products"].nbytes
            self._on_disk += arrays["products"].nbytes

    def wait(self) -> None:
        """Until all that was begun to be written is on disk."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def remove(self) -> None:
        """The measurement is over."""
        self._forget()
        self.wait()
        for path in self.folder.iterdir():
            if _identity(path) == self.identity:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there are files of others in it
            self.folder.rmdir()

    @property
    def _part_path(self) -> Path:
        return self.folder / f"{self.identity}-{self._part:04d}.part"

    def _begin(self, part: int) -> None:
        self._part, self._position = part, 0  # of the next product
        self._segments = _segments(self.folder, self.identity, part)
        self._loaded: tuple[Segment, Result] | None = None
        self._on_disk = sum(segment.path.stat().st_size for segment in self._segments)
        self._forget()

    def _segment_of(self, number: int) -> Segment | None:
        """The file of products of the present part that holds the one of a number, read."""
        if self._loaded is None or number not in self._loaded[0].numbers:
            self._loaded = None
            for segment in self._segments:
                if number in segment.numbers and (found := stored(segment.path, lambda path: load_result(path, None))):
                    self.seconds_before = max(self.seconds_before, found.provenance["seconds"])
                    self._loaded = segment, found
                    break
        return self._loaded[0] if self._loaded else None

    def _row(self, number: int, vector: np.ndarray) -> np.ndarray | None:  # [P] -> [P]
        """The product of a number, if it is on disk and of this vector."""
        segment = self._segment_of(number)
        if segment is None or self._loaded is None:
            return None
        arrays, index = self._loaded[1].arrays, number - segment.numbers.start
        if int(arrays["of"][index]) == _checksum(vector):
            return arrays["products"][index]
        log.warning("product %d in %s is of another vector: from here on they are made anew", number, self.folder)
        for other in self._segments:
            if other.numbers.stop > number:
                other.path.unlink(missing_ok=True)
        self._segments, self._loaded = [], None
        return None

    def _forget(self, *, full: bool = False) -> None:
        """What waits in memory is written, or not worth it; `full`: nothing more of this part is kept."""
        self._waiting: list[Kept] = []
        self._full = full

    def _affordable(self, size: int) -> bool:
        """Whether there is time and room to write so many bytes."""
        took = self._waited / self._written * size if self._written else 0.0
        in_time = self._spent + took <= SHARE * (time.monotonic() - self._begun) + GRACE
        return in_time and self._on_disk + size <= self._most and not self._broken

    def _write(self, path: Path, arrays: dict[str, np.ndarray], provenance: dict[str, int]) -> None:
        """Write a file while the measurement goes on, once the one before is written."""
        self.wait()
        self._written_at = time.monotonic()
        seconds = self.seconds_before + self._written_at - self._begun
        self._writing = self._writer.submit(self._save, path, arrays, {"seconds": seconds, **provenance})

    def _save(self, path: Path, arrays: dict[str, np.ndarray], provenance: dict[str, float]) -> None:
        try:
            save_result(path, arrays, provenance, compressed=False)
        except OSError as error:
            if not self._broken:  # the file after it may be under way already
                log.warning("the measurement goes on, but cannot be taken up from here: %s", error)
            self._broken = True


class Kept(NamedTuple):
    """A product that waits to be written."""

    number: int
    of: int  # the checksum of the vector it was made of
    product: np.ndarray  # [P]


class Segment(NamedTuple):
    """A file of products that follow one another."""

    path: Path
    numbers: range


def _segments(folder: Path, identity: str, part: int) -> list[Segment]:
    """Files of products of one part."""
    found = []
    for path in sorted(folder.iterdir()):
        match = NAME.fullmatch(path.name)
        if match and match[3] and match[1] == identity and int(match[2]) == part:
            found.append(Segment(path, range(int(match[3]), int(match[3]) + int(match[4]))))
    return found


def _checksum(vector: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(vector).data)


def _identity(path: Path) -> str | None:
    """Of the checkpoint that a file belongs to; None for a file of something else."""
    found = NAME.match(path.name)  # one that was set aside has more behind its name
    return found[1] if found else None
