"""Histories for these tests: written by hand, drawn at random, or recorded from a simulated store."""

from __future__ import annotations

import heapq
import random
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from tests.linearizability import History, Operation

Span = tuple[int, int | None, str, Hashable, Hashable]
"""(position of the invocation, of the return or None if there was none, action, argument, result)"""


def spans(*entries: Span, key: str = "", first_number: int = 0) -> tuple[Operation, ...]:
    """Operations as they are written down, each by a process of its own."""
    return tuple(
        Operation(first_number + at, first_number + at, action, key, argument, result, invoked, returned)
        for at, (invoked, returned, action, argument, result) in enumerate(entries)
    )


def simulate(
    rng: random.Random,
    *,
    model: str,
    operations: int,
    clients: int,
    lost: float = 0.0,
    values: int | None = 5,
    keys: int = 1,
    weights: Sequence[float] = (1, 1, 1),
    late: float = 10.0,
) -> tuple[Operation, ...]:
    """What clients of a true store see: each operation takes effect at one instant between invocation and return.

    `lost` is the share of operations without an answer: half of those take effect, up to some `late` time units later
    (an operation takes about one), the others never do. Values are drawn from so many, or all differ if None. Weights
    are those of read, write and cas for a register, of get, put and append for a store.
    """
    history = History()
    state: dict[str, Any] = {}
    agenda: list[tuple[float, int, tuple[Any, ...]]] = []
    serial = 0

    def at(time: float, *what: Any) -> None:
        nonlocal serial
        serial += 1
        heapq.heappush(agenda, (time, serial, what))

    def take_effect(action: str, key: str, argument: Any) -> Any:
        before = state.get(key, None if model == "register" else "")
        if action in ("read", "get"):
            return before
        if action == "cas" and before != argument[0]:
            return False
        state[key] = before + argument if action == "append" else argument[1] if action == "cas" else argument
        return True

    def draw_operation(client: int) -> tuple[str, str, Any]:
        value = serial if values is None else rng.randrange(values)
        if model == "register":
            action = rng.choices(["read", "write", "cas"], weights)[0]
            old = state.get("") if rng.random() < 0.5 else rng.randrange(values or serial)
            return action, "", {"read": None, "write": value, "cas": (old, value)}[action]
        action = rng.choices(["get", "put", "append"], weights)[0]
        return action, str(rng.randrange(keys)), None if action == "get" else f"x {client} {value} y"

    for client in range(clients):
        at(rng.random(), "begin", client)
    started, next_client = 0, clients
    while agenda:
        now, _, what = heapq.heappop(agenda)
        if what[0] == "begin" and started < operations:
            started += 1
            client = what[1]
            action, key, argument = draw_operation(client)
            history.invoke(client, action, key=key, argument=argument)
            if rng.random() < lost:
                if rng.random() < 0.5:
                    at(now + rng.random() * late, "effect", action, key, argument, [])
                at(now + 1, "lose", client)
            else:
                box: list[Any] = []
                effect = now + rng.random()
                at(effect, "effect", action, key, argument, box)
                at(effect + rng.random(), "return", client, box)
        elif what[0] == "effect":
            what[4].append(take_effect(what[1], what[2], what[3]))
        elif what[0] == "return":
            history.complete(what[1], what[2][0])
            at(now + rng.random(), "begin", what[1])
        elif what[0] == "lose":
            history.lose(what[1])
            at(now, "begin", next_client)
            next_client += 1
    return history.operations()


def misread(rng: random.Random, operations: Sequence[Operation], *, after: float = 0.0) -> tuple[Operation, ...]:
    """The same with the result of one read changed to another that was seen before, behind that part of the history."""
    changed = list(operations)
    reads = [
        at
        for at, operation in enumerate(changed)
        if operation.action in ("read", "get") and not operation.outcome_is_unknown and at >= after * len(changed)
    ]
    rng.shuffle(reads)
    for at in reads:
        read = changed[at]
        others = sorted(
            {
                str(other.result): other.result
                for other in operations
                if other.action == read.action
                and other.key == read.key
                and other.returned is not None
                and other.returned < read.invoked
                and other.result != read.result
            }.items()
        )
        if others:
            changed[at] = replace(read, result=rng.choice(others)[1])
            return tuple(changed)
    return tuple(changed)
