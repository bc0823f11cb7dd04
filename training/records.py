"""Frozen records to JSON and back, checked field by field; errors name the field by its path."""

import json
import types
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["as_json", "differences", "expect", "from_json", "positive"]

Record = TypeVar("Record")


def expect(ok: bool, field: str, expected: str, found: object) -> None:
    """Raise ValueError naming the field unless it is as it has to be."""
    if not ok:
        raise ValueError(f"{field}: expected {expected}, found {found}")


def positive(record: object, *names: str) -> None:
    """Expect these fields of a record to be above 0."""
    for name in names:
        value = getattr(record, name)
        expect(value > 0, f"{type(record).__name__}.{name}", "a positive number", value)


def as_json(record: Any) -> Any:
    """A record as JSON would give it back, so that a stored one can be compared."""
    return json.loads(json.dumps(asdict(record)))


def from_json(kind: type[Record], plain: Any, where: str = "") -> Record:
    """The record that `as_json` made plain. Raises ValueError naming the field that does not fit."""
    where = where or kind.__name__
    expect(isinstance(plain, dict), where, "a table", plain)
    hints = get_type_hints(kind)
    if unknown := sorted(plain.keys() - hints.keys()):
        raise ValueError(f"{where}.{unknown[0]}: expected one of {', '.join(hints)}, found {unknown[0]!r}")
    given = {key: _value(hints[key], value, f"{where}.{key}") for key, value in plain.items()}
    try:
        return kind(**given)
    except TypeError:
        needed = [
            field.name
            for field in fields(kind)  # type: ignore[arg-type]
            if field.name not in given and field.default is MISSING
        ]
        raise ValueError(f"{where}: expected {', '.join(needed)}, found none") from None


def _value(hint: Any, plain: Any, where: str) -> Any:
    """A plain value in the type that a field asks for."""
    if get_origin(hint) in (Union, types.UnionType):  # `X | None`
        return None if plain is None else _value(get_args(hint)[0], plain, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, plain, where)
    if get_origin(hint) is tuple:
        expect(isinstance(plain, list | tuple), where, "a list", plain)
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            return tuple(_value(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(plain))
        expect(len(plain) == len(kinds), where, f"{len(kinds)} values", plain)
        return tuple(_value(kind, item, where) for kind, item in zip(kinds, plain, strict=True))
    if get_origin(hint) is list:
        expect(isinstance(plain, list), where, "a list", plain)
        return [_value(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(plain)]
    if hint is float and type(plain) is int:
        return float(plain)
    expect(type(plain) is hint, where, f"a value of type {hint.__name__}", repr(plain))
    return plain


def differences(now: Any, then: Any, field: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two plain records differ: both values by the field's path."""
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        pairs = enumerate(zip(now, then, strict=True))
        return {key: it for i, pair in pairs for key, it in differences(*pair, f"{field}[{i}]").items()}
    if not isinstance(now, dict) or not isinstance(then, dict):
        return {} if now == then else {field: (now, then)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in now | then:
        found |= differences(now.get(key), then.get(key), f"{field}.{key}".lstrip("."))
    return found
