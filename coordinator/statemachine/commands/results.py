"""What commands and queries are answered, and the codes of those that are refused."""

from __future__ import annotations

from typing import Final

from coordinator.statemachine import files, lock_commands, permissions
from coordinator.statemachine.structs import WireStruct

Holder = lock_commands.Holder


class SessionOpened(WireStruct, tag=1, frozen=True):
    session: int
    ttl_ms: int


class Granted(WireStruct, tag=2, frozen=True):
    token: int


class Queued(WireStruct, tag=3, frozen=True):
    """Waiting; `position` 1 is the next in line. Far back it is only an upper bound."""

    position: int


class Held(WireStruct, tag=4, frozen=True):
    """Refused: somebody else holds it and the caller did not want to wait."""

    holder: Holder
    token: int


class NotHeld(WireStruct, tag=5, frozen=True):
    """The holder that was named neither holds the lock nor waits for it."""


class Done(WireStruct, tag=6, frozen=True):
    """Applied at this log index (a key's new revision, where a key was changed). `existed` says if there was
    something to change or delete."""

    index: int
    existed: bool = False


class KeyValue(WireStruct, tag=7, frozen=True):
    """`value` None: no such key. `revision` is the index that wrote it last, `version` counts its writes."""

    value: bytes | None
    revision: int = 0
    version: int = 0


class LockView(WireStruct, tag=8, frozen=True):
    """`holder` None: free. `expires_in_ms` is what is left of the holder's lease as the leader counts it. `waiters`
    are the first few in line, `waiting` is how many there are."""

    name: str
    holder: Holder | None
    token: int
    waiters: tuple[Holder, ...]
    expires_in_ms: int
    ttl_ms: int
    waiting: int = 0


class LockList(WireStruct, tag=9, frozen=True):
    locks: tuple[LockView, ...]
    held: int
    waiting: int


class SessionView(WireStruct, tag=10, frozen=True):
    session: int
    principal: str
    ttl_ms: int
    expires_in_ms: int
    locks: tuple[str, ...]


class TokenView(WireStruct, tag=11, frozen=True):
    token_id: str
    principal: str
    key: bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.token_id!r}, {self.principal!r})"


class PrincipalView(WireStruct, tag=12, frozen=True):
    name: str
    rights: tuple[str, ...]
    prefixes: tuple[str, ...]
    act_for: bool
    tokens: tuple[str, ...]


class PrincipalList(WireStruct, tag=13, frozen=True):
    principals: tuple[PrincipalView, ...]


class Failure(WireStruct, tag=14, frozen=True):
    """Refused. `code` is one of those that are named below, `message` says what was expected and what came."""

    code: str
    message: str


class WantedMembershipView(WireStruct, tag=60, frozen=True):
    """`generation` 0: nobody has said yet what is wanted."""

    generation: int
    wanted: bytes


class Transacted(WireStruct, tag=30, frozen=True):
    """Done. `succeeded` says whether the comparisons held; `results` are those of the branch that was taken."""

    revision: int
    succeeded: bool
    results: tuple[Result, ...]


class Aborted(WireStruct, tag=31, frozen=True):
    """Nothing was done: the operation at `place` (in the branch that was taken, then in the transaction that stands
    there, and so on) was refused."""

    place: tuple[int, ...]
    refusal: Failure | files.Mismatch | files.Compacted


Result = (
    SessionOpened
    | Granted
    | Queued
    | Held
    | NotHeld
    | Done
    | KeyValue
    | LockView
    | LockList
    | SessionView
    | TokenView
    | PrincipalView
    | PrincipalList
    | WantedMembershipView
    | Failure
    | files.Created
    | files.Stat
    | files.FileContent
    | files.Mismatch
    | files.Deleted
    | files.Counted
    | files.RangeView
    | files.DirectoryList
    | files.ChangePage
    | files.Compacted
    | Transacted
    | Aborted
    | lock_commands.Deadlock
    | lock_commands.LockState
    | lock_commands.SequencerState
    | lock_commands.BreakList
    | lock_commands.LockEventPage
    | lock_commands.Broken
    | permissions.AccessView
    | permissions.PermissionList
    | permissions.RoleList
    | permissions.MemberList
    | permissions.QuotaView
    | permissions.QuotaList
    | permissions.TokenAccess
)

SESSION_GONE: Final = "session-gone"
"""No such session (any more), or it is another principal's. Nothing was applied by this request."""
OUTCOME_UNKNOWN: Final = "outcome-unknown"
"""A retry whose session is gone: the first try may have been applied (history 4)."""
FORBIDDEN: Final = "forbidden"
INVALID: Final = "invalid"
NOT_FOUND: Final = "not-found"
BUSY: Final = "busy"
"""This copy was not applied; ask again, under the same number."""
FULL: Final = "full"
"""Not applied: the cluster, or the principal, has as many of these as it may have."""
REFUSED: Final = "refused"
"""Not done, as the cluster is now; the message says what stands in the way."""
CANCELLED: Final = "cancelled"
"""The request's own cancel came first (history 12)."""
EXISTS: Final = "exists"
WRONG_KIND: Final = "wrong-kind"
"""A directory where a file was expected, or the other way round, or a value that is no number."""
NOT_EMPTY: Final = "not-empty"
TOO_MANY: Final = "too-many"
"""More than one request may touch; the message says how many that is."""
ACKNOWLEDGED: Final = "acknowledged"
"""The client said that this number was answered; its result is forgotten."""
