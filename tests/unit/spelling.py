"""How pages of `docs/` spell what goes over the wire: of each struct its tag, its name, and its fields in their order,
with types and defaults."""

from __future__ import annotations

import typing
from types import UnionType
from typing import Any, Final

import msgspec

from coordinator import wire
from coordinator.statemachine import commands

UNIONS: Final = (
    (commands.TransactionOp, "operation"),
    (commands.Query, "any query"),
    (commands.Result, "any result"),
    (commands.ClientOp, "any command"),
    (wire.Request, "any request"),
)
"""Those that a page names rather than spells."""


def spelled(kind: Any) -> str:
    """A field's type."""
    for union, name in UNIONS:
        if kind == union:
            return name
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None):
        return "nil"
    if kind is msgspec.Raw:
        return "Command"
    if origin is typing.Literal:
        return " / ".join(f'"{value}"' for value in of)
    if origin in (UnionType, typing.Union):
        return " or ".join(map(spelled, of))
    if origin is dict:
        return f"{{{spelled(of[0])}: {spelled(of[1])}}}"
    if origin is list or (origin is tuple and of[-1] is Ellipsis):
        return f"[{spelled(of[0])}…]"
    if origin is tuple:
        return f"[{', '.join(map(spelled, of))}]"
    assert isinstance(kind, type), kind
    return kind.__name__


def default(value: Any) -> str:
    """What a field that is left out is taken for."""
    if value is None:
        return "nil"
    if value == ():
        return "[]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    assert isinstance(value, int), value
    return str(value)


def fields_of(kind: Any) -> dict[str, tuple[Any, ...]]:
    """Of a struct or a NamedTuple: each field's default, or nothing, in order."""
    if issubclass(kind, msgspec.Struct):
        names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    else:
        names, defaults = kind._fields, tuple(kind._field_defaults.values())
    required = len(names) - len(defaults)
    return {name: () if place < required else (defaults[place - required],) for place, name in enumerate(names)}


def row(kind: Any) -> str:
    """Its row in a table."""
    hints = typing.get_type_hints(kind)
    fields = [
        f"{name}: {spelled(hints[name])}" + "".join(f" = {default(value)}" for value in values)
        for name, values in fields_of(kind).items()
    ]
    tag = kind.__struct_config__.tag if issubclass(kind, msgspec.Struct) else None
    return f"| {'' if tag is None else tag} | `{kind.__name__}` | {'; '.join(fields)} |"


def rows(union: Any) -> list[str]:
    """Those of all of a union, by tag."""
    kinds = sorted(typing.get_args(union), key=lambda kind: kind.__struct_config__.tag)
    return [row(kind) for kind in kinds]
