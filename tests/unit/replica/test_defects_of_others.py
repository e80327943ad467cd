"""Defects of locks and leases that were reported of other services, as histories of whole nodes: the real turn on fake
clocks and a fake Redis. Each test is named after its report; the first sentence says what went wrong there."""

from __future__ import annotations

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.entries import COMMAND
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.leases import Leases
from coordinator.replica.ports import Write
from coordinator.replica.states import Compaction
from coordinator.replica.stored import StoredLog, StoredReplica
from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.commands import AcquireLock, GetLock, Granted, Held, PutKey, Queued
from coordinator.statemachine.machine import Machine
from tests.unit.replica.stage import CLUSTER, Node, Stage
from tests.unit.replica.test_turn import command, keep_alive, opened


def result_of(stage: Stage, name: str, request: wire.Request):
    """What the node answers."""
    channel = stage.ask(name, request)
    stage.settle()
    (answer,) = stage.replies(channel)
    return answer.result if isinstance(answer, wire.Answer) else answer


def acquire(stage: Stage, name: str, session: int, number: int, *, wait: bool = False):
    return result_of(stage, name, command(1, session, number, AcquireLock("deploy", 1, wait)))


def test_pysyncobj_108_nobody_is_granted_a_lock_while_nobody_leads_and_its_owner_keeps_it_over_that_time(stage):
    """There, an owner kept its lock young only while a leader was known: when the nodes were started one by one the
    lock had grown old before there was one, and two nodes took it."""
    one, two = opened(stage, 2_000), opened(stage, 60_000)
    granted = acquire(stage, "node1", one, 1)
    assert isinstance(granted, Granted)
    stage.cut = {"node1", "node2", "node3"}
    stage.pass_time(10_000_000)
    assert all(node.replica.engine.role is not Role.LEADER for node in stage.nodes.values())
    for name in stage.nodes:
        assert isinstance(acquire(stage, name, two, 1), wire.NotLeader)
    stage.cut = {"node1"}
    while (leader := next((n for n in stage.nodes.values() if n.replica.leases is not None), None)) is None:
        stage.pass_time(20_000)
    held = acquire(stage, leader.name, two, 2)
    assert isinstance(held, Held)
    assert (held.holder.session, held.token) == (one, granted.token), "its lease begins anew with the leader"
    assert acquire(stage, leader.name, one, 2) == granted
    stage.pass_time(2_300_000)
    next_granted = acquire(stage, leader.name, two, 3)
    assert isinstance(next_granted, Granted)
    assert next_granted.token > granted.token


def test_pysyncobj_183_a_waiter_is_granted_the_lock_of_an_owner_that_died_with_the_leader(stage):
    """There, a follower that waited for a lock stood still for good when the leader, which held it, crashed."""
    one, two = opened(stage, 1_000), opened(stage, 60_000)
    assert isinstance(acquire(stage, "node1", one, 1, wait=True), Granted)
    assert acquire(stage, "node1", two, 1, wait=True) == Queued(1)
    stage.cut = {"node1"}
    stage.elect("node2")
    waiting = wire.QueryRequest(2, CLUSTER, "", commands.AwaitGrant("deploy", 1, two))
    channel = stage.ask("node2", waiting)
    stage.pass_time(900_000)
    (answer,) = stage.replies(channel)
    assert answer.result == Queued(1)
    stage.pass_time(400_000)
    (pushed,) = stage.replies(channel)
    assert isinstance(pushed, wire.GrantPushed)
    assert (pushed.session, pushed.name) == (two, "deploy")


def test_etcd_9526_no_chain_of_leaders_keeps_a_dead_clients_lease_alive(stage):
    """There, every new leader renewed all leases, and a client that was long dead kept what it had.

    Here a leader begins with what the last checkpoint left: each leadership that lasts for more than half of a time to
    live takes its part of the lease, and no change undoes an end that is in the log."""
    dead, ended = opened(stage, 2_000), opened(stage, 1_000)
    assert isinstance(acquire(stage, "node1", dead, 1), Granted)
    began_us = stage.clock.us
    for name in ("node2", "node3", "node1"):
        stage.pass_time(1_300_000)
        stage.elect(name)
    machine = stage.nodes["node1"].replica.machine
    assert dead not in machine.sessions
    assert ended not in machine.sessions, "a session that was ended stays so"
    assert stage.clock.us - began_us < 2 * 2_000_000, "else this says nothing"
    assert machine.query(GetLock("deploy"), "web", lambda session: 0).holder is None
    stage.elect("node2")
    assert dead not in stage.nodes["node2"].replica.machine.sessions


def test_etcd_9526_what_a_leader_of_before_renews_counts_for_nothing_with_the_next(stage):
    """There, a client that spoke to the leader of before was answered, and the next one did not know of it."""
    session = opened(stage, 1_000)
    stage.pass_time(900_000)
    late = keep_alive(stage, 1, session)
    stage.elect("node2")
    channel = stage.ask("node1", late)
    stage.settle()
    assert [type(reply) for reply in stage.replies(channel)] == [wire.NotLeader]
    channel = stage.ask("node2", late)
    stage.settle()
    assert stage.replies(channel) == [wire.OtherTerm(1, stage.nodes["node2"].raft.term)]


def slow(stage: Stage, node: Node, us: int) -> None:
    """The node's next write to its disk takes so long."""
    commit, waits = node.journal.commit, [us]

    def stalled(writes: list[Write]) -> None:
        stage.clock.us += waits.pop() if waits else 0
        commit(writes)

    node.journal.commit = stalled  # type: ignore[method-assign]


def test_etcd_15247_a_leader_whose_disk_stalls_revokes_no_lease(stage):
    """There, a leader stood for seconds in its write to the disk; when it went on, every lease had run out by its
    clock, the keep-alives lay unread, another led already, and it revoked them all."""
    sessions = [opened(stage, 1_000), opened(stage, 2_000)]
    leader = stage.nodes["node1"]
    slow(stage, leader, 30_000_000)
    stage.ask("node1", command(9, sessions[0], 1, PutKey("a", b"1")))
    leader.run()
    last = leader.raft.last_index
    leader.run()  # The stall is over, and nothing has come yet: it is alone with its clock.
    assert leader.replica.engine.role is not Role.LEADER, "it was silent for longer than an election takes"
    assert leader.raft.last_index == last, "it proposed nothing"
    stage.carry()
    stage.pass_time(300_000)
    for node in stage.nodes.values():
        assert set(sessions) <= node.replica.machine.sessions.keys()


def test_etcd_15247_a_stall_that_costs_no_leadership_costs_no_lease_either():
    """The same where nobody else could lead: what the stall took is added to every lease."""
    stage = Stage(size=1)
    stage.pass_time(1_200_000)
    session = opened(stage, 1_000)
    lone = stage.nodes["node1"]
    stage.pass_time(500_000)
    slow(stage, lone, 30_000_000)
    stage.ask("node1", command(9, session, 1, PutKey("a", b"1")))
    stage.settle()
    assert lone.replica.engine.role is Role.LEADER
    stage.pass_time(200_000)
    assert session in lone.replica.machine.sessions
    leases = lone.replica.leases
    assert isinstance(leases, Leases)
    assert leases.remaining_ms(session) > 0
    stage.pass_time(500_000)
    assert session not in lone.replica.machine.sessions, "and no more than that"


def restarted(log: StoredLog) -> Machine:
    """The state machine as a restart makes it: the snapshot, and every entry behind it that is committed."""
    machine = Machine()
    if log.snapshot is not None:
        snapshot.load(machine, log.snapshot.data)
    commit = max(log.hard_state.commit, machine.applied)
    for index in range(machine.applied + 1, commit + 1):
        entry = log.entries[index - 1 - log.offset]
        if entry[0] == COMMAND:
            machine.apply(index, memoryview(entry)[1:])
    return machine


def test_etcd_14211_a_crash_after_any_write_leaves_the_data_that_everybody_else_has(stage, tmp_path):
    """There, data and the index up to which it was applied reached the disk apart from each other: after a crash an
    entry was skipped or applied twice, and from then on that member's data differed."""
    for node in stage.nodes.values():
        node.replica.states.compaction = Compaction(snapshot_entries=7, trailing_entries=2)
    node = stage.nodes["node2"]
    session = opened(stage)
    for number in range(1, 40):
        stage.ask("node1", command(number, session, number, AcquireLock(f"l{number % 5}", number, wait=True)))
        if number % 3:
            stage.settle()
    stage.pass_time(200_000)

    first = Node("node2", node.member, list(node.raft.configuration.voters), stage.clock).raft.log
    entries = dict(enumerate(first.entries, 1))
    for writes in node.journal.commits:
        for write in writes:
            entries |= dict(enumerate(write.entries, write.first_index))
    reference, digests = Machine(), {}
    for index in sorted(entries):
        if entries[index][0] == COMMAND:
            reference.apply(index, memoryview(entries[index])[1:])
            digests[index] = reference.digest()

    journal = SqliteJournal(tmp_path)
    stored = StoredLog(node.journal.commits[0][0].hard_state._replace(commit=2), [*first.terms], [*first.entries])
    journal.admit(StoredReplica(node.member.replica, CLUSTER, "default"), 1, stored)
    journal.load(node.member.replica)
    compared = heads = 0
    for writes in node.journal.commits:
        journal.commit(writes)
        heads += sum(write.head is not None for write in writes)
        machine = restarted(journal.load(node.member.replica))
        if machine.applied in digests:
            assert machine.digest() == digests[machine.applied], f"at index {machine.applied}"
            compared += 1
    journal.close()
    assert heads >= 3
    assert compared >= 20
