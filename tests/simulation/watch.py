"""What there is to see of a run, and who looks: checkers say what they want to be told by having a method of that name.

This module also keeps what is true of the cluster as a whole, learned from the first replica that showed it: which
entries are committed, and what came of each when it was applied.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from coordinator import wire
from coordinator.consensus.engine import ConfirmedRead, Outgoing, Role
from coordinator.consensus.entries import CONFIGURATION
from coordinator.consensus.raft.messages import AppendEntries, Message
from coordinator.replica.ports import Write
from coordinator.replica.stored import StoredLog
from coordinator.statemachine.commands import Command, Result
from coordinator.statemachine.machine import Event
from tests.simulation.model.truth import Truth

if TYPE_CHECKING:
    from coordinator.consensus.members import Change
    from coordinator.wire import SleepAnswer, SleepBeat
    from tests.simulation.clients import Client, HeldLease
    from tests.simulation.history import Operation, Question
    from tests.simulation.mixed.lock_watches import LockWatcher
    from tests.simulation.mixed.watches import Watcher
    from tests.simulation.node import Node
    from tests.simulation.world import World


class Violation(Exception):
    """A property does not hold. `checker` is the property's name."""

    def __init__(self, checker: str, message: str) -> None:
        super().__init__(message)
        self.checker = checker


NO_DEFECT: Final = "no-defect"
"""The property that nothing is raised which nobody expects, neither by what is simulated nor by the simulator."""


def defect_of(who: str, error: Exception) -> Violation:
    """What somebody raised whom nobody expected to, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return Violation(NO_DEFECT, f"{who}: {error!r} in {place.name} ({Path(place.filename).name}:{place.lineno})")


class View(NamedTuple):
    """What the outside can tell of a replica between two turns."""

    term: int
    role: Role
    commit: int
    last_index: int
    last_term: int


class Checker:
    """One property. A subclass has those of these methods that it wants to be called; each is empty here.

    `name` is what a violation is reported under; `checks` counts comparisons that could have failed.
    """

    name = ""

    def __init__(self, world: World) -> None:
        self.world = world
        self.checks = 0

    def violated(self, message: str) -> NoReturn:
        raise Violation(self.name, message)

    def started(self, node: Node) -> None:
        """A process of `node` has begun, with what its disk held."""

    def changed(self, node: Node, before: View, after: View) -> None:
        """A turn of `node` changed what is seen of it."""

    def took(self, node: Node, sender: int, message: Message) -> None:
        """`node` has taken a message of the replica `sender`."""

    def answered_for(self, node: Node, beat: SleepBeat, answer: SleepAnswer) -> None:
        """`node` answers what another one said for its quiet leaders."""

    def change_begun(self, node: Node, change: Change) -> None:
        """The engine of `node`, a leader, has taken an operator's change of membership."""

    def turned(self, node: Node) -> None:
        """A turn of `node` is over."""

    def led(self, node: Node) -> None:
        """`node` leads at the end of a turn."""

    def elected(self, node: Node) -> None:
        """`node` has become the leader of its term."""

    def journaled(self, node: Node, write: Write) -> None:
        """`write` is on the disk of `node` now."""

    def committed(self, node: Node, index: int, term: int, entry: bytes, is_first: bool) -> None:
        """`node` takes `index` for committed; `is_first`: nobody did before it."""

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        """The state machine of `node` applied a command."""

    def publishing(self, node: Node, outgoing: Sequence[Outgoing]) -> None:
        """`node` sends messages to its peers."""

    def answering(self, node: Node) -> None:
        """`node` sends answers to clients."""

    def read_begun(self, node: Node, ticket: int, lease_ok: bool) -> None:
        """The engine of `node`, a leader or a follower, takes reads under `ticket`; `lease_ok`: a lease will do for
        them."""

    def read_confirmed(self, node: Node, read: ConfirmedRead) -> None:
        """The engine of `node` says that these reads may be answered."""

    def reads_left(self, node: Node, delegate: int, number: int) -> None:
        """The leader `node` leaves reads that it was asked to its `delegate`, with this number in its term."""

    def reads_taken(self, node: Node, leader: int, said: wire.LeftReads) -> None:
        """`node` answers reads that `leader` left to it, as soon as it has applied their read index."""

    def read_answered(self, node: Node, read_index: int) -> None:
        """`node` answers a read, which was confirmed at `read_index`, from its state machine."""

    def counting(self, node: Node) -> None:
        """`node` begins to count leases: a turn of it has just ended."""

    def kept_alive(self, node: Node, session: int) -> None:
        """`node` answers that `session` has its full time to live again."""

    def invoked(self, operation: Operation) -> None:
        """A client began an operation."""

    def returned(self, operation: Operation) -> None:
        """An operation came back, or was given up."""

    def answered(self, question: Question) -> None:
        """A question came back, with a result or refused."""

    def refused(self, command: Command) -> None:
        """A client tells its caller that there was no room for it, and that it is not applied."""

    def paged(self, watcher: Watcher, question: Question) -> None:
        """A watcher was given a page of changes."""

    def served(self, client: Client, query: wire.CachedQuery, found: Result) -> None:
        """A client is about to answer a read from what it keeps."""

    def heard(self, watcher: LockWatcher) -> None:
        """A watcher of locks was told of an event, or that there was none."""

    def lease_taken(self, lease: HeldLease) -> None:
        """A client was granted a lock."""

    def lease_renewed(self, client: Client) -> None:
        """A session of `client` was confirmed."""

    def finished(self) -> None:
        """The run is over, the faults are healed, the cluster is quiet."""


HOOKS: Final = (
    "started",
    "changed",
    "took",
    "change_begun",
    "turned",
    "led",
    "elected",
    "journaled",
    "committed",
    "applied",
    "publishing",
    "answering",
    "read_begun",
    "read_confirmed",
    "read_answered",
    "reads_left",
    "reads_taken",
    "counting",
    "answered_for",
    "kept_alive",
    "invoked",
    "returned",
    "answered",
    "refused",
    "paged",
    "served",
    "heard",
    "lease_taken",
    "lease_renewed",
    "finished",
)


class Watch:
    """Tells each checker what it wants to know, and keeps the truth."""

    def __init__(self, checkers: list[Checker], born: StoredLog) -> None:
        """`born`: what every journal begins with, committed."""
        self.checkers = checkers
        wanted: dict[str, list[Any]] = {}
        for hook in HOOKS:
            base = getattr(Checker, hook)
            wanted[hook] = [getattr(c, hook) for c in checkers if getattr(type(c), hook) is not base]
        self._wanted = wanted
        self._changed = wanted["changed"]
        self._led = wanted["led"]
        self._turned = wanted["turned"]
        self._took = wanted["took"]
        self._committed = wanted["committed"]
        self._applied = wanted["applied"]
        self._publishing = wanted["publishing"]
        self._answering = wanted["answering"]
        self._journaled = wanted["journaled"]
        self.committed_terms = [*born.terms]
        self.committed_entries = [*born.entries]
        """By index, from 1: what some replica took for committed first."""
        self.logs: dict[int, list[int]] = {}
        """Replica to the terms of its log by index, as its disk holds them, or held them when it was lost."""
        self.results: dict[int, tuple[bytes, Result, list[Event]]] = {}
        """What the first replica to apply an index got: the entry, its result, its events."""
        self.truth = Truth()
        """What the entries mean, done besides by a model; what it expects of an entry is known before it is looked at
        what the machine made of it."""
        self.sent_configurations: dict[bytes, int] = {}
        """Entries of configurations that some replica sent, committed or not, to the highest index that each had."""
        self.elections = 0
        self.leader: Node | None = None
        """Whoever was elected last."""

    def tell(self, hook: str, *arguments: Any) -> None:
        for listener in self._wanted[hook]:
            listener(*arguments)

    # --- what nodes show --------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        if node.replica is not None:
            node.view = self._look(node)
            self.tell("started", node)

    def took(self, node: Node, sender: int, message: Message) -> None:
        for listener in self._took:
            listener(node, sender, message)

    def turn_ended(self, node: Node) -> None:
        before = node.view
        engine = node.engine
        log = engine.log
        for listener in self._turned:
            listener(node)
        if node.world.injector.wanted:
            node.world.injector.turned(node)
        if engine.role is Role.LEADER:
            for listener in self._led:
                listener(node)
        if (
            log.last_index == before.last_index
            and engine.term == before.term
            and log.commit == before.commit
            and engine.role is before.role
            and log.last_term == before.last_term
        ):
            return
        after = node.view = self._look(node)
        if node.world.trace is not None and (after.role, after.term) != (before.role, before.term):
            log = f"{after.last_index}({after.last_term}) c{after.commit}"
            node.world.note(node.name, f"becomes {after.role.name.lower()} of t{after.term}, log {log}")
        for listener in self._changed:
            listener(node, before, after)
        if after.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and (after.role, after.term) != (
            before.role,
            before.term,
        ):
            node.world.injector.moment("campaigning", node)
        if after.role is Role.LEADER and (before.role is not Role.LEADER or before.term != after.term):
            self.elections += 1
            self.leader = node
            self.tell("elected", node)
            node.world.injector.moment("elected", node)
        if after.commit > before.commit:
            self._note_commits(node, before.commit, after.commit)

    def died(self, node: Node) -> None:
        """The process of `node` died within a turn: what it knew to be committed it may have told."""
        if node.engine is not None and node.engine.log.commit > node.view.commit:
            self._note_commits(node, node.view.commit, node.engine.log.commit)

    @staticmethod
    def _look(node: Node) -> View:
        engine = node.engine
        return View(engine.term, engine.role, engine.log.commit, engine.log.last_index, engine.log.last_term)

    def _note_commits(self, node: Node, after_index: int, last_index: int) -> None:
        log = node.engine.log
        if last_index > log.last_index:
            raise Violation(
                "commit-durability",
                f"{node.name} takes entries up to {last_index} for committed; its log ends at {log.last_index}",
            )
        # What a snapshot brought is not in the log any more; that it is right, is for SnapshotSafety to say.
        for index in range(max(after_index, log.offset) + 1, last_index + 1):
            position = index - log.offset - 1
            term, entry = log.terms[position], log.entries[position]
            is_first = index == len(self.committed_terms) + 1
            if is_first:
                self.committed_terms.append(term)
                self.committed_entries.append(entry)
            for listener in self._committed:
                listener(node, index, term, entry, is_first)

    def applied(self, node: Node, index: int, entry: bytes, result: Result, events: list[Event]) -> None:
        is_first = index not in self.results
        if is_first:
            self.results[index] = (entry, result, events)
            self.truth.apply(index, entry)
        for listener in self._applied:
            listener(node, index, entry, result, events, is_first)

    def publishing(self, node: Node, outgoing: Sequence[Outgoing]) -> None:
        for _, message in outgoing:
            if isinstance(message, AppendEntries):
                for index, entry in enumerate(message.entries, message.prev_index + 1):
                    if entry[0] == CONFIGURATION:
                        self.sent_configurations[entry] = max(index, self.sent_configurations.get(entry, 0))
        for listener in self._publishing:
            listener(node, outgoing)

    def answering(self, node: Node) -> None:
        for listener in self._answering:
            listener(node)

    def journaled(self, node: Node, write: Write) -> None:
        terms = self.logs.setdefault(write.replica, [])
        if write.head is not None:
            index = write.head.snapshot.last_index
            terms[:index] = self.committed_terms[:index]
            if not write.head.keep_tail:
                del terms[index:]
        if write.entries:
            terms[write.first_index - 1 :] = write.terms
        for listener in self._journaled:
            listener(node, write)

    def holders(self, index: int, term: int) -> set[int]:
        """Replicas whose disks hold the entry `index` of `term`."""
        return {replica for replica, terms in self.logs.items() if len(terms) >= index and terms[index - 1] == term}
