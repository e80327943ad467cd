"""All that a replica of the state machine holds, and nothing else: what a snapshot is of.

Who changes it is in the modules beside this one, by subject; what it is as bytes, in `snapshot.py`.
"""

from __future__ import annotations

from coordinator.statemachine.events import Event
from coordinator.statemachine.keys import Item
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.rights import Principal
from coordinator.statemachine.sessions import Session
from coordinator.statemachine.tables import Table


class State:
    __slots__ = (
        "applied",
        "cluster_id",
        "cluster_name",
        "epoch",
        "events",
        "key_bytes",
        "keys",
        "locks",
        "nonces",
        "principals",
        "sessions",
        "tokens",
        "waiting",
    )

    def __init__(self) -> None:
        self.cluster_id = 0
        self.cluster_name = ""
        self.epoch = 0
        self.applied = 0
        self.principals: Table[str, Principal] = Table()
        self.sessions: Table[int, Session] = Table()
        self.locks: Table[str, Lock] = Table()
        """Locks that are held; a free name costs nothing."""
        self.keys: Table[str, Item] = Table()
        # What follows can be told from the tables, and is kept since asking is frequent.
        self.tokens: dict[str, str] = {}
        """Token id to the name of its principal."""
        self.nonces: dict[tuple[str, bytes], int] = {}
        self.waiting = 0
        self.key_bytes = 0
        self.events: list[Event] = []
        """What the host must tell others, in order, until it takes them. No part of a snapshot."""
