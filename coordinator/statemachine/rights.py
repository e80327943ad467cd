"""Principals, their rights and the tokens that speak for them, as the log holds them.

Rights are checked at apply, so that a change of rights takes effect at one point of the log.
"""

from __future__ import annotations

from typing import Final

from coordinator.statemachine import commands
from coordinator.statemachine.commands import ADMINISTER, LOCK, READ, WRITE, PrincipalView, SetPrincipal

TOKENS_MAX: Final = 10_000
PRINCIPALS_MAX: Final = 10_000
PREFIXES_MAX: Final = 64

RIGHTS_FOR: Final[dict[type, tuple[str, ...]]] = {
    commands.OpenSession: (),
    commands.CloseSession: (),
    commands.AcquireLock: (LOCK,),
    commands.ReleaseLock: (),
    commands.CancelAcquire: (),
    commands.PutKey: (WRITE,),
    commands.DeleteKey: (WRITE,),
    commands.SetPrincipal: (ADMINISTER,),
    commands.RemovePrincipal: (ADMINISTER,),
    commands.AddToken: (ADMINISTER,),
    commands.RemoveToken: (ADMINISTER,),
    commands.GetKey: (READ,),
    commands.GetLock: (READ, LOCK),
    commands.ListLocks: (READ, LOCK),
    commands.AwaitGrant: (),
    commands.GetSession: (),
    commands.GetToken: (ADMINISTER,),
    commands.GetPrincipal: (ADMINISTER,),
    commands.ListPrincipals: (ADMINISTER,),
    commands.SetWantedMembership: (ADMINISTER,),
    commands.GetWantedMembership: (ADMINISTER,),
}
"""The rights of which each command and query takes one; (): every principal's, since it touches its own sessions alone.
Letting go takes no right: whoever lost the right to lock must still be able to release."""


class Principal:
    __slots__ = ("act_for", "name", "prefixes", "rights", "tokens")

    def __init__(self, set_principal: SetPrincipal) -> None:
        self.name = set_principal.name
        self.tokens: dict[str, bytes] = {}
        self.change(set_principal)

    def change(self, set_principal: SetPrincipal) -> None:
        self.rights = set_principal.rights
        self.prefixes = set_principal.prefixes
        self.act_for = set_principal.act_for

    def may(self, *rights: str) -> bool:
        """Has it one of `rights`?"""
        return any(right in self.rights for right in rights)

    def reaches(self, name: str) -> bool:
        """Do its prefixes let it touch `name`?"""
        return not self.prefixes or name.startswith(self.prefixes)

    def view(self) -> PrincipalView:
        return PrincipalView(self.name, self.rights, self.prefixes, self.act_for, tuple(sorted(self.tokens)))
