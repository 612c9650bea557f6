"""Whose a folder of results is, and which version of this project wrote it.

    outputs/<experiment>/experiment.json      {"experiment": ..., "layout": ...}, written before anything else

A folder belongs to one experiment: results of two in one folder would be drawn as one.
"""

from __future__ import annotations

import json
from pathlib import Path

from repro.storage.files import write_atomically

LAYOUT = 3  # raised when stored files change so that an older version would misread them, or we theirs
RESULTS = ("runs", "selected", "results")  # the folders of what is computed; of the first layout they had no mark


def check_folder_is(root: Path, experiment: str) -> None:
    """Refuse the folder of another experiment, or of another version of this project. Nothing is written.

    Raises:
        ValueError: naming whose it is, and what to do.
    """
    elsewhere = "give this one another name (name=...), or move that folder away"
    try:
        found = json.loads((root / "experiment.json").read_text())
        layout, owner = int(found["layout"]), str(found["experiment"])
    except (FileNotFoundError, NotADirectoryError):  # nothing there, or nothing that can be written to
        if any((root / name).exists() for name in RESULTS):
            raise ValueError(
                f"{root} was written by an earlier version of this project, whose results this one does not read; "
                f"{elsewhere}"
            ) from None
        return
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{root / 'experiment.json'} is damaged ({error}); delete it if you know whose it is"
        ) from error
    if layout != LAYOUT:
        age = "a newer" if layout > LAYOUT else "an earlier"
        raise ValueError(
            f"{root} was written by {age} version of this project (layout {layout}, this one has {LAYOUT}); {elsewhere}"
        )
    if owner != experiment:
        raise ValueError(f"{root} holds results of the experiment {owner!r}, not of {experiment!r}; {elsewhere}")


def claim_folder(root: Path, experiment: str) -> None:
    """Make a folder the experiment's, unless it is already.

    Raises:
        ValueError: it is another's.
    """
    check_folder_is(root, experiment)
    if not (root / "experiment.json").exists():
        mark = json.dumps({"experiment": experiment, "layout": LAYOUT}, indent=1) + "\n"  # for every version to read
        write_atomically(root / "experiment.json", lambda unfinished: unfinished.write_text(mark))
