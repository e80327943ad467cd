"""Which function does what each client's command says. Rights were checked, and that it comes for the first time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from coordinator.statemachine import (
    administration,
    commands,
    files,
    lock_changes,
    lock_commands,
    locking,
    namespace,
    permissions,
    reading,
    roles,
    sessions,
    transactions,
)
from coordinator.statemachine.commands import Result

if TYPE_CHECKING:
    from coordinator.statemachine.principals import Access
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State

Performer = Callable[["State", int, "Access", "Session", Any], Result]


def _plain(act: Callable[[State, int, Any], Result]) -> Performer:
    return lambda state, index, _, __, op: act(state, index, op)


def _asked(act: Callable[[State, int, Access, Any], Result]) -> Performer:
    return lambda state, index, asker, _, op: act(state, index, asker, op)


def _owned(act: Callable[[State, int, Session, Any], Result]) -> Performer:
    """For the session `owner`, which is the principal's; 0: the request's own, where that is the principal's."""

    def performer(state: State, index: int, asker: Access, session: Session, op: Any) -> Result:
        owner = op.owner
        if not owner and session.principal == asker.name:
            return act(state, index, session, op)
        owner = owner or session.session
        owning = sessions.own(state, asker, owner)
        return sessions.session_gone(owner) if owning is None else act(state, index, owning, op)

    return performer


PERFORMERS: Final[dict[type, Performer]] = {
    commands.OpenSession: _asked(sessions.open_session),
    commands.CloseSession: _owned(sessions.close_session),
    commands.AcquireLock: _owned(locking.acquire),
    commands.ReleaseLock: _owned(locking.release),
    commands.CancelAcquire: _owned(locking.cancel),
    lock_commands.Acquire: _owned(locking.acquire_names),
    lock_commands.Release: _owned(locking.release_names),
    lock_commands.ChangeMode: _owned(lock_changes.change_mode),
    lock_commands.HandOver: _owned(lock_changes.hand_over),
    lock_commands.ForceRelease: _asked(lock_changes.force_release),
    commands.PutKey: _asked(namespace.put),
    commands.DeleteKey: _plain(namespace.delete),
    commands.SetPrincipal: _asked(administration.set_principal),
    commands.RemovePrincipal: _plain(administration.remove_principal),
    commands.AddToken: _asked(administration.add_token),
    commands.RemoveToken: _asked(administration.remove_token),
    permissions.SetRole: _plain(roles.set_role),
    permissions.RemoveRole: _plain(roles.remove_role),
    permissions.SetPermission: _asked(roles.set_permission),
    permissions.SetRoles: _asked(roles.set_roles),
    permissions.NarrowToken: _asked(roles.narrow_token),
    permissions.SetQuota: _plain(administration.set_quota),
    commands.SetWantedMembership: _plain(administration.set_wanted),
    files.CreateFile: _owned(namespace.create_file),
    files.MakeDirectory: _asked(namespace.make_directory),
    files.WriteFile: _plain(namespace.write_file),
    files.DeletePath: _plain(namespace.delete_path),
    files.DeleteRange: _plain(namespace.delete_range),
    files.AddToKey: _asked(namespace.add),
    files.AttachFile: _owned(namespace.attach_file),
    files.DetachFile: _owned(namespace.detach_file),
    files.Compact: _plain(namespace.compact),
    files.BeginCaching: lambda state, index, _, session, __: sessions.begin_caching(state, index, session),
    files.ReadFile: _plain(lambda state, _, query: reading.read_file(state, query)),
    files.ReadRange: _plain(lambda state, _, query: reading.read_range(state, query)),
    commands.Transact: lambda state, index, asker, session, op: transactions.transact(
        state, op, asker, lambda inner: PERFORMERS[type(inner)](state, index, asker, session, inner)
    ),
}
