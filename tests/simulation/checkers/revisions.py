"""Revisions: each entry changes what it says and nothing else, and a read at a revision gives what was there then
(etcd's multi-version keys). A read of now gives what was there at some moment between its question and its answer.

What was there is what a model says that reads the same entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coordinator.client.errors import InvalidRequest, NotFound
from coordinator.statemachine import files
from coordinator.statemachine.commands import KeyValue, Result, Transact
from tests.simulation.checkers import changes
from tests.simulation.model.namespace import Namespace, Row
from tests.simulation.model.truth import COMMANDS, agree
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Event
    from tests.simulation.history import Question
    from tests.simulation.node import Node


class Revisions(Checker):
    name = "revisions"

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        expected = self.world.watch.truth.expected
        if not is_first or isinstance(expected.command.op, Transact) or expected.ended:
            return
        made, must = changes.made(node, index), changes.expected(expected.changes)
        if made or must:
            self.checks += 1
            if made != must:
                self.violated(f"entry {index}, {expected.command.op}, changes {made}; it says {must}")
        if expected.is_new and isinstance(expected.command.op, COMMANDS):
            self.checks += 1
            if not agree(expected.result, result):
                self.violated(f"entry {index}, {expected.command.op}, is answered {result}, not {expected.result}")

    def answered(self, question: Question) -> None:
        query = question.what
        names = self.world.watch.truth.namespace
        if question.error is not None:
            if isinstance(query, files.ReadFile) and isinstance(question.error, NotFound):
                self._read(question, names, None)
            elif isinstance(query, (files.ReadStat, files.ReadDirectory)) and query.revision:
                self._refused(question, names)
            elif isinstance(query, files.ReadRange) and isinstance(question.error, (NotFound, InvalidRequest)):
                self.violated(f"{question}, which can be read")
            return
        match question.result:
            case files.RangeView():
                self._range(question, names)
            case files.FileContent():
                self._read(question, names, question.result)
            case files.DirectoryList():
                self._listing(question, names)
            case files.Stat() if isinstance(query, files.ReadStat):
                self._stat(question, names)
            case KeyValue():
                self._value(question, names)
            case files.Compacted(oldest=oldest):
                asked = query.since - 1 if isinstance(query, files.ReadChanges) else getattr(query, "revision", 0)
                self.checks += 1
                if asked >= oldest or oldest > names.compacted:
                    self.violated(f"{question}, and {names.compacted} is the oldest that can be read")

    def _range(self, question: Question, names: Namespace) -> None:
        query, view = question.what, question.result
        self.checks += 1
        if not query.revision and view.revision < question.floor:
            self.violated(f"{question} is of revision {view.revision}; {question.floor} was known when it was asked")
        must = names.read_range(query, names.at(view.revision), view.revision)
        if view != must:
            self.violated(f"{question}; the commits say {must}")

    def _read(self, question: Question, names: Namespace, content: files.FileContent | None) -> None:
        query = question.what
        self.checks += 1
        told: tuple[Any, ...] | None = None
        if content is not None:
            stat = content.stat
            told = (content.value, stat.revision, stat.version, stat.instance)
        if not any(told == seen for seen in _seen(names, query.path, query.revision, question.floor)):
            self.violated(f"{question}; the commits say otherwise")

    def _value(self, question: Question, names: Namespace) -> None:
        found = question.result
        self.checks += 1
        told = None if found.value is None else (found.value, found.revision, found.version)
        seen = _seen(names, question.what.key, 0, question.floor)
        if not any(told == (None if one is None else one[:3]) for one in seen):
            self.violated(f"{question}; the commits say otherwise")

    def _listing(self, question: Question, names: Namespace) -> None:
        listing, query = question.result, question.what
        then = names.at(listing.revision)
        must = _children(then, query.path)
        self.checks += 1
        if not getattr(query, "revision", 0) and listing.revision < question.floor:
            self.violated(f"{question}; {question.floor} was known when it was asked")
        base = f"{query.path}/" if query.path else ""
        told = [(child.name, child.children) for child in listing.children]
        if told != [(name, len(_children(then, base + name))) for name in must] or listing.count != len(must):
            self.violated(f"{question}; the commits say {must}")

    def _stat(self, question: Question, names: Namespace) -> None:
        """Of now it is read at some moment: what is there at all of them would be too much to go over."""
        query, stat = question.what, question.result
        if query.revision:
            then = names.at(query.revision)
            row = then.get(query.path)
            must = (len(_children(then, query.path)), *((0, 0, 0) if row is None else row[1:4]))
            self.checks += 1
            if (stat.children, stat.revision, stat.version, stat.instance) != must:
                self.violated(f"{question}; the commits say {must}")

    def _refused(self, question: Question, names: Namespace) -> None:
        query = question.what
        if isinstance(question.error, InvalidRequest):
            self.violated(f"{question}, which can be read")
        elif isinstance(question.error, NotFound):
            then = names.at(query.revision)
            self.checks += 1
            if not query.path or query.path in then or _children(then, query.path):
                self.violated(f"{question}, which was there at {query.revision}")


def _children(then: dict[str, Row], path: str) -> list[str]:
    """What was directly in a directory, by name."""
    base = f"{path}/" if path else ""
    return sorted({key.removeprefix(base).partition("/")[0] for key in then if key.startswith(base)})


def _seen(names: Namespace, path: str, revision: int, floor: int) -> list[tuple[Any, ...] | None]:
    """What was at `path` at `revision`, or (0) at any moment since `floor`; None: no file."""
    if revision:
        return [_file(names.row_at(path, revision))]
    later = [change.after for change in names.past.get(path, ()) if change.revision > floor]
    return [_file(row) for row in (names.row_at(path, floor), *later)]


def _file(row: Row | None) -> tuple[Any, ...] | None:
    return None if row is None or row.value is None else (row.value, row.revision, row.version, row.instance)
