"""What an entry has changed, as the replica that applied it tells the changes, beside what it had to. Not a checker."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coordinator.statemachine.items import Item
from tests.simulation.model.namespace import Change, Row

if TYPE_CHECKING:
    from tests.simulation.node import Node


class Seen(NamedTuple):
    """`before` and `after`: value, revision, version, instance, and whether it is ephemeral; None: not there."""

    key: str
    before: tuple[object, ...] | None
    after: tuple[object, ...] | None


def made(node: Node, index: int) -> tuple[Seen, ...]:
    """The changes that the replica keeps of the entry `index`, the last that it has applied, in their order."""
    assert node.replica is not None
    history = node.replica.machine.state.history
    found = []
    for number in range(history.order.following - 1, history.order.first - 1, -1):
        change = history.rows[number]
        if change.revision != index:
            break
        found.append(Seen(change.key, _item(change.before), _item(change.after)))
    return tuple(reversed(found))


def expected(changes: tuple[Change, ...]) -> tuple[Seen, ...]:
    return tuple(Seen(change.key, _row(change.before), _row(change.after)) for change in changes)


def _item(item: Item | None) -> tuple[object, ...] | None:
    return None if item is None else (item.value, item.revision, item.version, item.instance, item.ephemeral)


def _row(row: Row | None) -> tuple[object, ...] | None:
    return None if row is None else (row.value, row.revision, row.version, row.instance, bool(row.sessions))
