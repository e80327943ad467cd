"""Principals, their rights and the tokens that speak for them, as the log holds them.

Rights are checked at apply, so that a change of rights takes effect at one point of the log.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from coordinator.statemachine import commands, files, lock_commands
from coordinator.statemachine.commands import (
    ADMINISTER,
    LOCK,
    READ,
    WRITE,
    Failure,
    PrincipalView,
    SetPrincipal,
    name_problem,
)
from coordinator.statemachine.paths import Span, prefixed, span_of

TOKENS_MAX: Final = 10_000
PRINCIPALS_MAX: Final = 10_000
PREFIXES_MAX: Final = 64


class Rule(NamedTuple):
    """`rights`: of which a principal needs one; (): every principal may. `subject`: the field that names what is
    touched, or how a range is named; "": nothing that has a name."""

    rights: tuple[str, ...]
    subject: Literal["", "key", "name", "names", "path", "range", "directory"] = ""


RULES: Final[dict[type, Rule]] = {
    commands.OpenSession: Rule(()),
    commands.CloseSession: Rule(()),
    commands.AcquireLock: Rule((LOCK,), "name"),
    commands.ReleaseLock: Rule((), "name"),
    commands.CancelAcquire: Rule((), "name"),
    commands.PutKey: Rule((WRITE,), "key"),
    commands.DeleteKey: Rule((WRITE,), "key"),
    commands.SetPrincipal: Rule((ADMINISTER,)),
    commands.RemovePrincipal: Rule((ADMINISTER,)),
    commands.AddToken: Rule((ADMINISTER,)),
    commands.RemoveToken: Rule((ADMINISTER,)),
    files.CreateFile: Rule((WRITE,), "path"),
    files.MakeDirectory: Rule((WRITE,), "path"),
    files.WriteFile: Rule((WRITE,), "path"),
    files.DeletePath: Rule((WRITE,), "path"),
    files.DeleteRange: Rule((WRITE,), "range"),
    files.AddToKey: Rule((WRITE,), "key"),
    files.AttachFile: Rule((WRITE,), "path"),
    files.DetachFile: Rule((), "path"),
    files.Compact: Rule((ADMINISTER,)),
    commands.Transact: Rule(()),
    files.Compare: Rule((READ,), "key"),
    lock_commands.Acquire: Rule((LOCK,), "names"),
    lock_commands.Release: Rule((), "names"),
    lock_commands.ChangeMode: Rule((LOCK,), "name"),
    lock_commands.HandOver: Rule((LOCK,), "name"),
    lock_commands.ForceRelease: Rule((ADMINISTER,), "name"),
    lock_commands.GetLockState: Rule((READ, LOCK), "name"),
    lock_commands.CheckSequencer: Rule(()),
    lock_commands.ListBreaks: Rule((ADMINISTER,)),
    commands.GetKey: Rule((READ,), "key"),
    commands.GetLock: Rule((READ, LOCK), "name"),
    commands.ListLocks: Rule((READ, LOCK)),
    commands.AwaitGrant: Rule(()),
    commands.GetSession: Rule(()),
    commands.GetToken: Rule((ADMINISTER,)),
    commands.GetPrincipal: Rule((ADMINISTER,)),
    commands.ListPrincipals: Rule((ADMINISTER,)),
    commands.SetWantedMembership: Rule((ADMINISTER,)),
    commands.GetWantedMembership: Rule((ADMINISTER,)),
    files.ReadFile: Rule((READ,), "path"),
    files.GetStat: Rule((READ,), "path"),
    files.ReadRange: Rule((READ,), "range"),
    files.ListDirectory: Rule((READ,), "directory"),
    files.ReadChanges: Rule((READ,), "range"),
}
"""A transaction is held to the rules of all that is in it. Letting go takes no right: whoever lost the right to lock
must still be able to release."""


_NAMED: Final = frozenset(("key", "name", "path"))
_SPANS: Final = frozenset(("range", "directory"))


class Principal:
    __slots__ = ("act_for", "granted", "name", "prefixes", "rights", "tokens")

    def __init__(self, set_principal: SetPrincipal) -> None:
        self.name = set_principal.name
        self.tokens: dict[str, bytes] = {}
        self.change(set_principal)

    def change(self, set_principal: SetPrincipal) -> None:
        self.rights = set_principal.rights
        self.granted = frozenset(set_principal.rights)
        self.prefixes = set_principal.prefixes
        self.act_for = set_principal.act_for

    def may(self, *rights: str) -> bool:
        """Has it one of `rights`?"""
        return not self.granted.isdisjoint(rights)

    def reaches_all(self, span: Span) -> bool:
        """Do its prefixes let it touch everything that may ever be in `span`?"""
        return not self.prefixes or any(span.within(prefix) for prefix in self.prefixes)

    def view(self) -> PrincipalView:
        return PrincipalView(self.name, self.rights, self.prefixes, self.act_for, tuple(sorted(self.tokens)))


def refuse(principal: Principal, op: Any) -> Failure | None:
    """Names that are none, and rights that are lacking."""
    rule = RULES.get(type(op))
    if rule is None:
        return Failure(commands.INVALID, f"{type(op).__name__} is not a client's command")
    rights, subject = rule
    if subject in _NAMED:
        return refuse_name(principal, rights, getattr(op, subject))
    if subject in _SPANS:
        return _refuse_span(principal, rights, op)
    if subject:
        for name in op.names:
            refused = refuse_name(principal, rights, name)
            if refused is not None:
                return refused
    if rights and not principal.may(*rights):
        return _lacks(principal, rights)
    return None


def refuse_name(principal: Principal, rights: tuple[str, ...], name: str) -> Failure | None:
    problem = name_problem(name)
    if problem is not None:
        return Failure(commands.INVALID, problem)
    if rights:
        if principal.granted.isdisjoint(rights):
            return _lacks(principal, rights)
        if principal.prefixes and not name.startswith(principal.prefixes):
            return _out_of_reach(principal, name)
    return None


def _refuse_span(principal: Principal, rights: tuple[str, ...], op: Any) -> Failure | None:
    names: tuple[str, ...]
    if isinstance(op, files.ListDirectory):
        names, span = (op.path,), prefixed(f"{op.path}/" if op.path else "")
    else:
        names, span = (op.start, op.end, getattr(op, "after", "")), span_of(op.start, op.end, op.prefix)
    for name in names:
        problem = name_problem(name) if name else None
        if problem is not None:
            return Failure(commands.INVALID, problem)
    if not principal.may(*rights):
        return _lacks(principal, rights)
    return None if principal.reaches_all(span) else _out_of_reach(principal, names[0])


def _lacks(principal: Principal, rights: tuple[str, ...]) -> Failure:
    return Failure(commands.FORBIDDEN, f"{principal.name!r} lacks the right to {' or '.join(rights)}")


def _out_of_reach(principal: Principal, name: str) -> Failure:
    return Failure(commands.FORBIDDEN, f"{principal.name!r} may touch only what its prefixes name, not {name!r}")
