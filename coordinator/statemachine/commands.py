"""What may be asked of a cluster, and what it answers: commands, queries and results.

Commands change the state and go through the log; queries read it; results answer both. All of them are
frozen msgspec structs, encoded as arrays with an integer tag, so that a command costs about a microsecond
each way. This module holds names and limits only: what a command *does* is in the module of its subject, and said in
`docs/semantics.md`. The words of the namespace are in `files.py`, those of locks beyond the exclusive one of one name
in `lock_commands.py`, those of permissions, roles and quotas in `permissions.py`.

Words: a *session* is a client's life as the log sees it; a *holder* is a session and an acquisition; an
*acquisition* is one attempt of a session to hold a name, numbered by the client.
"""

from __future__ import annotations

import re
from typing import Final

from coordinator.statemachine import files, lock_commands, permissions
from coordinator.statemachine.structs import WireStruct

Holder = lock_commands.Holder

ENTRY_VERSION: Final = 1
"""Of the form of an entry. What commands it may hold is the cluster's level."""
LEVEL: Final = 5
"""What this code can apply. A cluster is at a level that all its replicas have; commands of a later one are refused."""
LEVEL_OF_QUOTAS: Final = 3
"""From which on keys have owners, and entries say by which token they were asked for."""
LEVEL_OF_CACHING: Final = 4
"""From which on clients may keep what they read."""
LEVEL_OF_LOCK_EVENTS: Final = 4
"""From which on the state holds what became of locks (`lock_events.py`)."""
LEVEL_OF_BOUNDS: Final = 4
"""From it on a transaction has a bound of all its work, and a session one of what it holds and waits for."""
LEVEL_OF_SESSION_EPOCHS: Final = 4
"""From which on a session's name holds the restore epoch (`sessions.py`)."""

LEVEL_OF_LOCK_RELEASES: Final = 5
"""From which on events of locks tell of holds that end, too."""
LEVEL_OF_ENDED_DELAYS: Final = 5
"""From which on a forced release ends a lock-delay, too."""
LEVEL_OF_SHARED_HAND_OVERS: Final = 5
"""From which on a shared and a counting hold are handed over, too."""

TTL_MS_MIN: Final = 500
TTL_MS_MAX: Final = 86_400_000
WAIT_MS_MAX: Final = 3_600_000
NAME_BYTES_MAX: Final = 512
VALUE_BYTES_MAX: Final = 1_048_576
LIST_LIMIT_MAX: Final = 1_000
ANY_ACQUISITION: Final = -1
KEY_BYTES: Final = 32
WANTED_BYTES_MAX: Final = 16 * 1024
TOKEN_ID: Final = re.compile(r"[0-9a-f]{16}")

READ: Final = "read"
WRITE: Final = "write"
LOCK: Final = "lock"
ADMINISTER: Final = "administer"
RIGHTS: Final = (READ, WRITE, LOCK, ADMINISTER)

PRINCIPAL_NAME: Final = re.compile(r"(user:)?[A-Za-z0-9][A-Za-z0-9._@+-]{0,149}")
"""What `manage.py token NAME` may create. Names that begin with `user:` are the web tier's own, one for each Django
user whose name these characters spell."""


# --- commands -------------------------------------------------------------------------------------


class OpenSession(WireStruct, tag=1, frozen=True):
    """Open a session that lives `ttl_ms` without a keep-alive. `nonce` makes a retry find the first one."""

    ttl_ms: int
    nonce: bytes


class CloseSession(WireStruct, tag=2, frozen=True):
    """End a session: its locks are let go and its waiters leave their queues. `owner` 0: the request's own."""

    owner: int = 0


class AcquireLock(WireStruct, tag=3, frozen=True):
    """Take `name` for the holder (`owner`, `acquisition`), or queue for it where `wait` is set.

    Asked again by the same holder it answers with the grant, or the place in the queue, that it already has.
    `take_over`: what the session already has of this name becomes this acquisition's, with the same token or place.
    """

    name: str
    acquisition: int
    wait: bool
    owner: int = 0
    take_over: bool = False


class ReleaseLock(WireStruct, tag=4, frozen=True):
    """Let go of `name`, or leave its queue. The next in line is granted by the same entry. `acquisition`
    ANY_ACQUISITION: whatever the session has of this name."""

    name: str
    acquisition: int
    owner: int = 0


class CancelAcquire(WireStruct, tag=5, frozen=True):
    """Undo the request `number` (an `AcquireLock`), whether it was applied, is queued, or has yet to come.

    Where it has yet to come, a mark is left and the request is refused when it arrives (history 12).
    """

    name: str
    acquisition: int
    number: int
    owner: int = 0


class PutKey(WireStruct, tag=6, frozen=True):
    key: str
    value: bytes


class DeleteKey(WireStruct, tag=7, frozen=True):
    key: str


class SetPrincipal(WireStruct, tag=8, frozen=True):
    """Create a principal or replace its rights. `prefixes` narrows them to names that begin with one of them
    (empty: everything); `act_for` lets it act for others (the web tier alone has it)."""

    name: str
    rights: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    act_for: bool = False


class RemovePrincipal(WireStruct, tag=9, frozen=True):
    """Remove a principal with its tokens. Its waiters leave their lines; its sessions, which nobody can keep alive any
    more, run out."""

    name: str


class AddToken(WireStruct, tag=10, frozen=True):
    """Let requests signed with `key` speak for `principal`. `key` is derived from the token, one way."""

    token_id: str
    principal: str
    key: bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.token_id!r}, {self.principal!r})"


class RemoveToken(WireStruct, tag=11, frozen=True):
    token_id: str


class SetWantedMembership(WireStruct, tag=60, frozen=True):
    """The wanted membership of this cluster, as its administrators last said it, for whoever makes it so. `generation`
    is one above the one that the log holds; `wanted` is opaque here. Said again, it changes nothing."""

    generation: int
    wanted: bytes


class Transact(WireStruct, tag=30, frozen=True):
    """Where all of `compares` hold, do `then`, else `otherwise`: all of it or nothing. What comes later sees what came
    before. An operation that is refused undoes everything. No key is changed twice."""

    compares: tuple[files.Compare, ...]
    then: tuple[TransactionOp, ...]
    otherwise: tuple[TransactionOp, ...] = ()


TransactionOp = (
    PutKey
    | DeleteKey
    | files.CreateFile
    | files.MakeDirectory
    | files.WriteFile
    | files.DeletePath
    | files.DeleteRange
    | files.AddToKey
    | files.ReadFile
    | files.ReadRange
    | Transact
)

ClientOp = (
    OpenSession
    | CloseSession
    | AcquireLock
    | ReleaseLock
    | CancelAcquire
    | PutKey
    | DeleteKey
    | SetPrincipal
    | RemovePrincipal
    | AddToken
    | RemoveToken
    | SetWantedMembership
    | files.CreateFile
    | files.MakeDirectory
    | files.WriteFile
    | files.DeletePath
    | files.DeleteRange
    | files.AddToKey
    | files.AttachFile
    | files.DetachFile
    | files.Compact
    | files.BeginCaching
    | Transact
    | lock_commands.Acquire
    | lock_commands.Release
    | lock_commands.ChangeMode
    | lock_commands.HandOver
    | lock_commands.ForceRelease
    | permissions.SetRole
    | permissions.RemoveRole
    | permissions.SetPermission
    | permissions.SetRoles
    | permissions.NarrowToken
    | permissions.SetQuota
)


class Genesis(WireStruct, tag=100, frozen=True):
    """The first command of every log: who this cluster is, and the principal that may edit the others."""

    cluster_id: int
    name: str
    epoch: int
    principals: tuple[SetPrincipal, ...]
    tokens: tuple[AddToken, ...]
    level: int = 1


class ExpireSessions(WireStruct, tag=101, frozen=True):
    """Sessions whose lease ran out, proposed by the leader alone. All of them go before anything is granted."""

    sessions: tuple[int, ...]


class MarkState(WireStruct, tag=102, frozen=True):
    """Changes nothing: whoever applies it takes a digest of all of the state, to be compared with the others'."""


class CheckpointSessions(WireStruct, tag=104, frozen=True):
    """What is left of sessions' leases, in milliseconds, as the leader counts it: a new leader begins with that. From
    the proposal on the leader answers no keep-alive of these sessions before a later reset is applied (history 10)."""

    remaining: tuple[tuple[int, int], ...]


class ResetCheckpoints(WireStruct, tag=105, frozen=True):
    """Sessions that were kept alive since their checkpoint: a new leader begins with their full lease again."""

    sessions: tuple[int, ...]


class RaiseLevel(WireStruct, tag=106, frozen=True):
    """All replicas can apply the commands of this level: from here on the cluster takes them. Proposed by the leader,
    when every member of the configuration has said so."""

    level: int


NodeOp = (
    Genesis
    | ExpireSessions
    | MarkState
    | lock_commands.EndLockDelays
    | lock_commands.RaiseEpoch
    | CheckpointSessions
    | ResetCheckpoints
    | RaiseLevel
)
Op = ClientOp | NodeOp


class Command(WireStruct, frozen=True):
    """One request of a client: exactly once by (`session`, `number`).

    `session` is the session whose numbers these are (0 only for `OpenSession`). Every number below `acked` has been
    answered as far as the client is concerned, and its result may be forgotten.
    """

    session: int
    number: int
    acked: int
    op: ClientOp


class NodeCommand(WireStruct, frozen=True):
    session: int
    number: int
    acked: int
    op: Op


class Entry(WireStruct, frozen=True):
    """What a log entry of kind COMMAND holds: the command, and who a node verified that it came from.

    `principal` is whose rights apply; `actor` is who signed, where that is another (rule 9). `token` is the one that
    it was signed with, `for_token` the one of `principal` that the actor was given, if any; each may narrow what is
    allowed. All are stamped by the node; all are empty where the leader itself speaks. An entry of before level 3 has
    no word of tokens: None.
    """

    version: int
    principal: str
    actor: str
    command: NodeCommand
    token: str | None = None
    for_token: str = ""


# --- queries --------------------------------------------------------------------------------------


class GetKey(WireStruct, tag=1, frozen=True):
    key: str


class GetLock(WireStruct, tag=2, frozen=True):
    name: str


class ListLocks(WireStruct, tag=3, frozen=True):
    """Locks that are held, by name, from the first after `after`."""

    after: str = ""
    limit: int = 100


class AwaitGrant(WireStruct, tag=4, frozen=True):
    """Where the acquisition stands now. The leader also pushes the grant to whoever asked last (history 8)."""

    name: str
    acquisition: int
    owner: int


class GetSession(WireStruct, tag=5, frozen=True):
    session: int


class GetToken(WireStruct, tag=6, frozen=True):
    """The key and the principal of a token. Only a principal that may act for others may ask."""

    token_id: str


class GetPrincipal(WireStruct, tag=7, frozen=True):
    name: str


class ListPrincipals(WireStruct, tag=8, frozen=True):
    after: str = ""
    limit: int = 100


class GetWantedMembership(WireStruct, tag=60, frozen=True):
    """The wanted membership that the log holds, and its generation."""


Query = (
    GetKey
    | GetLock
    | ListLocks
    | AwaitGrant
    | GetSession
    | GetToken
    | GetPrincipal
    | ListPrincipals
    | GetWantedMembership
    | files.ReadFile
    | files.GetStat
    | files.ReadRange
    | files.ListDirectory
    | files.ReadChanges
    | lock_commands.GetLockState
    | lock_commands.CheckSequencer
    | lock_commands.ListBreaks
    | lock_commands.ReadLockEvents
    | permissions.GetAccess
    | permissions.ListPermissions
    | permissions.ListRoles
    | permissions.ListMembers
    | permissions.GetQuota
    | permissions.ListQuotas
    | permissions.GetTokenAccess
    | files.ReadStat
    | files.ReadDirectory
    | lock_commands.ReadLockLives
)


# --- results --------------------------------------------------------------------------------------


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


# --- names ----------------------------------------------------------------------------------------


def canonical_name(name: str) -> str:
    """A key's or lock's name as the cluster keeps it: without one leading slash.

    Raises ValueError, saying what was expected and what came.
    """
    if not isinstance(name, str):
        raise ValueError(f"a name is a str of 1 to {NAME_BYTES_MAX} bytes, not {type(name).__name__}")
    bare = name.removeprefix("/")
    problem = name_problem(bare)
    if problem:
        raise ValueError(problem)
    return bare


def name_problem(name: str) -> str | None:
    """Why `name` is not a canonical name; None where it is one."""
    if 0 < len(name) <= NAME_BYTES_MAX and name.isascii() and name.isprintable() and name[0] != "/":
        return None  # What most names are. Of ASCII, every version of Python has the same opinion.
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "a name is valid Unicode; this one holds a lone surrogate"
    if not 1 <= size <= NAME_BYTES_MAX:
        return f"a name has 1 to {NAME_BYTES_MAX} bytes, this one has {size}"
    if name.startswith("/"):
        return "a name does not begin with two slashes"
    unfit = _UNFIT.search(name)
    if unfit:
        return f"a name holds no control characters and no line breaks, got U+{ord(unfit[0]):04X}"
    return None


_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Spelled out, since replicas on different versions of Python must judge alike, and their Unicode tables do not."""
