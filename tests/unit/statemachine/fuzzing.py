"""Strategies of Hypothesis for any command and query, made from the types of their fields."""

from __future__ import annotations

import typing
from types import UnionType
from typing import Any

import msgspec
from hypothesis import strategies as st

from coordinator.statemachine import commands

NAMES = ["a", "a/b", "a/b/c", "a/", "d", "d/e", "build/x", "q/", "", "/a", "a\n", "x" * 600]
NUMBERS = st.one_of(st.integers(-2, 14), st.integers(-(2**63), 2**63 - 1))
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "principal": st.sampled_from(["ci", "web", "narrow", "user:x", "zz", "", "*"]),
    "prefix": st.sampled_from(["", "a", "a/", "build/", "/a", "a\n"]),
    "rights": st.lists(st.sampled_from([*commands.RIGHTS, "fly"]), max_size=3).map(tuple),
    "token_id": st.sampled_from(["aa", "c" * 16, "d" * 16]),
    "key": st.one_of(st.sampled_from(NAMES), st.text(max_size=4)),
}


def any_of(union: Any) -> st.SearchStrategy[Any]:
    return st.one_of(*(of(kind) for kind in typing.get_args(union)))


_made: dict[Any, st.SearchStrategy[Any]] = {}


def of(kind: Any, field: str = "") -> st.SearchStrategy[Any]:
    if kind is int:
        return NUMBERS
    if kind is bool:
        return st.booleans()
    if kind is bytes:
        return st.binary(max_size=6) if field != "key" else st.sampled_from([b"k" * 32, b"k"])
    if kind is str:
        return SPECIAL.get(field, SPECIAL["key"])
    if kind is type(None):
        return st.none()
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if origin in (UnionType, typing.Union):
        return st.one_of(*(of(one, field) for one in typing.get_args(kind)))
    if origin is tuple:
        return SPECIAL["rights"] if field == "rights" else st.lists(of(typing.get_args(kind)[0]), max_size=3).map(tuple)
    assert issubclass(kind, msgspec.Struct), kind
    if kind not in _made:
        _made[kind] = st.deferred(lambda: _struct(kind))
    return _made[kind]


def _struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    fields = {name: of(hints[name], name) for name in kind.__struct_fields__}
    required = {name: fields[name] for name in kind.__struct_fields__[: len(fields) - len(kind.__struct_defaults__)]}
    # Defaults are what most requests leave as they are.
    return st.one_of(st.builds(kind, **required), st.builds(kind, **fields))
