"""A linearizability checker: may these operations, seen by their clients, have happened one at a time, in real order?

    from tests.linearizability import History, RegisterModel, Verdict, check

    history = History()
    history.invoke("a", "write", argument=1)
    history.complete("a")
    history.invoke("b", "read")
    history.complete("b", None)          # stale: the write had returned
    assert check(RegisterModel(), history.operations()).verdict is Verdict.NOT_LINEARIZABLE

Where a file goes. `history` says what an operation is, `models` what an object does, `checker` gives the verdict.
The verdict on one key is `search`'s, by walks (`walk`) from layer to layer (`layers`, laid out by `timeline`, crossed
in `crossing` by the steps in `moves`). `kinds`, `lost`, `demands` and `prices` are what makes walks short; `placing`
turns a finding into an order. `window` finds what can not be ordered and `picture` draws it. `jepsen` and
`porcupine_kv` read recorded files (`source`), and `python -m tests.linearizability` judges them. `oracles` are slow
deciders for tests.
"""

from __future__ import annotations

from tests.linearizability.checker import Outcome, Verdict, check
from tests.linearizability.history import History, HistoryError, Operation
from tests.linearizability.models import CounterModel, KeyValueModel, LockModel, Model, RegisterModel
from tests.linearizability.window import Window, find_window

__all__ = [
    "CounterModel",
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
    "find_window",
]
