"""All that a replica of the state machine holds, and nothing else: what a snapshot is of.

Who changes it is in the modules beside this one, by subject; what it is as bytes, in `snapshot.py`.
"""

from __future__ import annotations

from coordinator.statemachine.events import Event
from coordinator.statemachine.history import History
from coordinator.statemachine.items import Item
from coordinator.statemachine.lock_commands import Break
from coordinator.statemachine.lock_events import LockEvents
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.paths import path_order
from coordinator.statemachine.permissions import Permission, Quota
from coordinator.statemachine.principals import Access, Principal, Role, Stamp
from coordinator.statemachine.quotas import Use
from coordinator.statemachine.results import Kept
from coordinator.statemachine.sessions import Session
from coordinator.statemachine.tables import Table
from coordinator.statemachine.wanted import Wanted
from coordinator.statemachine.work import Work


class State:
    __slots__ = (
        "accesses",
        "applied",
        "breaks",
        "broken",
        "caching",
        "children",
        "cluster_id",
        "cluster_name",
        "delayed",
        "ephemerals",
        "epoch",
        "events",
        "history",
        "kept",
        "key_bytes",
        "keys",
        "level",
        "lock_events",
        "lock_generations",
        "locks",
        "narrowings",
        "next_break",
        "nonces",
        "principals",
        "quotas",
        "rights_index",
        "roles",
        "sequenced",
        "sessions",
        "tokens",
        "undo",
        "uses",
        "waiting",
        "wanted",
        "work",
    )

    def __init__(self) -> None:
        self.cluster_id = 0
        self.cluster_name = ""
        self.epoch = 0
        self.applied = 0
        self.level = 1
        """Of the commands that the cluster takes (`commands.LEVEL`)."""
        self.rights_index = 0
        """Of the last entry that changed what some principal may do: the ACL generation of every path."""
        self.principals: Table[str, Principal] = Table()
        self.roles: Table[str, Role] = Table()
        self.narrowings: Table[str, tuple[Permission, ...]] = Table()
        """Of each token that is narrowed, what it may do at most, by prefix, in their order."""
        self.quotas: Table[str, Quota] = Table()
        """By principal; beside them CLUSTER and EACH."""
        self.sessions: Table[int, Session] = Table()
        self.locks: Table[str, Lock] = Table()
        """Locks that are held or waited for; a free name costs nothing."""
        self.keys: Table[str, Item] = Table(path_order)
        """Files, and directories that were made, by path."""
        self.ephemerals: Table[str, tuple[int, ...]] = Table()
        """Sessions that each ephemeral file lives with, in the order of their attaching."""
        self.lock_generations: Table[str, int] = Table()
        """Of each path that was locked since it is there, the token under which it last became held."""
        self.wanted = Wanted()
        """The wanted membership: replaced as a whole."""
        self.history = History()
        self.lock_events = LockEvents()
        self.breaks: Table[int, Break] = Table()
        """Forced releases, by number."""
        self.next_break = 1
        # What follows can be told from the tables, and is kept since asking is frequent.
        self.tokens: dict[str, str] = {}
        """Token id to the name of its principal."""
        self.nonces: dict[tuple[str, bytes], int] = {}
        self.children: dict[str, int] = {}
        """How much is directly in each directory that is not empty, made or implied; "" the root."""
        self.broken: dict[tuple[str, int, int], int] = {}
        """Name, session and acquisition to the forced release that ended that hold."""
        self.caching: set[int] = set()
        """Sessions whose clients may keep what they read. Never iterated over where the order matters."""
        self.delayed: set[str] = set()
        """Names with a lock-delay under way."""
        self.waiting = 0
        self.key_bytes = 0
        self.uses: dict[str, Use] = {}
        """What each principal has that is counted; no row: nothing."""
        self.kept = Kept()
        """What results take that sessions have not acknowledged."""
        self.accesses: dict[Stamp, Access] = {}
        """What requests may do that were asked lately. Whoever takes a right or a token away empties it."""
        self.events: list[Event] = []
        """What the host must tell others, in order, until it takes them. No part of a snapshot."""
        self.work = Work()
        self.undo: list[tuple[tuple[int, ...], int]] | None = None
        """Within a transaction: for each change of it, what the change does not say (`namespace.take_back`)."""
        self.sequenced = 0
        """Sequential names that the transaction under way has made."""

    def rights_changed(self, index: int) -> None:
        """Entry `index` changed what somebody may do: whatever comes behind it is judged anew."""
        self.rights_index = index
        self.accesses.clear()
