"""What every consensus engine offers to its host, and the contract of order between the two.

The host of a replica does, in every turn and in this order:

1. `step` each message, `tick` once, `propose` and `read` what clients ask; where a snapshot has `arrived`, go on to get
   it ready, and say `install` once the journal and the state machine can take it at once;
2. `ready`: take what is to be done;
3. publish `ready.early` (these messages promise nothing of this turn's disk);
4. write `ready.hard_state` and the entries from `ready.first_index` on to the journal, in one commit that is on
   disk when it returns, replacing whatever the journal held from that index on;
5. `persisted`, then apply `take_committed` and answer `take_reads`;
6. publish `ready.late`.

Nothing of `late` may leave before step 4 is done: votes and acknowledgements are promises (docs/design.md, rule 3).
Between `ready` and `persisted` no other method is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from coordinator.consensus.members import Change
from coordinator.consensus.membership import Configuration

NEVER_US: Final = 1 << 62
"""Of what has no deadline."""


class Role(Enum):
    """What a replica does in its term, as the Raft papers name it. Learners and witnesses are followers by it."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class HardState(NamedTuple):
    """What a replica must never forget (Raft, figure 2). `vote` 0: none in this term. `commit` may lag: it is
    only a lower bound that saves time after a restart."""

    term: int
    vote: int
    commit: int


class Outgoing(NamedTuple):
    receiver: int
    message: Any
    """One of the engine's own messages."""


class Data(Protocol):
    """Bytes, or what is read like them (`parts.Parts`)."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: slice, /) -> bytes: ...
    def __bytes__(self) -> bytes: ...


class Snapshot(NamedTuple):
    """The state after the entry at `last_index`, and the configuration in force there. `data` is the host's."""

    last_index: int
    term: int
    configuration: Configuration
    data: Data


class Ready(NamedTuple):
    """See the module. `hard_state` None: nothing to write.

    `install`: a snapshot from the leader. The host puts it in place of the log up to its index, and of the rest too
    unless `keep_tail`, in the same commit; after it, the state machine is restored from it.
    """

    early: list[Outgoing]
    late: list[Outgoing]
    hard_state: HardState | None
    first_index: int
    terms: list[int]
    entries: list[bytes]
    install: Snapshot | None = None
    keep_tail: bool = False


class Committed(NamedTuple):
    """Entries to apply, the first of them at `first_index`."""

    first_index: int
    terms: list[int]
    entries: list[bytes]


class ConfirmedRead(NamedTuple):
    """The read `ticket` may be answered from a state that has applied `read_index`."""

    ticket: int
    read_index: int


class Standing(NamedTuple):
    """How far one member has come, as the leader counts it. `state`: "leader", or as etcd names a follower's.
    `heard_at_us` None: not heard in this leadership. The last two: of the snapshot that it is being sent, in bytes."""

    replica: int
    match: int
    state: str
    heard_at_us: int | None
    snapshot_acked: int
    snapshot_size: int


class Heartbeat(NamedTuple):
    """What a leader with nothing to say says: it leads `term`, and its log, all committed, ends at `last_index`."""

    leader: int
    term: int
    last_index: int


class Heard(NamedTuple):
    """A heartbeat was sent at `sent_us`, and its answer came at `answered_us`."""

    sent_us: int
    answered_us: int


class Engine(ABC):
    """A replica of one log. Times are integer microseconds of one monotonic clock, handed in; they never go back.

    A base class and no protocol, since a host asks it a hundred things in every turn: of what it is compiled with, it
    knows where each of them lies, and has not to look for it by its name."""

    role: Role
    term: int
    vote: int
    leader: int
    configuration: Configuration
    heard_at_us: int | None
    is_witness: bool
    snapshot: Snapshot | None
    settled: int
    campaign_reason: str
    forgot: int
    """An entry that this replica has acknowledged to the leader of its term, and does not have any more; 0: none is
    known. Its disk is an older one, and may have forgotten votes as well: it must take part no more."""

    @property
    @abstractmethod
    def last_index(self) -> int: ...
    @property
    @abstractmethod
    def first_index(self) -> int: ...
    @property
    @abstractmethod
    def commit_index(self) -> int: ...
    @property
    @abstractmethod
    def confirmed_at_us(self) -> int: ...
    @property
    @abstractmethod
    def deadline_us(self) -> int: ...
    @property
    @abstractmethod
    def applied_index(self) -> int: ...
    @property
    @abstractmethod
    def applied_own_term(self) -> bool: ...
    @property
    @abstractmethod
    def is_fit(self) -> bool: ...
    @property
    @abstractmethod
    def is_voter(self) -> bool: ...
    @property
    @abstractmethod
    def votes_granted(self) -> int: ...
    @property
    @abstractmethod
    def is_handing_over(self) -> bool: ...

    @abstractmethod
    def step(self, sender: int, message: Any, now_us: int) -> None: ...
    @abstractmethod
    def tick(self, now_us: int) -> None: ...
    @abstractmethod
    def stood_still(self, us: int) -> None: ...
    @abstractmethod
    def suspect(self, leader: int, now_us: int) -> None: ...
    @abstractmethod
    def propose(self, entries: list[bytes], *, in_doubt: bool = False) -> int | None: ...
    @abstractmethod
    def read(self, *, lease_ok: bool = False) -> int | None: ...
    @abstractmethod
    def delegate(self, now_us: int) -> int: ...
    @abstractmethod
    def stands_in(self, leader: int, term: int, read_index: int) -> bool: ...
    @abstractmethod
    def ready(self, now_us: int) -> Ready: ...
    @abstractmethod
    def persisted(self, ready: Ready) -> None: ...
    @abstractmethod
    def take_committed(self, bytes_max: int) -> Committed: ...
    @abstractmethod
    def give_back(self, count: int) -> None: ...
    @abstractmethod
    def tail(self, count: int) -> Committed: ...
    @abstractmethod
    def configuration_at(self, index: int) -> Configuration: ...
    @abstractmethod
    def term_at(self, index: int) -> int: ...
    @abstractmethod
    def compact(self, snapshot: Snapshot, keep_from: int) -> None: ...
    @abstractmethod
    def take_reads(self) -> list[ConfirmedRead]: ...

    # A snapshot from the leader:
    @property
    @abstractmethod
    def arrived(self) -> Snapshot | None: ...
    @abstractmethod
    def install(self) -> None: ...
    @abstractmethod
    def refuse(self) -> None: ...

    # Heartbeats that hosts speak for quiet clusters (`raft/sleep.py`):
    @property
    @abstractmethod
    def heartbeat_us(self) -> int: ...
    @abstractmethod
    def heartbeat(self, now_us: int) -> Heartbeat | None: ...
    @abstractmethod
    def would_answer(self, said: Heartbeat) -> bool: ...
    @abstractmethod
    def heard(self, at_us: int) -> None: ...
    @abstractmethod
    def answered(self, by: Mapping[int, Heard]) -> None: ...

    # What an operator asks:
    @property
    @abstractmethod
    def configuration_index(self) -> int: ...
    @property
    @abstractmethod
    def promote_lag_max(self) -> int: ...
    @property
    @abstractmethod
    def quorum_us(self) -> int: ...
    @abstractmethod
    def standing(self, now_us: int) -> list[Standing]: ...
    @abstractmethod
    def change(self, change: Change, now_us: int) -> int: ...
    @abstractmethod
    def transfer(self, target: int, now_us: int) -> bool: ...
    @abstractmethod
    def best_successor(self, now_us: int, *, but: int = 0) -> int | None: ...
    @abstractmethod
    def captured(self) -> tuple[Snapshot | None, Committed]: ...
    @abstractmethod
    def step_down(self, now_us: int) -> None: ...
    @abstractmethod
    def doubt(self, in_doubt: bool, sure_index: int = 0) -> None: ...
    @abstractmethod
    def disk_took(self, took_us: int, now_us: int) -> None: ...
