"""Reads key-value histories in the format of the Porcupine project's test data.

Each line is one event, a map in EDN notation:

    {:process 0, :type :invoke, :f :get, :key "7", :value nil}
    {:process 0, :type :ok, :f :get, :key "7", :value "x 0 1 y"}

`:f` is `:get`, `:put` or `:append`. A return repeats the key of its invocation; one of a put or an append repeats the
value, or has none (`nil`, `""`). A get is invoked with `nil` or `""`; one that returns `nil` found nothing, which in
this store is the empty string. A key is a string or an integer, which are not to be mixed for one name.

Beside `:ok`, a return may be `:info` (no answer: it may take effect at any later time, or never, as does what never
returns) or `:fail` (it surely did not take effect); its value says nothing. Fields may come in any order; others
are read over, whatever they hold. Blank lines and events of the process `:nemesis` are skipped. Anything else is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from tests.linearizability.history import History, HistoryError, Operation
from tests.linearizability.source import SourceError

_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_USUAL: Final = re.compile(
    r'\{:process ([0-9]{1,18}), :type :(\w+), :f :(\w+), :key ("[^"\\]*"), :value (nil|"[^"\\]*")\}', re.ASCII
)
_NAME: Final = re.compile(r"[\s,]*:([\w.*+!?<>=/-]+)\s+", re.ASCII)
_TOKEN: Final = re.compile(rf"[\s,]*({_STRING}|#?[{{(\[]|[}})\]]|[^\s,\"{{}}\[\]()]+)[\s,]*", re.ASCII | re.DOTALL)
_PROCESS: Final = re.compile(r"[0-9]{1,18}")
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,39}")
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_BRACKETS: Final = {"{": "}", "(": ")", "[": "]"}
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\"}
_FIELDS: Final = ("process", "type", "f", "key", "value")
_NEMESIS: Final = ":nemesis"
_NO_VALUE: Final = ("nil", '""')
_LONGEST_SHOWN: Final = 100


def parse(lines: Iterable[tuple[int, str]], name: str) -> tuple[Operation, ...]:
    """The operations of a file. `lines` are (number, text); `name` is what errors call the file.

    Raises SourceError, which names the file and the line.
    """
    history = History()
    keys: dict[str, str] = {}
    for number, text in lines:
        if not text.strip():
            continue
        try:
            process, kind, function, key, value = _fields(text.strip())
            if process != _NEMESIS:
                _event(history, number, process, kind, function, _key(keys, key), value)
        except HistoryError as error:
            raise SourceError(name, number, str(error)) from None
    return history.operations()


def _fields(text: str) -> tuple[str, str, str, str, str]:
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        process, kind, function, key, value = usual.groups()
        return process, ":" + kind, ":" + function, key, value
    if not (text.startswith("{") and text.endswith("}")):
        raise HistoryError(f"expected a map {{:process N, :type …}}, got {text[:_LONGEST_SHOWN]!r}")
    found: dict[str, str] = {}
    at, end = 1, len(text) - 1
    while text[at:end].strip(" \t,"):
        name = _NAME.match(text, at, end)
        after = None if name is None else _form_end(text, name.end(), end)
        if name is None or after is None:
            rest = text[at:].lstrip(" \t,")
            raise HistoryError(f"expected ':name value' at column {len(text) - len(rest) + 1}, got {rest[:40]!r}")
        if name[1] in found:
            raise HistoryError(f"the field :{name[1][:_LONGEST_SHOWN]} comes twice")
        found[name[1]] = text[name.end() : after].strip(" \t,")
        at = after
    if found.get("process") == _NEMESIS:
        return _NEMESIS, "", "", "", ""
    missing = [field_name for field_name in _FIELDS if field_name not in found]
    if missing:
        raise HistoryError("missing " + ", ".join(f":{field_name}" for field_name in missing))
    return found["process"], found["type"], found["f"], found["key"], found["value"]


def _form_end(text: str, at: int, end: int) -> int | None:
    """Where the value that begins at `at` ends: one word or string, or all within its brackets; None if it does not."""
    open_brackets: list[str] = []
    while (token := _TOKEN.match(text, at, end)) is not None:
        at = token.end()
        if token[1][0] == "#" and token[1][-1] not in _BRACKETS:
            continue  # A tag, which belongs to what comes next.
        if token[1][-1] in _BRACKETS and token[1][0] != '"':
            open_brackets.append(_BRACKETS[token[1][-1]])
        elif token[1] in _BRACKETS.values() and (not open_brackets or open_brackets.pop() != token[1]):
            return None
        if not open_brackets:
            return at
    return None


def _key(keys: dict[str, str], text: str) -> str:
    """`keys`: how each key was written before. Whether 3 and "3" are one key, nobody can tell."""
    key = text if _INTEGER.fullmatch(text) else _string("key", text, "a string or an integer")
    if (text[:1] == '"') != (keys.setdefault(key, text)[:1] == '"'):
        raise HistoryError(f"the key {key[:_LONGEST_SHOWN]} is written as an integer and as a string")
    return key


def _event(history: History, number: int, process_text: str, kind: str, function: str, key: str, value: str) -> None:
    if not _PROCESS.fullmatch(process_text):
        raise HistoryError(f"expected a number as :process, got {process_text[:_LONGEST_SHOWN]}")
    process = int(process_text)
    if function not in (":get", ":put", ":append"):
        raise HistoryError(f"expected :get, :put or :append as :f, got {function[:_LONGEST_SHOWN]}")
    action = function[1:]
    if kind == ":invoke":
        if action == "get" and value not in _NO_VALUE:
            raise HistoryError(f"expected nil as :value of the invocation of a get, got {value[:_LONGEST_SHOWN]}")
        argument = None if action == "get" else _string("value", value)
        history.invoke(process, action, key=key, argument=argument, line=number)
        return
    if kind not in (":ok", ":info", ":fail"):
        raise HistoryError(f"expected :invoke, :ok, :info or :fail as :type, got {kind[:_LONGEST_SHOWN]}")
    operation = history.open_operation(process)
    if operation is None:
        raise HistoryError(f"process {process} returned, but has no operation open")
    if operation.action != action or operation.key != key:
        raise HistoryError(
            f"process {process} returned from a {action} of key {key[:_LONGEST_SHOWN]!r}, but what it has open is the "
            f"{operation.action} of key {operation.key[:_LONGEST_SHOWN]!r} of line {operation.line}"
        )
    if kind == ":info":
        history.lose(process)
    elif kind == ":fail":
        history.cancel(process)
    elif action == "get":
        history.complete(process, "" if value == "nil" else _string("value", value))
    else:
        if value not in _NO_VALUE and _string("value", value) != operation.argument:
            raise HistoryError(
                f"process {process} returned from a {action} with another value than it invoked it with in line "
                f"{operation.line}"
            )
        history.complete(process, True)


def _string(field: str, text: str, expected: str = "a string") -> str:
    if len(text) < 2 or text[0] != '"':
        raise HistoryError(f"expected {expected} as :{field}, got {text[:_LONGEST_SHOWN]}")
    inner = text[1:-1]
    return _ESCAPE.sub(_unescape, inner) if "\\" in inner else inner


def _unescape(match: re.Match[str]) -> str:
    escape = match[1]
    if escape[0] == "u" and len(escape) == 5:
        return chr(int(escape[1:], 16))
    if escape not in _ESCAPED:
        raise HistoryError(f"unknown escape \\{escape} in a string")
    return _ESCAPED[escape]
