"""Snapshots in slices: of the state as it was, in the same bytes however they are cut, and back again."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.statemachine import commands, files, permissions, snapshot, snapshot_v1
from coordinator.statemachine.commands import AcquireLock, CloseSession, DeleteKey, ExpireSessions, PutKey, ReleaseLock
from coordinator.statemachine.machine import Machine, encode_node_entry
from coordinator.statemachine.permissions import Permission
from coordinator.statemachine.snapshot import FRAME_ITEMS, Loader, SnapshotDamaged
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import loaded, restored

NAMES = [f"{letter}{number:03}" for letter in "abc" for number in range(150)]


def busy(seed: int = 1, steps: int = 600) -> Asking:
    """A machine with sessions, results, locks with waiters and more keys than one page holds."""
    asking = Asking()
    sessions = [asking.open() for _ in range(5)]
    for step in range(steps):
        session = sessions[step * seed % 5]
        name = NAMES[step * 7 * seed % len(NAMES)]
        asking.ask(session, PutKey(name, b"%d" % step))
        asking.ask(session, AcquireLock(NAMES[step * seed % 40], 1, wait=True))
    return asking


def slices(dump: snapshot.Dump, budget_bytes: int) -> bytes:
    parts = []
    while not dump.done:
        parts.append(dump.slice(budget_bytes))
    return b"".join(parts)


@pytest.mark.parametrize("budget_bytes", [1, 100, 5_000, 20_000, 1 << 30])
def test_the_bytes_do_not_depend_on_the_slices(budget_bytes):
    asking = busy()
    dump = snapshot.begin(asking.machine)
    assert slices(dump, budget_bytes) == snapshot.dump(asking.machine)
    assert dump.digest == asking.machine.digest()


def test_a_slice_has_its_budget_and_one_frame_more_at_most():
    asking = busy(steps=2_000)
    dump = snapshot.begin(asking.machine)
    sizes = []
    while not dump.done:
        sizes.append(len(dump.slice(1_000)))
    assert len(sizes) > 3
    assert max(sizes) < 2 * snapshot.FRAME_BYTES


@pytest.mark.parametrize("part_bytes", [1, 7, 1_000, 1 << 20])
def test_a_loader_takes_any_parts(part_bytes):
    asking = busy()
    data = snapshot.dump(asking.machine)
    assert snapshot.dump(loaded(data, part_bytes)) == data


PATHS = st.sampled_from(["d", "d/e", "d/e/f", "d/g", "h"])
OPS = st.one_of(
    st.builds(PutKey, st.sampled_from(NAMES), st.binary(max_size=3)),
    st.builds(DeleteKey, st.sampled_from(NAMES)),
    st.builds(PutKey, st.text("abcdz", min_size=1, max_size=4), st.binary(max_size=3)),
    st.builds(AcquireLock, st.sampled_from(NAMES[:60]), st.integers(0, 2), st.booleans(), st.just(0), st.booleans()),
    st.builds(ReleaseLock, st.sampled_from(NAMES[:60]), st.integers(-1, 2)),
    st.builds(commands.CancelAcquire, st.sampled_from(NAMES[:60]), st.integers(0, 2), st.integers(1, 900)),
    st.builds(files.CreateFile, PATHS, st.binary(max_size=3), st.booleans(), st.booleans(), st.booleans()),
    st.builds(files.MakeDirectory, PATHS, st.booleans()),
    st.builds(files.DeletePath, PATHS, st.booleans()),
    st.builds(files.AttachFile, PATHS),
    st.builds(files.DetachFile, PATHS),
    st.builds(AcquireLock, PATHS, st.just(1), st.booleans()),
    st.builds(files.Compact, st.integers(1, 900)),
    st.builds(CloseSession),
    st.just(commands.OpenSession(5_000, b"")),
    st.builds(ExpireSessions, st.tuples(st.integers(1, 30), st.integers(1, 30))),
    st.builds(commands.SetPrincipal, st.sampled_from(["ci", "x", "zz"]), st.just(("lock", "write"))),
    st.builds(commands.RemovePrincipal, st.sampled_from(["x", "zz", "narrow"])),
    st.builds(commands.AddToken, st.just("c" * 16), st.sampled_from(["ci", "x", "narrow"]), st.just(b"k" * 32)),
    st.builds(permissions.SetRole, st.sampled_from("rs"), st.just((Permission("a", ("lock", "write")),))),
    st.builds(permissions.RemoveRole, st.sampled_from("rs")),
    st.builds(permissions.SetRoles, st.sampled_from(["ci", "x", "zz"]), st.sampled_from([(), ("r",), ("r", "s")])),
    st.builds(
        permissions.SetPermission,
        st.sampled_from(["principal", "role"]),
        st.sampled_from(["ci", "x", "r"]),
        st.sampled_from(["", "a"]),
        st.sampled_from([(), ("lock", "write")]),
    ),
    st.builds(permissions.NarrowToken, st.just("c" * 16), st.sampled_from([None, (Permission("", ("read",)),)])),
    st.builds(permissions.SetQuota, st.sampled_from(["", "*", "ci"]), st.sampled_from([None, permissions.Quota(99)])),
)
ADMINISTERS = (
    commands.SetPrincipal,
    commands.RemovePrincipal,
    commands.AddToken,
    files.Compact,
    permissions.SetRole,
    permissions.RemoveRole,
    permissions.SetRoles,
    permissions.SetPermission,
    permissions.NarrowToken,
    permissions.SetQuota,
)


@given(st.data(), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_a_dump_is_of_the_state_at_its_beginning_whatever_is_applied_meanwhile(data, seed):
    asking = busy(seed * 2 + 1, 200)
    web = asking.open("web")
    sessions = [*asking.machine.sessions]
    expected = snapshot.dump(asking.machine)
    dump = snapshot.begin(asking.machine)
    parts = []
    while not dump.done:
        parts.append(dump.slice(1))
        for _ in range(data.draw(st.integers(0, 8))):
            op = data.draw(OPS)
            if isinstance(op, ExpireSessions):
                asking.node(op)
                continue
            administers = isinstance(op, ADMINISTERS)
            session = web if administers else data.draw(st.sampled_from(sessions))
            result = asking.ask(session, op, "web" if administers else "ci")
            if isinstance(result, commands.SessionOpened):
                sessions.append(result.session)
    assert b"".join(parts) == expected
    assert dump.digest == hashlib.blake2b(expected[: -_end_frame(expected)], digest_size=16).hexdigest()[:16]
    # What changed while it was taken is in the next one, and replays and restores agree on it.
    after = snapshot.dump(asking.machine)
    restored(asking.machine)
    replayed = Machine()
    for index, entry in enumerate(asking.log, 1):
        replayed.apply(index, entry)
    assert snapshot.dump(replayed) == after


def _end_frame(data: bytes) -> int:
    position = 8
    while True:
        size = 4 + int.from_bytes(data[position : position + 4], "big")
        if position + size == len(data):
            return size
        position += size


def test_a_restored_machine_goes_on_as_the_one_that_was_never_stopped():
    asking = busy()
    other = Asking()
    other.machine, other.index, other.numbers = (
        loaded(snapshot.dump(asking.machine)),
        asking.index,
        dict(asking.numbers),
    )
    asking.machine.events.clear()
    holders = sorted(asking.machine.sessions)
    for session in holders[1:4]:
        results = [one.ask(session, CloseSession()) for one in (asking, other)]
        assert results[0] == results[1]
        assert asking.machine.events == other.machine.events
    assert asking.machine.digest() == other.machine.digest()


def test_a_loader_that_is_done_keeps_no_state():
    """Else a replica that is stopped or removed, or takes another state, is not gone from memory: full collections are
    seldom on a node, and pass over what it had when it began."""
    data = snapshot.dump(busy().machine)
    loader = Loader()
    loader.feed(data)
    state = loader.finish()
    del loader
    references = sys.getrefcount(state)
    assert references == 2, "the name here, and the argument"


@pytest.mark.long
def test_a_loader_that_is_given_up_is_gone():
    gc.collect()
    loader = Loader()
    loader.feed(snapshot.dump(busy().machine)[:-1])
    del loader
    assert not [one for one in gc.get_objects() if type(one) is Loader]


def test_a_dump_that_is_closed_keeps_nothing_and_another_may_begin():
    asking = busy()
    session = next(iter(asking.machine.sessions))
    dump = snapshot.begin(asking.machine)
    dump.slice(1)
    with pytest.raises(AssertionError, match="one walk"):
        snapshot.begin(asking.machine)
    dump.close()
    assert dump.slice(1) == b""
    assert asking.machine.state.keys.walk is None
    asking.ask(session, PutKey("a", b"new"))
    assert slices(snapshot.begin(asking.machine), 1) == snapshot.dump(asking.machine)


def test_a_dump_goes_on_though_the_machine_adopts_another_state():
    asking = busy()
    expected = snapshot.dump(asking.machine)
    dump = snapshot.begin(asking.machine)
    first = dump.slice(1)
    snapshot.load(asking.machine, snapshot.dump(Asking().machine))
    assert first + slices(dump, 1) == expected
    snapshot.begin(asking.machine).close()


def test_what_grows_without_bound_is_cut_into_items():
    asking = Asking()
    session = asking.open()
    for number in range(3 * FRAME_ITEMS):
        asking.acquire(session, "deploy", number)
    dump = snapshot.begin(asking.machine)
    sizes = []
    while not dump.done:
        sizes.append(len(dump.slice(1)))
    assert max(sizes) < 2 * snapshot.FRAME_BYTES
    assert len(sizes) > 2


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_is_seen_and_changes_nothing(data):
    asking = busy(3, 60)
    whole = snapshot.dump(asking.machine)
    victim = Asking().machine
    before = victim.digest()
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    with pytest.raises(SnapshotDamaged):
        snapshot.load(victim, bytes(damaged))
    with pytest.raises(SnapshotDamaged):
        snapshot.load(victim, whole + b"x")
    assert victim.digest() == before


def test_a_later_version_is_refused_by_its_number():
    with pytest.raises(SnapshotDamaged, match="got 77"):
        Loader().feed(b"CLST\x00\x4d\x00\x00")


RECORDED = json.loads((Path(__file__).parent / "recorded" / "level_2.json").read_text())


def test_a_snapshot_of_before_level_3_is_read_and_written_again_to_the_last_byte():
    """So that replicas of both versions compare their digests while a cluster is upgraded."""
    data = base64.b64decode(RECORDED["snapshot"])
    machine = loaded(data)
    assert snapshot.dump(machine) == data
    assert machine.digest() == RECORDED["digest"]


def test_a_log_of_before_level_3_is_applied_as_it_was():
    machine = Machine()
    for index, entry in enumerate(RECORDED["log"], 1):
        machine.apply(index, base64.b64decode(entry))
    assert machine.digest() == RECORDED["digest"]
    assert snapshot.dump(machine) == base64.b64decode(RECORDED["snapshot"])


def test_a_log_and_a_snapshot_of_level_4_are_what_they_were_to_the_last_byte():
    """What level 5 does otherwise is in them: holds that end, what is not handed over, delays that stay."""
    recorded = json.loads((Path(__file__).parent / "recorded" / "level_4.json").read_text())
    data = base64.b64decode(recorded["snapshot"])
    machine = Machine()
    for index, entry in enumerate(recorded["log"], 1):
        machine.apply(index, base64.b64decode(entry))
    for one in (machine, loaded(data)):
        assert one.digest() == recorded["digest"]
        assert snapshot.dump(one) == data


def test_principals_of_before_level_3_may_do_what_they_might():
    machine = loaded(base64.b64decode(RECORDED["snapshot"]))

    def forbidden(query, principal):
        answer = machine.query(query, principal, lambda _: 1)
        return isinstance(answer, commands.Failure) and answer.code == commands.FORBIDDEN

    assert machine.principals["narrow"].prefixes == ("build/",)
    assert [forbidden(commands.GetKey(key), "narrow") for key in ("build/x", "built")] == [False, True]
    assert [forbidden(commands.GetKey("any"), name) for name in ("ci", "reader", "boss")] == [False, False, True]
    assert [forbidden(commands.ListPrincipals(), name) for name in ("web", "ci")] == [False, True]
    machine.apply(machine.applied + 1, encode_node_entry(commands.RaiseLevel(commands.LEVEL)))
    assert [forbidden(commands.GetKey(key), "narrow") for key in ("build/x", "built")] == [False, True]
    restored(machine)


def test_a_snapshot_says_from_which_level_it_is():
    """An older version then says that, instead of that it is damaged."""
    for level, version in ((1, 2), (2, 2), (3, 3), (4, 4), (5, 5)):
        assert snapshot.dump(Asking(level).machine)[4:6] == version.to_bytes(2, "big")
    later = b"CLST" + (snapshot.VERSION_OF_LOCK_RELEASES + 1).to_bytes(2, "big") + bytes(2)
    with pytest.raises(SnapshotDamaged, match="version 1 to 5, got 6: a later version of Conclave wrote it, and can"):
        loaded(later)


def test_a_snapshot_that_names_a_role_that_is_not_there_is_damaged():
    asking = Asking()
    web = asking.open("web")
    asking.ask(web, permissions.SetRole("r"), "web")
    asking.ask(web, permissions.SetRoles("ci", ("r",)), "web")
    asking.machine.state.roles.remove("r")
    with pytest.raises(SnapshotDamaged, match="the role 'r', which is not there"):
        loaded(snapshot.dump(asking.machine))


def test_a_snapshot_of_version_1_is_read():
    asking = busy()
    session = asking.open()
    asking.send(session, 3, PutKey("z", b"1"))
    machine = asking.machine
    old = snapshot_v1.State(
        1,
        machine.cluster_id,
        machine.cluster_name,
        machine.epoch,
        machine.applied,
        [
            snapshot_v1._Session(
                s.session,
                s.principal,
                s.ttl_ms,
                s.nonce,
                s.acked,
                sorted(s.results.items()),
                [*s.locks],
                [(name, acquisition) for name in s.waiting for acquisition in s.waiting[name]],
            )
            for s in machine.sessions.values()
        ],
        [
            snapshot_v1._Lock(lock.name, lock.holder, lock.token, [waiter.holder for waiter in lock.queue.values()])
            for _, lock in sorted(machine.locks.items())
            if lock.holder is not None
        ],
        [(key, item.value or b"", item.revision, item.version) for key, item in sorted(machine.keys.items())],
        [
            snapshot_v1._Principal(p.name, p.rights, p.prefixes, p.act_for, sorted(p.tokens.items()))
            for _, p in sorted(machine.principals.items())
        ],
    )
    again = Machine()
    snapshot.load(again, msgspec.msgpack.encode(old))
    assert snapshot.dump(loaded(snapshot.dump(again))) == snapshot.dump(again)
    assert (again.waiting, again.key_bytes) == (machine.waiting, machine.key_bytes)
    for name in (*machine.locks, *machine.keys):
        for query in (commands.GetKey(name), commands.GetLock(name)):
            assert again.query(query, "ci", lambda _: 1) == machine.query(query, "ci", lambda _: 1)
    for number, one in machine.sessions.items():
        other = again.sessions[number]
        assert (other.results, other.locks, other.waiting) == (one.results, one.locks, one.waiting)
    assert again.tokens == machine.tokens
