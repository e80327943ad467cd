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
    reading,
    sessions,
    transactions,
)
from coordinator.statemachine.commands import Result

if TYPE_CHECKING:
    from coordinator.statemachine.rights import Principal
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State

Performer = Callable[["State", int, "Principal", "Session", Any], Result]


def perform(state: State, index: int, principal: Principal, session: Session, op: Any) -> Result:
    return _PERFORMERS[type(op)](state, index, principal, session, op)


def _plain(act: Callable[[State, int, Any], Result]) -> Performer:
    return lambda state, index, _, __, op: act(state, index, op)


def _asked(act: Callable[[State, int, Principal, Any], Result]) -> Performer:
    return lambda state, index, principal, _, op: act(state, index, principal, op)


def _owned(act: Callable[[State, int, Session, Any], Result]) -> Performer:
    """For the session `owner`, which is the principal's; 0: the request's own, where that is the principal's."""

    def performer(state: State, index: int, principal: Principal, session: Session, op: Any) -> Result:
        owner = op.owner
        if not owner and session.principal == principal.name:
            return act(state, index, session, op)
        owner = owner or session.session
        owning = sessions.own(state, principal, owner)
        return sessions.session_gone(owner) if owning is None else act(state, index, owning, op)

    return performer


_PERFORMERS: Final[dict[type, Performer]] = {
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
    commands.PutKey: _plain(namespace.put),
    commands.DeleteKey: _plain(namespace.delete),
    commands.SetPrincipal: _asked(administration.set_principal),
    commands.RemovePrincipal: _plain(administration.remove_principal),
    commands.AddToken: _asked(administration.add_token),
    commands.RemoveToken: _asked(administration.remove_token),
    commands.SetWantedMembership: _plain(administration.set_wanted),
    files.CreateFile: _owned(namespace.create_file),
    files.MakeDirectory: _plain(namespace.make_directory),
    files.WriteFile: _plain(namespace.write_file),
    files.DeletePath: _plain(namespace.delete_path),
    files.DeleteRange: _plain(namespace.delete_range),
    files.AddToKey: _plain(namespace.add),
    files.AttachFile: _owned(namespace.attach_file),
    files.DetachFile: _owned(namespace.detach_file),
    files.Compact: _plain(namespace.compact),
    files.ReadFile: _plain(lambda state, _, query: reading.read_file(state, query)),
    files.ReadRange: _plain(lambda state, _, query: reading.read_range(state, query)),
    commands.Transact: lambda state, index, principal, session, op: transactions.transact(
        state, op, principal, lambda inner: perform(state, index, principal, session, inner)
    ),
}
