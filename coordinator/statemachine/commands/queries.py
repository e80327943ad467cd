"""What may be read."""

from __future__ import annotations

from coordinator.statemachine import files, lock_commands, permissions
from coordinator.statemachine.structs import WireStruct


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
