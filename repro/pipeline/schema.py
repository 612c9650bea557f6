"""Settings classes as Hydra wants them, and back: Hydra refuses to override the values of a frozen class."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
MANDATORY = "???"  # how OmegaConf writes a value that is still missing


@functools.cache
def schema_of(kind: type[Any]) -> type[Any]:
    """A copy of a settings class, and of those in it, that is not frozen, so that its values can be overridden."""
    hints = get_type_hints(kind)
    parts = [(each.name, _unfrozen(hints[each.name]), _default(each, hints[each.name])) for each in fields(kind)]
    return make_dataclass(kind.__name__, parts)


def _unfrozen(hint: Any) -> Any:
    if is_dataclass(hint):
        return schema_of(hint)  # type: ignore[arg-type]
    if get_origin(hint) is dict:
        key, value = get_args(hint)
        return dict[key, _unfrozen(value)]  # type: ignore[valid-type, misc]
    return hint


def _default(each: Field[Any], hint: Any) -> Any:
    if is_dataclass(hint):
        return field(default_factory=schema_of(hint))  # type: ignore[arg-type]
    if each.default_factory is not MISSING:
        return field(default_factory=each.default_factory)
    return field(default=MANDATORY if each.default is MISSING else each.default)


def typed(kind: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a settings class, and of those in it, from plain values that its schema has let pass."""
    hints = get_type_hints(kind)
    return kind(**{name: _typed(hints[name], value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    if is_dataclass(hint) and isinstance(value, Mapping):
        return typed(hint, value)  # type: ignore[arg-type]
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: _typed(get_args(hint)[1], each) for key, each in value.items()}
    return value
