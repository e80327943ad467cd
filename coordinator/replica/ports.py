"""What one turn needs of the world, so that a worker and the simulator can each hand in their own.

A worker's are SQLite (`journal.py`), Redis (`mailbox.py`) and the monotonic clock; the simulator's are its own. These
three are base classes and no protocols: a turn calls them a dozen times, and what is compiled knows of a class where
its methods are, and looks for those of a protocol by their names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from mypy_extensions import mypyc_attr

from coordinator.consensus.engine import HardState, Snapshot


class JournalFailed(Exception):
    """A write may or may not be on disk, and nobody can know. The process must end (docs/design.md, rule 3)."""


class Staging(Protocol):
    """A snapshot on its way to disk, beside the loop. Nothing counts on it before a `Head` names it in a commit."""

    @property
    def is_done(self) -> bool:
        """It is on disk, all of it."""
        ...

    @property
    def failed(self) -> str:
        """Why it will not be; "" where nothing went wrong. The disk may be full: that is no reason to end."""
        ...

    def give_up(self) -> None:
        """Nobody wants it any more."""
        ...


class Head(NamedTuple):
    """A snapshot, and where the log begins behind it: at `offset + 1`, with `offset_term` the term of the entry before.

    `keep_tail`: what the journal holds of the log behind the offset stays; else it goes. `staged`: the snapshot's bytes
    are on disk already (`Journal.stage`); None: they are to be written now. `agreed`: a majority had the same state.
    """

    snapshot: Snapshot
    offset: int
    offset_term: int
    keep_tail: bool
    staged: Staging | None = None
    agreed: bool = False


class Write(NamedTuple):
    """What one replica wants on disk: its hard state, its log from `first_index` on, and a new head if any.

    `stopped`: why it takes no part from here on, over any restart; "" while it does.
    """

    replica: int
    hard_state: HardState
    first_index: int
    terms: list[int]
    entries: list[bytes]
    head: Head | None = None
    stopped: str = ""


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator's
class Journal(ABC):
    @abstractmethod
    def commit(self, writes: list[Write]) -> None:
        """Put all of it on disk, at once or not at all; it is there when this returns. Raises JournalFailed."""
        ...

    @abstractmethod
    def stage(self, replica: int, snapshot: Snapshot) -> Staging:
        """Begin to put a large snapshot on disk, so that the commit that takes it is short."""
        ...


class Inbound(NamedTuple):
    """A packet from a mailbox: `from_peers` says which of the node's two it was."""

    from_peers: bool
    data: bytes


class Outbound(NamedTuple):
    """`address`: the Redis to publish on; "" the node's own."""

    address: str
    channel: str
    data: bytes


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator's
class Bus(ABC):
    """A lossy, reordering, duplicating network (docs/design.md, rule 1). Nothing here blocks or raises."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Is the node's mailbox being listened to? While it is not, time is a stall."""
        ...

    @abstractmethod
    def drain(self) -> list[Inbound]: ...

    @abstractmethod
    def publish(self, packets: list[Outbound]) -> None: ...

    @abstractmethod
    def watch(self, nodes: Mapping[str, str]) -> None:
        """Look out for these nodes' mailboxes falling silent; with each the address of its Redis."""
        ...

    @abstractmethod
    def take_silent(self) -> list[str]:
        """Watched nodes whose mailbox lost its only subscriber, seen on one unbroken connection (the crash hint)."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator's
class Clock(ABC):
    @abstractmethod
    def now_us(self) -> int:
        """Monotonic microseconds."""
        ...

    @abstractmethod
    def wall_ms(self) -> int:
        """Milliseconds since 1970, for people; nothing is decided by it."""
        ...
