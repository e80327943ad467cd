"""Those that wait for one thing to happen. Who gives up before leaves nothing behind, however long it takes."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.client.calls import Call


class Waiting:
    def __init__(self, finish: Callable[[Call, object], None]) -> None:
        self._finish = finish
        self._calls: dict[int, Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> Call:
        self._calls[call.request_id] = call
        call.when_done(self._is_done)
        return call

    def _is_done(self, call: Call) -> None:
        self._calls.pop(call.request_id, None)

    def end(self, outcome: object) -> None:
        """It has happened: all of them end so."""
        for call in [*self._calls.values()]:
            self._finish(call, outcome)
