"""Frozen settings classes become what Hydra can override, and come back typed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.pipeline.schema import schema_of, typed


@dataclass(frozen=True)
class Inner:
    needed: int
    rate: float = 0.5
    names: list[str] = field(default_factory=lambda: ["a"])

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("negative")


@dataclass(frozen=True)
class Outer:
    kind: ClassVar[str] = "no setting"
    inner: Inner
    many: dict[str, Inner]
    either: int | str = 3
    anything: Any = None
    perhaps: float | None = None


def merged(**values):
    return OmegaConf.merge(OmegaConf.structured(schema_of(Outer)), values)


def test_values_override_defaults_and_come_back_as_the_classes():
    cfg = merged(inner={"needed": 2, "rate": 1}, many={"x": {"needed": 3}}, either="all", perhaps=2)
    made = typed(Outer, OmegaConf.to_container(cfg))
    assert made == Outer(Inner(2, 1.0), {"x": Inner(3)}, either="all", perhaps=2.0)
    assert isinstance(made.inner.rate, float)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.inner.rate = 3.0


def test_a_value_without_a_default_is_missing():
    assert OmegaConf.missing_keys(merged()) == {"inner.needed", "many"}


@pytest.mark.parametrize(
    "values",
    [
        {"inner": {"neded": 2}},
        {"inner": {"needed": "two"}},
        {"many": {"x": {"rat": 1}}},
        {"kind": "x"},
        {"either": [1]},
    ],
)
def test_other_keys_and_types_are_refused(values):
    with pytest.raises(OmegaConfBaseException):
        merged(**values)


def test_the_classes_own_checks_apply():
    with pytest.raises(ValueError, match="negative"):
        typed(Outer, OmegaConf.to_container(merged(inner={"needed": 2, "rate": -1}, many={})))
