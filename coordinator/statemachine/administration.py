"""Principals and tokens come, change and go: what an administrator commands (docs/design.md, rule 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands, handing, locking
from coordinator.statemachine.commands import Done, Failure, Result
from coordinator.statemachine.events import LevelUnknown
from coordinator.statemachine.lock_commands import RaiseEpoch
from coordinator.statemachine.locks import EPOCH_MAX
from coordinator.statemachine.permissions import CLUSTER, EACH, NO_QUOTA, QUOTA_MAX, SetQuota
from coordinator.statemachine.principals import PREFIXES_MAX, PRINCIPALS_MAX, TOKENS_MAX, Principal

if TYPE_CHECKING:
    from coordinator.statemachine.principals import Access
    from coordinator.statemachine.state import State


def genesis(state: State, index: int, op: commands.Genesis) -> Result:
    if state.cluster_id:
        return Failure(commands.INVALID, "not a command that a node may give here")
    if not 0 <= op.epoch <= EPOCH_MAX:
        return Failure(commands.INVALID, f"an epoch from 0 to {EPOCH_MAX}, got {op.epoch}")
    if not 1 <= op.level <= commands.LEVEL:
        _note_unknown(state, op.level)
        return Failure(commands.INVALID, f"a level from 1 to {commands.LEVEL}, got {op.level}")
    state.cluster_id, state.cluster_name, state.epoch, state.level = op.cluster_id, op.name, op.epoch, op.level
    state.rights_changed(index)
    for given in op.principals:
        if given.name not in state.principals.rows:
            state.principals.add(given.name, Principal(given))
    for token in op.tokens:
        if token.principal in state.principals.rows and token.token_id not in state.tokens:
            state.principals.rows[token.principal].tokens[token.token_id] = token.key
            state.tokens[token.token_id] = token.principal
    return Done(index)


def raise_level(state: State, index: int, op: commands.RaiseLevel) -> Result:
    if not state.level < op.level <= commands.LEVEL:
        _note_unknown(state, op.level)
        return Failure(commands.INVALID, f"a level above {state.level} and up to {commands.LEVEL}, got {op.level}")
    if state.level < commands.LEVEL_OF_LOCK_EVENTS <= op.level:
        state.lock_events.compacted = index  # What came before was not kept.
    if state.level < commands.LEVEL_OF_LOCK_RELEASES <= op.level:
        state.lock_events.begin_ends(index)
    state.level = op.level
    return Done(index, existed=True)


def _note_unknown(state: State, level: int) -> None:
    if level > commands.LEVEL:
        state.events.append(LevelUnknown(level))


def raise_epoch(state: State, index: int, op: RaiseEpoch) -> Result:
    if not state.epoch < op.epoch <= EPOCH_MAX:
        return Failure(commands.INVALID, f"an epoch above {state.epoch} and up to {EPOCH_MAX}, got {op.epoch}")
    state.epoch = op.epoch
    return Done(index, existed=True)


def set_principal(state: State, index: int, asker: Access, op: commands.SetPrincipal) -> Result:
    if not commands.PRINCIPAL_NAME.fullmatch(op.name):
        return Failure(
            commands.INVALID, f"a principal's name matches {commands.PRINCIPAL_NAME.pattern}, got {op.name!r}"
        )
    unknown = [right for right in op.rights if right not in commands.RIGHTS]
    if unknown:
        return Failure(commands.INVALID, f"rights are {', '.join(commands.RIGHTS)}; got {', '.join(unknown)}")
    if len(op.prefixes) > PREFIXES_MAX:
        return Failure(commands.INVALID, f"at most {PREFIXES_MAX} prefixes, got {len(op.prefixes)}")
    known = state.principals.rows.get(op.name)
    if (op.act_for or (known is not None and known.act_for)) and not asker.act_for:
        return Failure(commands.FORBIDDEN, "only a principal that may act for others can give or change that right")
    loses = not {*asker.principal.rights} <= {*op.rights} or (asker.act_for and not op.act_for)
    if known is asker.principal and loses:
        return Failure(commands.INVALID, "a principal can not take rights from itself; let another do it")
    if known is not None:
        state.principals.touch(op.name)
        known.change(op)
        state.rights_changed(index)
    elif len(state.principals.rows) >= PRINCIPALS_MAX:
        return Failure(commands.FULL, f"the cluster has its {PRINCIPALS_MAX} principals")
    else:
        state.principals.add(op.name, Principal(op))
        state.rights_changed(index)
    return Done(index, known is not None)


def remove_principal(state: State, index: int, op: commands.RemovePrincipal) -> Result:
    known = state.principals.rows.get(op.name)
    if known is None:
        return Done(index, existed=False)
    if known.act_for:
        return Failure(commands.INVALID, f"{op.name!r} is the web tier's own principal and stays")
    state.principals.remove(op.name)
    state.rights_changed(index)
    for token_id in sorted(known.tokens):
        forget_token(state, token_id)
    for role in known.roles:
        state.roles.rows[role].members -= 1
    if op.name in state.quotas.rows:
        state.quotas.remove(op.name)
    # Its sessions run out by themselves, since nobody may keep them alive: a lease that can still be proven is not
    # broken. But nothing more is granted to them.
    left: list[str] = []
    for session in state.sessions.rows.values():
        if session.principal == op.name:
            left += locking.leave_lines(state, session)
    handing.hand_on(state, index, left)
    return Done(index, existed=True)


def set_wanted(state: State, index: int, op: commands.SetWantedMembership) -> Result:
    state.wanted, answer = state.wanted.put(index, op)
    return answer


def add_token(state: State, index: int, asker: Access, op: commands.AddToken) -> Result:
    principal = state.principals.rows.get(op.principal)
    if principal is None:
        return Failure(commands.NOT_FOUND, f"no principal {op.principal!r} in this cluster")
    if principal.act_for and not asker.act_for:
        return Failure(commands.FORBIDDEN, f"{op.principal!r} is the web tier's own principal")
    if len(op.key) != commands.KEY_BYTES or not commands.TOKEN_ID.fullmatch(op.token_id):
        return Failure(commands.INVALID, f"a token has an id of 16 hex digits and a key of {commands.KEY_BYTES} bytes")
    if state.tokens.get(op.token_id, op.principal) != op.principal:
        return Failure(commands.INVALID, f"token {op.token_id!r} belongs to another principal")
    if len(state.tokens) >= TOKENS_MAX:
        return Failure(commands.FULL, f"the cluster has its {TOKENS_MAX} tokens")
    state.principals.touch(op.principal)
    principal.tokens[op.token_id] = op.key
    state.tokens[op.token_id] = op.principal
    return Done(index)


def remove_token(state: State, index: int, asker: Access, op: commands.RemoveToken) -> Result:
    name = state.tokens.get(op.token_id)
    if name is None:
        return Done(index, existed=False)
    principal = state.principals.rows[name]
    if principal.act_for and not asker.act_for:
        return Failure(commands.FORBIDDEN, f"{name!r} is the web tier's own principal")
    state.principals.touch(name)
    forget_token(state, op.token_id)
    del principal.tokens[op.token_id]
    return Done(index, existed=True)


def forget_token(state: State, token_id: str) -> None:
    del state.tokens[token_id]
    state.accesses.clear()
    if token_id in state.narrowings.rows:
        state.narrowings.remove(token_id)


def set_quota(state: State, index: int, op: SetQuota) -> Result:
    if op.principal not in (CLUSTER, EACH) and op.principal not in state.principals.rows:
        return Failure(commands.NOT_FOUND, f"no principal {op.principal!r} in this cluster")
    known = state.quotas.rows.get(op.principal)
    if op.quota is None:
        if known is not None:
            state.quotas.remove(op.principal)
        return Done(index, existed=known is not None)
    for what in op.quota.__struct_fields__:
        most = getattr(op.quota, what)
        if not NO_QUOTA <= most <= QUOTA_MAX:
            message = f"a quota of {what} is {NO_QUOTA} (none) to {QUOTA_MAX}, got {most}"
            return Failure(commands.INVALID, message)
    state.quotas.put(op.principal, op.quota)
    return Done(index, existed=known is not None)
