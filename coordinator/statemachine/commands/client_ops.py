"""What clients may have done: commands that go through the log."""

from __future__ import annotations

from coordinator.statemachine import files, lock_commands, permissions
from coordinator.statemachine.structs import WireStruct


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
