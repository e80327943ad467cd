"""Files and directories: every change of the namespace goes through `write`.

A directory is there where it was made, or where something lies below it (it is implied). Flat keys (`PutKey`,
`DeleteKey`, `AddToKey`, `DeleteRange`) take a path as a mere name; the tree commands keep the tree: they create only in
directories, and never below a file.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands, files, quotas
from coordinator.statemachine.commands import Done, Failure, Result
from coordinator.statemachine.files import ANY_GENERATION, Created, Deleted, Mismatch
from coordinator.statemachine.history import content_size
from coordinator.statemachine.items import Change, Item
from coordinator.statemachine.locks import fencing_token
from coordinator.statemachine.paths import Span, parent_of, path_problem, span_of, subtree

if TYPE_CHECKING:
    from coordinator.statemachine.principals import Access
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State

KEYS_MAX: Final = 2_000_000
KEY_BYTES_MAX: Final = 1 << 30
"""Of all keys and values together."""
DIRECTORIES_MAX: Final = 2_000_000
"""That have something in them. A flat key of NAME_BYTES_MAX implies up to 255, which take 100 KB of memory, and are
counted nowhere else."""
ATTACHED_MAX: Final = 1_024
"""Sessions that one ephemeral file depends on."""
EPHEMERALS_MAX: Final = 10_000
"""Ephemeral files that depend on one session. One entry deletes them all when it ends, in 80 ms."""
EPHEMERALS_MAX_BEFORE: Final = 100_000
"""The same, below level 4."""
SEQUENCE_PLACES: Final = 1_000
"""Sequential names that one entry could make: a transaction makes no more than it has operations."""
COUNTER_MAX: Final = 2**63 - 1


class ChangedTwice(Exception):
    """A transaction is about to change a key that it has changed before."""


# --- the one door ---------------------------------------------------------------------------------


def write(state: State, index: int, key: str, after: Item | None, owner: Session | None = None) -> None:
    """Let `after` be at `key` from this entry on; None: nothing. `owner`: the session that an ephemeral file that
    was not there depends on. `room` was asked before, where it takes some."""
    before = state.keys.rows.get(key)
    if state.undo is not None:
        past = state.history.past.get(key)
        if past is not None and past[-1].revision == index:
            raise ChangedTwice(key)
    _place(state, key, before, after)
    attached: tuple[int, ...] = ()
    lock_generation = 0
    if after is None:
        assert before is not None
        if key in state.lock_generations.rows:
            lock_generation = state.lock_generations.remove(key)
        if before.ephemeral:
            attached = state.ephemerals.remove(key)
            for session in attached:
                state.sessions.rows[session].files.discard(key)
    elif owner is not None:
        state.ephemerals.add(key, (owner.session,))
        owner.files.add(key)
    state.history.append(Change(index, key, before, after))
    if state.undo is not None:
        state.undo.append((attached, lock_generation))


def _place(state: State, key: str, before: Item | None, after: Item | None) -> None:
    keys = state.keys
    if before is None:
        assert after is not None
        keys.add(key, after)
        size = len(key) + content_size(after)
        state.key_bytes += size
        if after.owner:
            use = state.uses.get(after.owner)
            if use is None:
                use = state.uses[after.owner] = quotas.Use()
            use.keys += 1
            use.key_bytes += size
        _arrives(state.children, keys.rows, key)
    elif after is None:
        keys.remove(key)
        size = len(key) + content_size(before)
        state.key_bytes -= size
        if before.owner:
            use = state.uses[before.owner]
            use.keys -= 1
            use.key_bytes -= size
            if not use.keys:
                quotas.forget_unused(state.uses, before.owner)
        _leaves(state.children, keys.rows, key)
    else:
        if keys.walk is not None:
            keys.walk.touch(key)
        keys.rows[key] = after
        grown = content_size(after) - content_size(before)
        if grown:
            state.key_bytes += grown
            if after.owner:
                state.uses[after.owner].key_bytes += grown


def take_back(state: State) -> None:
    """Undo all writes since `state.undo` was begun, the last one first."""
    undo = state.undo
    assert undo is not None
    while undo:
        attached, lock_generation = undo.pop()
        change = state.history.take_back()
        key = change.key
        _place(state, key, change.after, change.before)
        if change.before is None and key in state.ephemerals.rows:
            for session in state.ephemerals.remove(key):
                state.sessions.rows[session].files.discard(key)
        if attached:
            state.ephemerals.add(key, attached)
            for session in attached:
                state.sessions.rows[session].files.add(key)
        if lock_generation:
            state.lock_generations.add(key, lock_generation)


def restore_item(state: State, key: str, item: Item) -> None:
    """Put in what a snapshot holds: no change of its own."""
    _place(state, key, None, item)


def _arrives(children: dict[str, int], rows: dict[str, Item], key: str) -> None:
    """Count what has come into being: `key`, and the directories that it implies."""
    if key in children:
        return  # It was implied, and is counted.
    while key:
        key = parent_of(key)
        known = children.get(key, 0)
        children[key] = known + 1
        if known or key in rows:
            return


def _leaves(children: dict[str, int], rows: dict[str, Item], key: str) -> None:
    if key in children:
        return  # It is implied from here on.
    while key:
        key = parent_of(key)
        left = children[key] - 1
        if left:
            children[key] = left
            return
        del children[key]
        if key in rows:
            return


def is_there(state: State, path: str) -> bool:
    return not path or path in state.keys.rows or path in state.children


def is_directory(state: State, path: str) -> bool:
    """The root, a directory that was made, or one that is implied and no file itself."""
    item = state.keys.rows.get(path)
    return item.value is None if item is not None else is_there(state, path)


def owner_for(state: State, principal: str) -> str:
    """By whose quota a key is counted that this principal creates now. Before level 3 nobody's: replicas of an earlier
    version know of none."""
    return principal if state.level >= commands.LEVEL_OF_QUOTAS else ""


def room(state: State, key: str, size: int, known: Item | None, owner: str) -> Failure | None:
    """Why there is no room for a value of so many bytes at `key`, by the quota of its `owner` too."""
    if size > commands.VALUE_BYTES_MAX:
        return Failure(commands.INVALID, f"a value has at most {commands.VALUE_BYTES_MAX} bytes, got {size}")
    if known is None:
        if len(state.keys.rows) >= KEYS_MAX:
            return Failure(commands.FULL, f"the cluster has its {KEYS_MAX} keys")
        if len(state.children) >= DIRECTORIES_MAX and _is_one_too_many(state, key):
            return Failure(commands.FULL, f"the cluster has its {DIRECTORIES_MAX} directories with something in them")
        grown = size + len(key)
    else:
        grown = size - content_size(known)
    if grown > 0 and state.key_bytes + grown > KEY_BYTES_MAX:
        return Failure(commands.FULL, f"the cluster has its {KEY_BYTES_MAX} bytes of keys and values")
    if state.quotas.rows:
        return quotas.refuse_keys(state, owner, int(known is None), grown)
    return None


def _is_one_too_many(state: State, key: str) -> bool:
    return state.level >= commands.LEVEL_OF_DIRECTORIES and parent_of(key) not in state.children


# --- flat keys ------------------------------------------------------------------------------------


def put(state: State, index: int, asker: Access, op: commands.PutKey) -> Result:
    known = state.keys.rows.get(op.key)
    owner = known.owner if known is not None else owner_for(state, asker.name)
    refused = room(state, op.key, len(op.value), known, owner)
    if refused is not None:
        return refused
    if known is None:
        write(state, index, op.key, Item(op.value, index, 1, index, owner=owner))
        return Done(index, existed=False)
    if known.value is None:
        return _wrong_kind(op.key, "a directory")
    item = Item(op.value, index, known.version + 1, known.instance, known.ephemeral, owner)
    write(state, index, op.key, item)
    return Done(index, existed=True)


def delete(state: State, index: int, op: commands.DeleteKey) -> Result:
    known = state.keys.rows.get(op.key)
    if known is None:
        return Done(index, existed=False)
    if known.value is None:
        return _wrong_kind(op.key, "a directory")
    refused = _refuse_deletions(state, 1)
    if refused is not None:
        return refused
    write(state, index, op.key, None)
    return Done(index, existed=True)


def delete_range(state: State, index: int, op: files.DeleteRange) -> Result:
    return _delete_span(state, index, span_of(op.start, op.end, op.prefix))


def add(state: State, index: int, asker: Access, op: files.AddToKey) -> Result:
    known = state.keys.rows.get(op.key)
    if known is None:
        count = 0
    elif known.value is None:
        return _wrong_kind(op.key, "a directory")
    else:
        counted = _number(known.value)
        if counted is None:
            return Failure(commands.WRONG_KIND, f"the value of {op.key!r} is no decimal number of 64 bits")
        count = counted
    count += op.amount
    if not -COUNTER_MAX - 1 <= count <= COUNTER_MAX:
        return Failure(commands.INVALID, f"a counter has 64 bits, {count} does not fit")
    value = b"%d" % count
    owner = known.owner if known is not None else owner_for(state, asker.name)
    refused = room(state, op.key, len(value), known, owner)
    if refused is not None:
        return refused
    if known is None:
        item = Item(value, index, 1, index, owner=owner)
    else:
        item = Item(value, index, known.version + 1, known.instance, known.ephemeral, known.owner)
    write(state, index, op.key, item)
    return files.Counted(count, index, item.version)


def _number(value: bytes) -> int | None:
    digits = value.removeprefix(b"-")
    if not 1 <= len(digits) <= 19 or not digits.isdigit():
        return None
    number = int(value)
    return number if -COUNTER_MAX - 1 <= number <= COUNTER_MAX else None


# --- the tree -------------------------------------------------------------------------------------


def create_file(state: State, index: int, owner: Session, op: files.CreateFile) -> Result:
    path = op.path
    if op.sequential:
        path += _sequence(state, index)
    problem = path_problem(path)
    if problem is not None:
        return Failure(commands.INVALID, problem)
    if is_there(state, path):
        return Failure(commands.EXISTS, f"{path!r} is there")
    refused = _no_ephemeral_more(state, owner) if op.ephemeral else None
    if refused is not None:
        return refused
    principal = owner_for(state, owner.principal)
    size = len(op.value)
    refused = room(state, path, size, None, principal) or _prepare_parent(
        state, index, path, size, principal, make=op.parents
    )
    if refused is not None:
        return refused
    item = Item(op.value, index, 1, index, op.ephemeral, principal)
    write(state, index, path, item, owner if op.ephemeral else None)
    return Created(path, index)


def _no_ephemeral_more(state: State, owner: Session) -> Failure | None:
    most = EPHEMERALS_MAX if state.level >= commands.LEVEL_OF_BOUNDS else EPHEMERALS_MAX_BEFORE
    if len(owner.files) < most:
        return None
    return Failure(commands.FULL, f"session {owner.session} has its {most} ephemeral files")


def _sequence(state: State, index: int) -> str:
    """19 digits that are greater than any before: the token that the entry grants, and how many such names it made
    before. They never come again, not even after a restore."""
    place = 0
    if state.undo is not None:
        place, state.sequenced = state.sequenced, state.sequenced + 1
    return f"{fencing_token(state.epoch, index) * SEQUENCE_PLACES + place:019d}"


def make_directory(state: State, index: int, asker: Access, op: files.MakeDirectory) -> Result:
    problem = path_problem(op.path)
    if problem is not None:
        return Failure(commands.INVALID, problem)
    known = state.keys.rows.get(op.path)
    if known is not None:
        if known.value is None and op.parents:
            return Created(op.path, known.instance)
        return Failure(commands.EXISTS, f"{op.path!r} is there")
    owner = owner_for(state, asker.name)
    refused = room(state, op.path, 0, None, owner) or _prepare_parent(state, index, op.path, 0, owner, make=op.parents)
    if refused is not None:
        return refused
    write(state, index, op.path, Item(None, index, 1, index, owner=owner))
    return Created(op.path, index)


def _prepare_parent(state: State, index: int, path: str, size: int, owner: str, *, make: bool) -> Failure | None:
    """Nothing is made where anything is in the way. `size`: of what is to be at `path`."""
    missing = []
    directory = parent_of(path)
    while not is_there(state, directory):
        missing.append(directory)
        directory = parent_of(directory)
    if missing and not make:
        return Failure(commands.NOT_FOUND, f"there is no directory {missing[0]!r}")
    if not is_directory(state, directory):
        return _wrong_kind(directory, "a file")
    if state.children.get(directory, 0) >= files.CHILDREN_MAX:
        return Failure(commands.FULL, f"{directory!r} has its {files.CHILDREN_MAX} children")
    for made in reversed(missing):
        refused = room(state, made, 0, None, owner)
        if refused is not None:
            return refused
    if len(state.keys.rows) + len(missing) >= KEYS_MAX:
        return Failure(commands.FULL, f"the cluster has its {KEYS_MAX} keys")
    refused = quotas.refuse_keys(state, owner, len(missing) + 1, sum(map(len, missing)) + len(path) + size)
    if refused is not None:
        return refused
    for made in reversed(missing):
        write(state, index, made, Item(None, index, 1, index, owner=owner))
    return None


def write_file(state: State, index: int, op: files.WriteFile) -> Result:
    known = state.keys.rows.get(op.path)
    if known is None:
        return _not_found(op.path)
    if known.value is None:
        return _wrong_kind(op.path, "a directory")
    refused = _mismatch(known, op.generation, op.instance) or room(state, op.path, len(op.value), known, known.owner)
    if refused is not None:
        return refused
    item = Item(op.value, index, known.version + 1, known.instance, known.ephemeral, known.owner)
    write(state, index, op.path, item)
    return Done(index, existed=True)


def delete_path(state: State, index: int, op: files.DeletePath) -> Result:
    if not is_there(state, op.path):
        return _not_found(op.path)
    known = state.keys.rows.get(op.path)
    refused = _mismatch(known, op.generation, op.instance)
    if refused is not None:
        return refused
    if op.recursive:
        return _delete_span(state, index, subtree(op.path))
    if known is None or (known.value is None and state.children.get(op.path)):
        return Failure(commands.NOT_EMPTY, f"{op.path!r} has {state.children[op.path]} children")
    refusal = _refuse_deletions(state, 1)
    if refusal is not None:
        return refusal
    write(state, index, op.path, None)
    return Deleted(index, 1)


def _delete_span(state: State, index: int, span: Span) -> Result:
    count = state.keys.order.count(span.start, span.end)
    refused = _refuse_deletions(state, count)
    if refused is not None:
        return refused
    state.work.ends(count)
    for key in [*islice(state.keys.order.seek(span.start), count)]:
        write(state, index, key, None)
    return Deleted(index, count)


def _refuse_deletions(state: State, count: int) -> Failure | None:
    """Why the command may not delete so many more. A transaction is one command, whatever it is made of."""
    total = count
    if state.undo is not None and state.level >= commands.LEVEL_OF_BOUNDS:
        total = state.work.deleted = state.work.deleted + count
    if total > files.DELETED_MAX:
        return Failure(commands.TOO_MANY, f"one command deletes at most {files.DELETED_MAX}, here are {total}")
    return None


def attach_file(state: State, index: int, owner: Session, op: files.AttachFile) -> Result:
    attached = state.ephemerals.rows.get(op.path)
    if attached is None:
        known = state.keys.rows.get(op.path)
        return _not_found(op.path) if known is None else _wrong_kind(op.path, "permanent")
    if owner.session in attached:
        return Done(index, existed=True)
    if len(attached) >= ATTACHED_MAX:
        return Failure(commands.FULL, f"{op.path!r} has its {ATTACHED_MAX} sessions")
    refused = _no_ephemeral_more(state, owner)
    if refused is not None:
        return refused
    state.ephemerals.touch(op.path)
    state.ephemerals.rows[op.path] = (*attached, owner.session)
    owner.files.add(op.path)
    return Done(index, existed=False)


def detach_file(state: State, index: int, owner: Session, op: files.DetachFile) -> Result:
    if op.path not in owner.files:
        return Done(index, existed=False)
    detach(state, index, owner.session, op.path)
    owner.files.discard(op.path)
    return Done(index, existed=True)


def detach(state: State, index: int, session: int, path: str) -> None:
    """`session` no longer keeps the ephemeral file; without any it goes."""
    left = tuple(number for number in state.ephemerals.rows[path] if number != session)
    state.ephemerals.touch(path)
    state.ephemerals.rows[path] = left
    if not left:
        write(state, index, path, None)


def compact(state: State, index: int, op: files.Compact) -> Result:
    if not 0 <= op.revision <= index:
        return Failure(commands.INVALID, f"a revision up to {index}, got {op.revision}")
    if op.revision < state.history.compacted:
        return files.Compacted(state.history.compacted)
    state.history.compact(op.revision)
    return Done(index, existed=True)


def _mismatch(known: Item | None, generation: int, instance: int) -> Mismatch | None:
    if generation == instance == ANY_GENERATION:
        return None
    if known is None:
        return Mismatch(0, 0, 0)
    if generation in (ANY_GENERATION, known.version) and instance in (ANY_GENERATION, known.instance):
        return None
    return Mismatch(known.revision, known.version, known.instance)


def _not_found(path: str) -> Failure:
    return Failure(commands.NOT_FOUND, f"there is no {path!r}")


def _wrong_kind(path: str, kind: str) -> Failure:
    return Failure(commands.WRONG_KIND, f"{path!r} is {kind}")


assert SEQUENCE_PLACES * 2**53 < 10**19, "a sequential name has 19 digits"
assert files.OPERATIONS_MAX <= SEQUENCE_PLACES, "each sequential name of an entry has a place"
