"""Which right each command and query takes, and on what.

Rights are checked at apply, so that a change of rights takes effect at one point of the log. Who may do what is in
`principals.py`.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from coordinator.statemachine import commands, files, lock_commands, permissions
from coordinator.statemachine.commands import ADMINISTER, LOCK, READ, WRITE, Failure, name_problem
from coordinator.statemachine.paths import prefixed, span_of
from coordinator.statemachine.principals import Access


class Rule(NamedTuple):
    """`rights`: of which a principal needs one; (): every principal may. `subject`: the field that names what is
    touched, or how a range is named; "": nothing that has a name. "prefix": all names that begin with it."""

    rights: tuple[str, ...]
    subject: Literal["", "key", "name", "names", "path", "range", "directory", "prefix"] = ""


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
    files.BeginCaching: Rule(()),
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
    lock_commands.ReadLockEvents: Rule((READ, LOCK), "range"),
    lock_commands.ReadLockLives: Rule((READ, LOCK), "range"),
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
    permissions.SetRole: Rule((ADMINISTER,)),
    permissions.RemoveRole: Rule((ADMINISTER,)),
    permissions.SetPermission: Rule((ADMINISTER,), "prefix"),
    permissions.SetRoles: Rule((ADMINISTER,)),
    permissions.NarrowToken: Rule((ADMINISTER,)),
    permissions.SetQuota: Rule((ADMINISTER,)),
    permissions.GetAccess: Rule(()),
    permissions.ListPermissions: Rule((ADMINISTER,)),
    permissions.ListRoles: Rule((ADMINISTER,)),
    permissions.ListMembers: Rule((ADMINISTER,)),
    permissions.GetQuota: Rule(()),
    permissions.ListQuotas: Rule((ADMINISTER,)),
    permissions.GetTokenAccess: Rule((ADMINISTER,)),
    files.ReadFile: Rule((READ,), "path"),
    files.GetStat: Rule((READ,), "path"),
    files.ReadStat: Rule((READ,), "path"),
    files.ReadRange: Rule((READ,), "range"),
    files.ListDirectory: Rule((READ,), "directory"),
    files.ReadDirectory: Rule((READ,), "directory"),
    files.ReadChanges: Rule((READ,), "range"),
}
"""A transaction is held to the rules of all that is in it. Letting go takes no right: whoever lost the right to lock
must still be able to release."""


_NAMED: Final = {
    kind: (rule.rights, rule.subject) for kind, rule in RULES.items() if rule.subject in ("key", "name", "path")
}
"""What most requests are."""
_SPANS: Final = frozenset(("range", "directory"))


def refuse(access: Access, op: Any) -> Failure | None:
    """Names that are none, and rights that are lacking."""
    named = _NAMED.get(type(op))
    if named is not None:
        return refuse_name(access, named[0], getattr(op, named[1]))
    rule = RULES.get(type(op))
    if rule is None:
        return Failure(commands.INVALID, f"{type(op).__name__} is not a client's command")
    rights, subject = rule
    if subject in _SPANS:
        return _refuse_span(access, rights, op)
    if subject == "names":
        for name in op.names:
            refused = refuse_name(access, rights, name)
            if refused is not None:
                return refused
    if subject == "prefix":
        return _refuse_prefix(access, rights, op.prefix)
    if rights and not access.may(*rights):
        return _lacks(access, rights)
    return None


def refuse_name(access: Access, rights: tuple[str, ...], name: str) -> Failure | None:
    problem = name_problem(name)
    if problem is not None:
        return Failure(commands.INVALID, problem)
    for right in rights:
        if name.startswith(access.reach[right]):
            return None
    return _out_of_reach(access, rights, name) if rights else None


def _refuse_span(access: Access, rights: tuple[str, ...], op: Any) -> Failure | None:
    names: tuple[str, ...]
    if isinstance(op, (files.ListDirectory, files.ReadDirectory)):
        names, span = (op.path,), prefixed(f"{op.path}/" if op.path else "")
    else:
        names, span = (op.start, op.end, getattr(op, "after", "")), span_of(op.start, op.end, op.prefix)
    for name in names:
        problem = name_problem(name) if name else None
        if problem is not None:
            return Failure(commands.INVALID, problem)
    return None if access.reaches_all(rights, span) else _out_of_reach(access, rights, names[0])


def _refuse_prefix(access: Access, rights: tuple[str, ...], prefix: str) -> Failure | None:
    problem = name_problem(prefix) if prefix else None
    if problem is not None:
        return Failure(commands.INVALID, problem)
    if access.may(*rights) or any(prefix.startswith(access.reach[right]) for right in rights):
        return None
    return _out_of_reach(access, rights, prefix)


def _lacks(access: Access, rights: tuple[str, ...]) -> Failure:
    return Failure(commands.FORBIDDEN, f"{access.name!r} lacks the right to {' or '.join(rights)}")


def _out_of_reach(access: Access, rights: tuple[str, ...], name: str) -> Failure:
    if not any(access.reach[right] for right in rights):
        return _lacks(access, rights)
    return Failure(commands.FORBIDDEN, f"{access.name!r} may touch only what its prefixes name, not {name!r}")
