"""A linearizability checker: may these operations, seen by their clients, have happened one at a time, in real order?

    from tests.linearizability import History, RegisterModel, Verdict, check

    history = History()
    history.invoke("a", "write", argument=1)
    history.complete("a")
    history.invoke("b", "read")
    history.complete("b", None)          # stale: the write had returned
    assert check(RegisterModel(), history.operations()).verdict is Verdict.NOT_LINEARIZABLE

`history` says what an operation is, `models` what an object does, `checker` decides, `picture` draws what cannot be
ordered, `jepsen` and `porcupine_kv` read recorded files, and `python -m tests.linearizability` judges them.
"""

from __future__ import annotations

from tests.linearizability.checker import Outcome, Verdict, Window, check
from tests.linearizability.history import History, HistoryError, Operation
from tests.linearizability.models import KeyValueModel, LockModel, Model, RegisterModel

__all__ = [
    "History",
    "HistoryError",
    "KeyValueModel",
    "LockModel",
    "Model",
    "Operation",
    "Outcome",
    "RegisterModel",
    "Verdict",
    "Window",
    "check",
]
