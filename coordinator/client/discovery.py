"""Who is there, and does the leader still listen? What the core asks of nodes by itself, and what it heard of them.

Any node that hears a question on the discovery channel says whom it knows to lead. A leader that owes an answer is
knocked at: Redis tells whether anybody listens there. Part of `core.py`.
"""

from __future__ import annotations

from typing import Final

from coordinator import wire
from coordinator.client.calls import NEVER_US, Batch
from coordinator.client.outstanding import Outstanding
from coordinator.client.routing import Routing

KNOCK_US: Final = 25_000
"""A leader that owes an answer and was silent for so long is asked whether anyone listens there: the kill of a process
loses what was published in its last millisecond, and Redis says at once when nobody listens any more."""
PATIENT_KNOCK_US: Final = 1_000_000
"""The same where nothing is owed but what may take its time."""
SILENT_US: Final = 200_000
"""A leader that was knocked at and has not answered for so long may be none: Redis counts those who listen, and so a
process that stands still, or one of a machine that is gone."""
PROBES_MAX: Final = 64
DIRECTORIES_MAX: Final = 256


class Discovery:
    def __init__(self, routing: Routing, outstanding: Outstanding) -> None:
        self.directories: dict[str, tuple[int, wire.Directory]] = {}
        """What each node last said of who is there, and when."""
        self.asked_us = 0
        """When it was last asked who leads."""
        self.knock_due_us = NEVER_US
        self._routing = routing
        self._outstanding = outstanding
        self._probes: dict[int, None] = {}
        self._knocked: tuple[str, int] = ("", 0)
        """Who was knocked at and has said nothing since, and since when."""
        self._heard: tuple[str, int] = ("", 0)
        """Who last answered as the leader, and when."""

    @property
    def awaits(self) -> bool:
        """Is a question who leads not answered?"""
        return bool(self._probes)

    def probe(self, by_node: dict[str, Batch], now_us: int) -> None:
        """Ask whoever hears it who leads; and who is said to lead another cluster of the name, since it may hear that
        on another Redis. Where nobody has said it, all nodes that listen on another are asked, too: the Redis of the
        client's URL, or its node, may be gone for good."""
        self.asked_us = now_us
        self._ask("*", by_node)
        if self._routing.asked_in_vain:
            for node, address in self._routing.addresses.items():
                if address:
                    self._ask(node, by_node)
        if rumour := self._routing.take_rumour():
            self._ask(rumour, by_node)
        self._routing.probed(now_us)

    def _ask(self, node: str, by_node: dict[str, Batch]) -> None:
        request_id = self._outstanding.next_id()
        self._probes[request_id] = None
        while len(self._probes) > PROBES_MAX:
            del self._probes[next(iter(self._probes))]
        by_node.setdefault(node, []).append((request_id, wire.DirectoryRequest(request_id)))

    def take(self, node: str, directory: wire.Directory, now_us: int) -> None:
        self.directories[node] = (now_us, directory)
        while len(self.directories) > DIRECTORIES_MAX:
            del self.directories[next(iter(self.directories))]
        self._probes.pop(directory.id, None)

    def heard(self, leader: str, now_us: int) -> None:
        """The leader answered something."""
        self._heard = (leader, now_us)
        if self._knocked[0] == leader:
            self._knocked = ("", 0)
        if self.knock_due_us != NEVER_US:
            self.knock_due_us = max(self.knock_due_us, now_us + KNOCK_US)

    def knock(self, leader: str, by_node: dict[str, Batch], now_us: int) -> bool:
        """Is anyone there? Only Redis' count of listeners matters; the answer is a bonus. True where it is to count."""
        if leader in by_node:
            self.knock_due_us = min(self.knock_due_us, now_us + KNOCK_US)
        if now_us < self.knock_due_us:
            return False
        calls = self._outstanding.calls
        if not leader or not any(call.sent_to == leader and not call.done for call in calls.values()):
            self._knocked = ("", 0)
            # Who waits is to be knocked for again when somebody is known to lead, though nothing is sent then.
            self.knock_due_us = now_us + PATIENT_KNOCK_US if calls and not leader else NEVER_US
            return False
        if leader not in by_node:
            request_id = self._outstanding.next_id()
            by_node[leader] = [(request_id, wire.DirectoryRequest(request_id))]
            if self._knocked[0] != leader:
                self._knocked = (leader, now_us)
        hurry = any(call.sent_to == leader and not call.patience_us for call in calls.values())
        self.knock_due_us = now_us + (KNOCK_US if hurry else PATIENT_KNOCK_US)
        return True

    def is_silent(self, leader: str, now_us: int) -> bool:
        """Was it knocked at, and has it said nothing for a while?"""
        knocked, since_us = self._knocked
        return knocked == leader != "" and now_us - since_us >= SILENT_US

    def surely_there(self, now_us: int) -> str:
        """The leader that was heard a moment ago; "" where none was."""
        leader, heard_us = self._heard
        return leader if now_us - heard_us < KNOCK_US else ""
