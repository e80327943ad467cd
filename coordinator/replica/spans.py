"""Whose spans hold a path: an interval tree. Pure.

A treap over the spans by where they begin, each node knowing the furthest end below it (Cormen et al., section 14.3):
to find the spans that hold a path costs O(log n + found), as adding and removing one does O(log n), on average.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from coordinator.statemachine.paths import Span

_LAST: Final = "\U0010ffff" * 1_024
"""Behind every rank: names have at most 512 bytes."""


class _Node:
    __slots__ = ("end", "furthest", "left", "numbers", "priority", "right", "start")

    def __init__(self, start: str, end: str, priority: int) -> None:
        self.start = start
        self.end = end
        self.furthest = end
        self.priority = priority
        self.numbers: dict[int, None] = {}
        """Whose span it is."""
        self.left: _Node | None = None
        self.right: _Node | None = None


class Spans:
    def __init__(self) -> None:
        self._root: _Node | None = None
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._random = Random(1)  # noqa: S311 - for the shape of the tree alone, which nothing hangs on.

    @property
    def count(self) -> int:
        """Different spans."""
        return len(self._nodes)

    def add(self, span: Span, number: int) -> None:
        key = (span.start, _LAST if span.end is None else span.end)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _Node(*key, self._random.getrandbits(48))
            self._root = _inserted(self._root, node)
        node.numbers[number] = None

    def remove(self, span: Span, number: int) -> None:
        """Raises KeyError where it is not there."""
        key = (span.start, _LAST if span.end is None else span.end)
        node = self._nodes[key]
        del node.numbers[number]
        if not node.numbers:
            del self._nodes[key]
            self._root = _removed(self._root, node)

    def holding(self, rank: str) -> Iterator[int]:
        """The numbers of all spans that hold `rank` (`paths.path_order`). Nothing must change while this goes on."""
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if node is None or node.furthest <= rank:
                continue
            if node.start <= rank:
                if rank < node.end:
                    yield from node.numbers
                waiting.append(node.right)
            waiting.append(node.left)


def _inserted(root: _Node | None, node: _Node) -> _Node:
    """The tree with `node`, which is not in it."""
    if root is None:
        return node
    if node.priority > root.priority:
        node.left, node.right = _split(root, (node.start, node.end))
        return _measured(node)
    if (node.start, node.end) < (root.start, root.end):
        root.left = _inserted(root.left, node)
    else:
        root.right = _inserted(root.right, node)
    return _measured(root)


def _removed(root: _Node | None, node: _Node) -> _Node | None:
    """The tree without `node`, which is in it."""
    assert root is not None, "what is removed is in the tree"
    if root is node:
        return _joined(root.left, root.right)
    if (node.start, node.end) < (root.start, root.end):
        root.left = _removed(root.left, node)
    else:
        root.right = _removed(root.right, node)
    return _measured(root)


def _split(root: _Node | None, key: tuple[str, str]) -> tuple[_Node | None, _Node | None]:
    """What lies before `key`, and what behind it."""
    if root is None:
        return None, None
    if (root.start, root.end) < key:
        root.right, behind = _split(root.right, key)
        return _measured(root), behind
    before, root.left = _split(root.left, key)
    return before, _measured(root)


def _joined(before: _Node | None, behind: _Node | None) -> _Node | None:
    if before is None or behind is None:
        return before or behind
    if before.priority > behind.priority:
        before.right = _joined(before.right, behind)
        return _measured(before)
    behind.left = _joined(before, behind.left)
    return _measured(behind)


def _measured(node: _Node) -> _Node:
    """With what is furthest below it."""
    furthest = node.end
    if node.left is not None and node.left.furthest > furthest:
        furthest = node.left.furthest
    if node.right is not None and node.right.furthest > furthest:
        furthest = node.right.furthest
    node.furthest = furthest
    return node
