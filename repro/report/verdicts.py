"""Whether each claim holds on what an experiment has stored: a median with its range over networks and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from repro.report.claims import CLAIMS, Claim
from repro.report.stored import Stored
from repro.storage.results import Result


class Value(NamedTuple):
    """A claim's number on one stored result."""

    result: Result
    number: float


class Verdict(NamedTuple):
    """What became of a claim, in words."""

    verdict: str  # holds, does not hold, undecided, not measured
    claim: str
    found: str  # median, range, and how many networks
    asked: str  # the bound
    number: str  # what `found` and `asked` are
    why: str  # why it fails, where that is known, and where it fails, if on some networks only
    section: str
    figure: str  # the number of the figure that shows it


def verdicts(stored: Stored, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """One verdict per claim. A claim whose measurement has not been made is listed as not measured."""
    return [_verdict(claim, values_of(claim, stored)) for claim in claims]


def verdict_table(found: Sequence[Verdict]) -> pd.DataFrame:
    """The same, to be downloaded."""
    return pd.DataFrame(found, columns=list(Verdict._fields))


def summary(found: Sequence[Verdict]) -> str:
    """The score in one line: 27 of 30 claims hold, 2 are undecided, 1 does not."""
    of = Counter(one.verdict for one in found)
    undecided, failing, absent = of["undecided"], of["does not hold"], of["not measured"]
    score = [f"{of['holds']} of {len(found) - absent} claims {'holds' if of['holds'] == 1 else 'hold'}"]
    if undecided:
        score.append(f"{undecided} {'is' if undecided == 1 else 'are'} undecided")
    if failing:
        score.append(f"{failing} {'does' if failing == 1 else 'do'} not")
    if absent:
        score.append(f"{absent} {'is' if absent == 1 else 'are'} not measured")
    return ", ".join(score)


def values_of(claim: Claim, stored: Stored) -> list[Value]:
    """The claim's number on every stored result that has what it takes, whichever seeds the figures show."""
    found: list[Value] = []
    for result in [r for name in (claim.measurement, claim.fallback) for r in stored.results.get(name, [])]:
        if result.cell and (claim.model not in result.cell.model or result.cell in [v.result.cell for v in found]):
            continue
        try:
            number = float(claim.compute(result.arrays))
        except KeyError:  # the experiment measures less than the claim takes, e.g. no test spectrum
            continue
        if np.isfinite(number):
            found.append(Value(result, number))
    return found


def _verdict(claim: Claim, values: Sequence[Value]) -> Verdict:
    failing = [value for value in values if not claim.holds(value.number)]
    if not values:
        verdict = "not measured"
    elif not failing:
        verdict = "holds"
    else:  # with values on both sides, the bound lies in their range
        verdict = "does not hold" if len(failing) == len(values) else "undecided"
    reasons = [claim.why] if failing and claim.why else []
    if verdict == "undecided":
        reasons.append(f"Fails on {'; '.join(_networks(failing, values))}")
    asked = f"{'≥' if claim.relation == '>=' else '≤'} {claim.bound:g}"
    return Verdict(
        verdict, claim.statement, _spread(values), asked, claim.number, ". ".join(reasons), claim.section, claim.figure
    )


def _networks(chosen: Sequence[Value], values: Sequence[Value]) -> list[str]:
    """VGG11 (width 0.125), 51 per class (1 of 3 seeds), for the chosen ones of all values."""
    several = len({value.result.data_title for value in values}) > 1
    counts, among = (Counter(_network(value.result, several) for value in of) for of in (chosen, values))
    return [f"{name} ({n} of {among[name]} seeds)" if among[name] > 1 else name for name, n in counts.items()]


def _network(result: Result, with_data: bool) -> str:
    """Whatever its seed."""
    assert result.cell is not None  # what involves no network is measured once, and thus decided
    data = f"{result.data_title}, " if with_data else ""
    return f"{data}{result.model_title}, {result.cell.n_per_class} per class"


def _spread(values: Sequence[Value]) -> str:
    """A single value, or median and range with the number of networks, seeds counted."""
    if len(values) < 2:
        return "".join(f"{value.number:.3g}" for value in values)
    numbers = [value.number for value in values]
    return f"{np.median(numbers):.3g} ({min(numbers):.3g} to {max(numbers):.3g}, {len(numbers)} networks)"
