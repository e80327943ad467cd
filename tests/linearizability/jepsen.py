"""Reads register histories as Jepsen logged them from a real etcd.

Each line is one event, with tabs or spaces between the fields:

    INFO  jepsen.util - PROCESS  :invoke|:ok|:fail|:info  :read|:write|:cas  VALUE

A value is an integer or `nil`; a compare-and-set carries `[OLD NEW]`. What the endings mean:

- `:ok`: it took effect, and a read gave this value. A write or a compare-and-set repeats its values, or has `nil`.
- `:fail :cas [OLD NEW]`: the register did not hold OLD.
- `:fail` of anything else, and of a compare-and-set with a reason behind its values or instead of them: by Jepsen's
  rule it surely did not take effect; a read that failed constrains nothing.
- `:info`: no answer came; it may take effect at any later time, or never. So does what never returns. Its process may
  go on with another operation.

A reason is whatever stands behind `:fail` or `:info`, or behind the values there: `:timed-out`, `[:timed-out "…"]`,
words.

Blank lines and what Jepsen logs of its nemesis (the process `:nemesis`) are skipped. Anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from tests.linearizability.history import History, HistoryError, Operation
from tests.linearizability.source import SourceError

_LINE: Final = re.compile(r"INFO\s+jepsen\.util\s+-\s+(\S+)\s+:(\w+)\s+:([\w-]+)(?:\s+(\S.*))?", re.ASCII)
_VALUE: Final = re.compile(r"nil|-?[0-9]{1,40}")
_PAIR: Final = re.compile(r"\[\s*(nil|-?[0-9]{1,40})[\s,]+(nil|-?[0-9]{1,40})\s*\]")
_PROCESS: Final = re.compile(r"[0-9]{1,18}")
_VALUES_AND_REASON: Final = re.compile(r"((?:nil|-?[0-9]{1,40}|\[(?:nil|[-0-9\s,])*\])(?=\s|$))?\s*(.*)")
_LONGEST_SHOWN: Final = 100


def parse(lines: Iterable[tuple[int, str]], name: str) -> tuple[Operation, ...]:
    """The operations of a file. `lines` are (number, text); `name` is what errors call the file.

    Raises SourceError, which names the file and the line.
    """
    history = History()
    for number, text in lines:
        if not text.strip():
            continue
        try:
            _event(history, number, text.strip())
        except HistoryError as error:
            raise SourceError(name, number, str(error)) from None
    return history.operations()


def _event(history: History, number: int, text: str) -> None:
    match = _LINE.fullmatch(text)
    if match is None:
        raise HistoryError(
            f"expected 'INFO  jepsen.util - PROCESS :TYPE :FUNCTION VALUE', got {text[:_LONGEST_SHOWN]!r}"
        )
    process_text, kind, function, value = match.groups()
    if process_text == ":nemesis":
        return
    if not _PROCESS.fullmatch(process_text):
        raise HistoryError(f"expected a process number, got {process_text[:_LONGEST_SHOWN]!r}")
    process = int(process_text)
    if function not in ("read", "write", "cas"):
        raise HistoryError(f"expected :read, :write or :cas, got :{function[:_LONGEST_SHOWN]}")
    if kind == "invoke":
        argument = None if function == "read" else _argument(function, value)
        if function == "read" and value not in (None, "nil"):
            raise HistoryError(f"expected a read to be invoked with nil, got {value[:_LONGEST_SHOWN]!r}")
        history.invoke(process, function, argument=argument, line=number)
        return
    if kind not in ("ok", "fail", "info"):
        raise HistoryError(f"expected :invoke, :ok, :fail or :info, got :{kind[:_LONGEST_SHOWN]}")
    operation = history.open_operation(process)
    if operation is None:
        raise HistoryError(f"process {process} returned, but has no operation open")
    if operation.action != function:
        raise HistoryError(
            f"process {process} returned from a {function}, but what it has open is the {operation.action} "
            f"of line {operation.line}"
        )
    if kind == "ok":
        if function == "read":
            history.complete(process, _argument(function, value))
            return
        _check_values(operation, value)
        history.complete(process, True)
        return
    divided = _VALUES_AND_REASON.fullmatch(value or "")
    assert divided is not None, "it matches whatever there is"
    values, reason = divided.groups()
    if function != "read" and values is not None:
        _check_values(operation, values)
    if kind == "info":
        history.lose(process)
    elif function == "cas" and values not in (None, "nil") and not reason:
        history.complete(process, False)
    else:
        history.cancel(process)


def _check_values(operation: Operation, text: str | None) -> None:
    """A return repeats the values of its invocation, or has none."""
    if text != "nil" and _argument(operation.action, text) != operation.argument:
        raise HistoryError(
            f"process {operation.process} returned from a {operation.action} with other values than it invoked it with "
            f"in line {operation.line}"
        )


def _argument(function: str, text: str | None) -> int | tuple[int | None, int | None] | None:
    if function == "cas":
        pair = _PAIR.fullmatch(text or "")
        if pair is None:
            raise HistoryError(f"expected [OLD NEW] for a cas, got {(text or '')[:_LONGEST_SHOWN]!r}")
        return _integer(pair[1]), _integer(pair[2])
    if _VALUE.fullmatch(text or "") is None:
        raise HistoryError(f"expected an integer or nil for a {function}, got {(text or '')[:_LONGEST_SHOWN]!r}")
    assert text is not None
    return _integer(text)


def _integer(text: str) -> int | None:
    return None if text == "nil" else int(text)
