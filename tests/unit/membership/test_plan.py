"""The next step from the real membership to the wanted one: each rule, and in a world of failures that it is never
unsafe and always arrives."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.consensus import members, membership
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.consensus.quorum import majority
from coordinator.membership.plan import (
    Change,
    Delete,
    Host,
    NodeView,
    Real,
    RealMember,
    Replace,
    Settled,
    Step,
    Transfer,
    Waiting,
    choose,
    plan,
)
from coordinator.membership.wanted import VOTERS_MAX, Place, Wanted

NOW = 10_000.0
A, B, C, D, E = (Member(number, f"node{number}") for number in range(1, 6))


def want(*members: Member, leaving: tuple[str, ...] = (), replace_after_s: int = 600) -> Wanted:
    places = tuple(Place(member.node, member.priority, member.witness) for member in members)
    return Wanted(places, leaving, replace_after_s)


def real(*voters: Member, learners=(), leader: Member = A, silent=None, lag=None, settled: bool = True) -> Real:
    """`silent`: members that do not answer, with the seconds since; `lag`: entries that a member lacks."""
    silent, lag = silent or {}, lag or {}
    members = [
        RealMember(m, m in voters, lag.get(m, 0), m not in silent, NOW - silent[m] if m in silent else None)
        for m in (*voters, *learners)
    ]
    return Real(leader.replica, tuple(members), settled, promote_lag_max=256)


def hosting(*members: Member, **others: NodeView) -> dict[str, NodeView]:
    views = {member.node: NodeView(member.node, member.replica, "running") for member in members}
    return views | {view.name: view for view in others.values()}


def reason(step: Step) -> str:
    assert isinstance(step, Waiting), step
    return step.reason


def test_what_is_as_wanted_is_settled():
    assert plan(want(A, B, C), real(A, B, C), hosting(A, B, C), NOW) == Settled()


def test_without_a_leader_or_amid_a_change_nothing_is_done():
    assert "no leader" in reason(plan(want(A, B), None, hosting(A), NOW))
    assert "being committed" in reason(plan(want(A, B), real(A, settled=False), hosting(A, B), NOW))


def test_a_new_node_hosts_then_learns_then_votes():
    wanted, now = want(A, B, C, D), NOW
    assert plan(wanted, real(A, B, C), hosting(A, B, C, d=NodeView("node4")), now) == Host("node4")
    step = plan(wanted, real(A, B, C), hosting(A, B, C, d=NodeView("node4", 4, "empty")), now)
    assert step == Change((A, B, C), (D,), "node4 is added as a learner")
    behind = real(A, B, C, learners=[D], lag={D: 300})
    assert reason(plan(wanted, behind, hosting(A, B, C, D), now)) == (
        "node4 is catching up: it lacks 300 entries, at most 256 may"
    )
    silent = real(A, B, C, learners=[D], silent={D: 5})
    assert "node4 is a learner that does not answer" in reason(plan(wanted, silent, hosting(A, B, C, D), now))
    step = plan(wanted, real(A, B, C, learners=[D], lag={D: 3}), hosting(A, B, C, D), now)
    assert step == Change((A, B, C, D), (), "node4 has caught up and votes")


def test_a_witness_is_wanted_as_one_and_never_handed_the_leadership():
    wanted = Wanted((Place("node1"), Place("node2"), Place("node4", witness=True)))
    step = plan(wanted, real(A, B), hosting(A, B, d=NodeView("node4", 4, "empty")), NOW)
    witness = D._replace(witness=True)
    assert step == Change((A, B), (witness,), "node4 is added as a learner")
    leaving = want(B, witness, leaving=("node1",))
    step = plan(leaving, real(A, B, witness, silent={B: 1}), hosting(A, B, witness), NOW)
    assert "no quorum of the voters would answer" in reason(step)
    step = plan(leaving, real(A, B, witness), hosting(A, B, witness), NOW)
    assert step == Transfer("node2", "the replica on node1 leads and is to go")


def test_the_last_full_voter_is_not_wanted_away():
    """Its wish was accepted, and waited for without end."""
    wanted = Wanted((Place("node1"), Place("node2"), Place("node4", witness=True))).removing("node1")
    with pytest.raises(
        ValueError, match=r"^node2 is the last one with a state: a witness can not lead, and node4 would"
    ):
        wanted.removing("node2")
    assert wanted.moving("node2", "node3").nodes == ("node4", "node3")


def test_one_of_as_many_as_there_may_be_is_moved_and_replaced():
    """To move it was refused as one too many, and so was what took the place of a node that is gone for good."""
    full = want(*(Member(number, f"node{number}") for number in range(1, VOTERS_MAX + 1)))
    with pytest.raises(ValueError, match=r"^expected at most 15 replicas$"):
        full.adding("node16")
    moved = full.moving("node1", "node16")
    assert (len(moved.nodes), moved.nodes[-1], moved.leaving) == (VOTERS_MAX, "node16", ("node1",))
    with pytest.raises(ValueError, match=r"^node2 has a replica, or is to get one, already$"):
        full.moving("node1", "node2")


def test_where_only_witnesses_could_take_over_it_says_so():
    """Wanted before it was refused."""
    witness = D._replace(witness=True)
    step = plan(want(witness, leaving=("node1",)), real(A, witness), hosting(A, witness), NOW)
    assert reason(step) == "without the replica on node1 more than half of the voters would be witnesses"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda w: w.adding("node4", 1_001), "^expected a priority from -1000 to 1000, got 1001$"),
        (lambda w: w.adding("node4", -1_001), "^expected a priority from -1000 to 1000, got -1001$"),
        (lambda w: w.adding("node4", 2**64 - 1), "^expected a priority from -1000 to 1000, got 18446744073709551615$"),
        (lambda w: w.adding("n" * 10_000), "^a node's name matches .{1,90}$"),
        (lambda w: w.adding("a node"), "got 'a node'$"),
        (lambda w: w.moving("node1", ""), "^a node's name matches .*, got ''$"),
        (lambda w: w.replacing_after(-1), "got -1$"),
        (lambda w: w.replacing_after(10**23), r"^expected 0 \(never\) to 31536000 seconds, got 1000"),
    ],
)
def test_what_can_not_be_wanted_is_refused(change, why):
    with pytest.raises(ValueError, match=why):
        change(want(A, B, C))


def test_the_outermost_of_what_can_be_wanted_is_taken():
    assert want(A).adding("node4", 1_000).adding("node5", -1_000).nodes == ("node1", "node4", "node5")
    assert want(A).replacing_after(31_536_000).replacing_after(0).replace_after_s == 0


def test_a_move_swaps_in_one_change_and_deletes_last():
    wanted = want(A, B, C).moving("node3", "node4")
    ready = real(A, B, C, learners=[D])
    assert plan(wanted, ready, hosting(A, B, C, D), NOW) == Change(
        (A, B, D), (), "node4 has caught up and votes in place of node3"
    )
    done = real(A, B, D)
    assert plan(wanted, done, hosting(A, B, C, D), NOW) == Delete("node3", 3)
    assert plan(wanted, done, hosting(A, B, D, c=NodeView("node3")), NOW) == Settled()


def test_the_leaders_own_replica_goes_after_it_has_handed_over():
    wanted = want(B, C, leaving=("node1",))
    assert plan(wanted, real(A, B, C), hosting(A, B, C), NOW) == Transfer(
        "node2", "the replica on node1 leads and is to go"
    )
    assert plan(wanted, real(A, B, C, leader=B), hosting(A, B, C), NOW) == Change(
        (B, C), (), "the replica on node1 is removed"
    )


def test_nobody_is_let_vote_where_a_majority_would_not_answer_then():
    two_are_silent = real(A, B, C, learners=[D], silent={B: 5, C: 5})
    step = plan(want(A, B, C, D), two_are_silent, hosting(A, D), NOW)
    assert "node4 has caught up, and with it no quorum of the voters would answer" in reason(step)


def test_leadership_goes_to_whom_it_is_wanted_most_and_of_several_to_whoever_lacks_least():
    preferred = C._replace(priority=5)
    wanted = want(B, preferred, leaving=("node1",))
    step = plan(wanted, real(A, B, preferred, lag={preferred: 40}), hosting(A, B, preferred), NOW)
    assert step == Transfer("node3", "the replica on node1 leads and is to go")
    step = plan(want(B, C, leaving=("node1",)), real(A, B, C, lag={B: 40}), hosting(A, B, C), NOW)
    assert step == Transfer("node3", "the replica on node1 leads and is to go")


def test_a_member_that_nobody_mentions_stays():
    assert "nobody asked to remove" in reason(plan(want(A, B), real(A, B, C), hosting(A, B, C), NOW))


def test_nobody_leaves_before_who_comes_in_its_place_votes():
    wanted = want(A, B, C).moving("node3", "node4")
    step = plan(wanted, real(A, B, C), hosting(A, B, C, d=NodeView("node4", silent_since=NOW - 5)), NOW)
    assert "node4 is to get a replica, and does not answer" in reason(step)
    assert "the replica on node3 stays until node4 votes" in reason(step)


def test_a_removal_that_would_leave_no_quorum_waits():
    wanted = want(A, B, leaving=("node3",))
    step = plan(wanted, real(A, B, C, silent={B: 1}), hosting(A, B, C), NOW)
    assert "without the replica on node3 no quorum of the voters would answer" in reason(step)


def test_a_node_that_is_gone_is_waited_for_then_replaced_by_one_of_another_zone():
    nodes = hosting(
        A,
        B,
        d=NodeView("node4", zone="x"),
        e=NodeView("node5", zone="y"),
        c=NodeView("node3", 3, "running", silent_since=NOW - 599),
    )
    nodes["node1"] = nodes["node1"]._replace(zone="x")
    assert "replaced after 600 s, of which 540" in reason(
        plan(want(A, B, C), real(A, B, C, silent={C: 599}), nodes, NOW)
    )
    nodes["node3"] = nodes["node3"]._replace(silent_since=NOW - 601)
    step = plan(want(A, B, C), real(A, B, C, silent={C: 601}), nodes, NOW)
    assert step == Replace("node3", "node5", "node3 has been gone for 601 s")
    never = want(A, B, C, replace_after_s=0)
    assert "when somebody says so" in reason(plan(never, real(A, B, C, silent={C: 601}), nodes, NOW))


def test_gone_for_good_without_a_spare_node_is_said():
    nodes = hosting(A, B, c=NodeView("node3", 3, "running", silent_since=NOW - 700))
    assert "no other node" in reason(plan(want(A, B, C), real(A, B, C, silent={C: 700}), nodes, NOW))


def test_a_wiped_node_gets_a_new_replica_after_the_time_and_the_old_one_goes_with_its_vote():
    wiped = hosting(A, B, c=NodeView("node3"))
    wanted = want(A, B, C)
    assert "node3 has lost its replica" in reason(plan(wanted, real(A, B, C, silent={C: 30}), wiped, NOW))
    silent = {C: 700.0}
    assert plan(wanted, real(A, B, C, silent=silent), wiped, NOW) == Host("node3")
    fresh = Member(33, "node3")
    hosted = hosting(A, B, c=NodeView("node3", 33, "empty"))
    assert plan(wanted, real(A, B, C, silent=silent), hosted, NOW) == Change(
        (A, B, C), (fresh,), "node3 is added as a learner"
    )
    hosted = hosting(A, B, fresh)
    assert plan(wanted, real(A, B, C, learners=[fresh], silent=silent), hosted, NOW) == Change(
        (A, B, fresh), (), "node3 has caught up and votes in place of node3"
    )


def test_a_replica_that_was_replaced_is_deleted_when_its_node_comes_back():
    wanted = want(A, B, C).moving("node3", "node4")
    step = plan(wanted, real(A, B, D), hosting(A, B, C, D), NOW)
    assert step == Delete("node3", 3)


def test_a_node_that_left_once_is_a_spare_again():
    """node4 took its place, and is gone itself now."""
    wanted = want(A, B, D, leaving=("node3",))
    nodes = hosting(A, B, c=NodeView("node3"), d=NodeView("node4", silent_since=NOW - 700))
    step = plan(wanted, real(A, B, D, silent={D: 700}), nodes, NOW)
    assert step == Replace("node4", "node3", "node4 has been gone for 700 s")
    hosts_yet = nodes | {"node3": NodeView("node3", 3, "running")}
    assert plan(wanted, real(A, B, D, silent={D: 700}), hosts_yet, NOW) == Delete("node3", 3)


def test_a_member_whose_replica_is_lost_is_no_spare():
    nodes = [NodeView("node3"), NodeView("node4")]
    assert choose(1, want(A, B), nodes, members=["node1", "node2", "node3"]) == ("node4",)


def test_a_member_that_is_to_be_a_witness_goes_and_its_node_draws_anew():
    """It was removed, and wanted again before it had gone."""
    wanted = want(A, B, C).removing("node3").adding("node3", witness=True)
    step = plan(wanted, real(A, B, C), hosting(A, B, C), NOW)
    assert step == Change((A, B), (), "the replica on node3 is removed")
    assert plan(wanted, real(A, B), hosting(A, B, C), NOW) == Delete("node3", 3)
    assert plan(wanted, real(A, B), hosting(A, B, c=NodeView("node3")), NOW) == Host("node3")
    witness = Member(33, "node3", witness=True)
    step = plan(wanted, real(A, B), hosting(A, B, c=NodeView("node3", 33, "empty")), NOW)
    assert step == Change((A, B), (witness,), "node3 is added as a learner")
    step = plan(wanted, real(A, B, learners=[witness]), hosting(A, B, witness), NOW)
    assert step == Change((A, B, witness), (), "node3 has caught up and votes")
    assert plan(wanted, real(A, B, witness), hosting(A, B, witness), NOW) == Settled()


def test_a_learner_that_is_to_be_a_witness_gets_no_vote():
    wanted = want(A, B).adding("node3", witness=True)
    step = plan(wanted, real(A, B, learners=[C]), hosting(A, B, C), NOW)
    assert step == Change((A, B), (), "the learner on node3 is removed")


def test_a_leader_that_is_to_be_a_witness_hands_over_and_of_two_that_are_to_be_one_goes_after_the_other():
    wanted = want(A, B, C).removing("node1").adding("node1", witness=True)
    assert isinstance(plan(wanted, real(A, B, C), hosting(A, B, C), NOW), Transfer)
    wanted = want(A, B, C, D, E)
    for node in ("node4", "node5"):
        wanted = wanted.removing(node).adding(node, witness=True)
    step = plan(wanted, real(A, B, C, D, E), hosting(A, B, C, D, E), NOW)
    assert step == Change((A, B, C, E), (), "the replica on node4 is removed")
    after = plan(wanted, real(A, B, C, E), hosting(A, B, C, E, d=NodeView("node4", silent_since=NOW)), NOW)
    assert "the replica on node5 stays until node4 votes" in reason(after)


def test_more_witnesses_than_the_log_takes_are_not_wanted():
    """The leader refuses such a change each time, and nothing behind it would ever be done."""
    wanted = want(A, B, C).adding("node4", witness=True).adding("node5", witness=True)
    with pytest.raises(ValueError, match=r"^expected at most 1 witnesses among 3 replicas, got 2"):
        wanted.removing("node1").removing("node2")
    with pytest.raises(ValueError, match=r"^expected at most 3 witnesses among 7 replicas, got 4"):
        wanted.adding("node6", witness=True).adding("node7", witness=True)
    assert wanted.moving("node4", "node6").removing("node6").nodes == ("node1", "node2", "node3", "node5")


def test_a_witness_that_is_to_go_goes_before_the_voter_without_whom_too_few_had_the_state():
    v, w = D._replace(witness=True), E._replace(witness=True)
    wanted = want(A, v, leaving=("node5", "node3"))
    step = plan(wanted, real(A, C, v, w), hosting(A, C, v, w), NOW)
    assert step == Change((A, C, v), (), "the replica on node5 is removed")
    step = plan(want(A, C, v, w), real(A, v, learners=[w]), hosting(A, v, w), NOW)
    assert "with it more than half of the voters would be witnesses" in reason(step)


def test_a_stopped_member_is_not_replaced():
    nodes = hosting(A, B, c=NodeView("node3", 3, "stopped"))
    assert "node3 is stopped" in reason(plan(want(A, B, C), real(A, B, C, silent={C: 9_000}), nodes, NOW))


def test_priorities_follow():
    first = A._replace(priority=5)
    assert plan(want(first, B, C), real(A, B, C), hosting(A, B, C), NOW) == Change(
        (first, B, C), (), "priorities are changed"
    )


def test_the_zone_of_a_node_that_was_not_heard_of_is_filled_all_the_same():
    nodes = [NodeView("node4", zone="x"), NodeView("node5", zone="y")]
    assert choose(1, want(A, B), nodes, {"node1": "x", "node2": "y", "node3": "y"}) == ("node4",)
    assert choose(1, want(A), nodes, {"node1": "x"}) == ("node5",)
    views = hosting(B, c=NodeView("node3", silent_since=NOW - 601)) | {view.name: view for view in nodes}
    step = plan(want(A, B, C), real(A, B, C, leader=B, silent={C: 601}), views, NOW, {"node1": "x", "node3": "z"})
    assert step == Replace("node3", "node5", "node3 has been gone for 601 s")


def test_how_long_a_node_is_gone_counts_from_the_last_that_was_heard_of_it_or_its_replica():
    wanted, gone = want(A, B, C), real(A, B, C, silent={C: 9_000})
    others = hosting(A, B, d=NodeView("node4"))
    assert "node3 does not answer" in reason(plan(wanted, gone, others, NOW)), "nobody looked for it yet"
    missed = others | {"node3": NodeView("node3", silent_since=NOW - 599)}
    assert "after 600 s, of which 540 have passed" in reason(plan(wanted, gone, missed, NOW))
    missed = others | {"node3": NodeView("node3", silent_since=NOW - 600)}
    assert plan(wanted, gone, missed, NOW) == Replace("node3", "node4", "node3 has been gone for 600 s")


def test_zones_are_filled_evenly_and_then_idle_nodes_first():
    nodes = [
        NodeView("a1", zone="a", replicas=0),
        NodeView("a2", zone="a", replicas=0),
        NodeView("b1", zone="b", replicas=7),
        NodeView("b2", zone="b", replicas=2),
        NodeView("c1", zone="c", replicas=9),
        NodeView("c2", zone="c", silent_since=1.0),
    ]
    assert choose(3, None, nodes) == ("a1", "b2", "c1")
    assert choose(9, None, nodes) == ("a1", "b2", "c1", "a2", "b1")


# --- a world of failures --------------------------------------------------------------------------


class Disk(NamedTuple):
    replica: int = 0
    state: str = ""


class World:
    """A cluster as the log has it, and nodes that come, go and lose their disks; changes as the engine takes them."""

    def __init__(self, voters: int, nodes: int) -> None:
        self.now = 0.0
        self.names = [f"node{number}" for number in range(1, nodes + 1)]
        self.disks = {name: Disk() for name in self.names}
        self.up = set(self.names)
        self.since: dict[str, float] = {}
        self.silent: dict[int, float] = {}
        self.drawn = 0
        self.configuration = Configuration(tuple(self._draw(name, "running") for name in self.names[:voters]))
        self.behind: dict[int, int] = {}
        self.leader = self.configuration.voters[0].replica
        self.wanted = Wanted(tuple(Place(name) for name in self.names[:voters]), (), 60)

    def _draw(self, name: str, state: str) -> Member:
        self.drawn += 1
        self.disks[name] = Disk(self.drawn, state)
        return Member(self.drawn, name)

    def answers(self, member: Member) -> bool:
        return member.node in self.up and self.disks[member.node].replica == member.replica

    def has_quorum(self, voters) -> bool:
        return sum(map(self.answers, voters)) >= majority(len(voters))

    def look(self) -> tuple[Real | None, dict[str, NodeView]]:
        self.now += 1
        for name in self.names:
            if name in self.up:
                self.since.pop(name, None)
            else:
                self.since.setdefault(name, self.now)
        nodes = {name: NodeView(name, *self.disks[name], self.since.get(name)) for name in self.names}
        voters = self.configuration.voters
        if not self.has_quorum(voters):
            return None, nodes
        if not any(self.answers(member) and member.replica == self.leader for member in voters):
            self.leader = next(m.replica for m in voters if self.answers(m) and not m.witness)
        members = []
        for member in self.configuration.members:
            answers = self.answers(member)
            if answers:
                self.silent.pop(member.replica, None)
                self.behind[member.replica] = max(0, self.behind.get(member.replica, 0) - 200)
            else:
                self.silent.setdefault(member.replica, self.now)
            members.append(
                RealMember(
                    member,
                    member in voters,
                    self.behind.get(member.replica, 0),
                    answers,
                    self.silent.get(member.replica),
                )
            )
        return Real(self.leader, tuple(members), settled=True, promote_lag_max=256), nodes

    def do(self, step: Step) -> None:
        match step:
            case Host(node):
                assert node in self.up
                assert not self.disks[node].replica, "a node has one replica of a cluster"
                self._draw(node, "empty")
            case Change(voters, learners):
                self._change(voters, learners)
            case Transfer(node):
                (target,) = [m for m in self.configuration.voters if m.node == node and self.answers(m)]
                assert not target.witness
                self.leader = target.replica
            case Delete(node, replica):
                assert self.configuration.member(replica) is None, "a member was deleted"
                assert self.disks[node].replica == replica
                self.disks[node] = Disk()
            case Replace(gone, by):
                assert gone not in self.up
                self.wanted = self.wanted.moving(gone, by)

    def _change(self, voters, learners) -> None:
        before = self.configuration
        change = members.Change(tuple(voters), tuple(learners))
        after = membership.next_configuration(before, change)
        for member in voters:
            if member.replica not in before.voter_ids:
                assert member in before.learners, "a voter begins as a learner"
                assert self.behind[member.replica] <= 256, "it has caught up"
        assert self.has_quorum(voters), f"{voters} would have no quorum"
        assert any(member.replica == self.leader for member in voters), "the leader removed itself"
        assert len(voters) >= min(len(before.voters), len(self.wanted.voters)), "fewer voters than wanted"
        for member in learners:
            if before.member(member.replica) is None:
                assert self.disks[member.node] == Disk(member.replica, "empty")
                self.disks[member.node] = Disk(member.replica, "running")
                self.behind[member.replica] = 1_000
        self.configuration = after.left()

    def step(self) -> Step:
        real_now, nodes = self.look()
        step = plan(self.wanted, real_now, nodes, self.now)
        self.do(step)
        return step


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["down", "up", "wipe", "add", "witness", "remove", "move", "step", "step", "step", "time"]),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    max_size=40,
)


def befall(world: World, what: str, one: int, two: int) -> None:
    name, other = world.names[one % len(world.names)], world.names[two % len(world.names)]
    match what:
        case "down":
            world.up.discard(name)
        case "up":
            world.up.add(name)
        case "wipe":
            rest = [m for m in world.configuration.voters if m.node != name]
            if sum(map(world.answers, rest)) >= majority(len(world.configuration.voters)):
                world.disks[name] = Disk()
        case "time":
            world.now += 50
        case "step":
            world.step()
        case _:
            try:
                if what == "remove":
                    wanted = world.wanted.removing(name)
                elif what == "move":
                    wanted = world.wanted.moving(name, other)
                else:
                    wanted = world.wanted.adding(name, witness=what == "witness")
            except ValueError:
                return
            kinds = {place.node: place.witness for place in wanted.voters}
            # One of the other kind goes first: for that time there is a voter less.
            if all(kinds.get(m.node, m.witness) is m.witness for m in world.configuration.members):
                world.wanted = wanted


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 5), EVENTS)
def test_no_step_is_unsafe_and_once_the_failures_end_it_arrives(voters: int, events) -> None:
    world = World(voters, nodes=6)
    for what, one, two in events:
        befall(world, what, one, two)
    world.up = set(world.names)
    for _ in range(300):
        step = world.step()
        if step == Settled():
            break
        world.now += 5
    real_now, _ = world.look()
    if real_now is None:
        pytest.fail("the quorum was lost")
    assert step == Settled(), step
    there = {(member.node, member.witness) for member in world.configuration.voters}
    assert there == {(place.node, place.witness) for place in world.wanted.voters}
    assert not world.configuration.learners
    hosts = {name for name, disk in world.disks.items() if disk.replica}
    assert hosts == set(world.wanted.nodes)


def test_a_node_whose_mailbox_has_moved_gets_its_new_address_into_the_log():
    view = NodeView("node2", 2, "running", address="rediss://two:6380")
    there = B._replace(address=view.address)
    nodes = hosting(A, C) | {"node2": view}
    step = plan(want(A, B, C), real(A, B, C, silent={B: 5.0}), nodes, NOW)
    assert step == Change((A, there, C), (), "node2: the mailbox is elsewhere now")
    assert plan(want(A, B, C), real(A, there, C), nodes, NOW) == Settled()
    assert plan(want(A, B, C), real(A, there, C), nodes | {"node2": view._replace(silent_since=3.0)}, NOW) == Settled()
    unreachable = plan(want(A, B, C), real(A, B, C, silent={B: 5.0, C: 5.0}), nodes, NOW)
    assert "no quorum of the voters answers" in reason(unreachable)


def test_a_new_member_comes_with_its_address():
    nodes = hosting(A, B, C, d=NodeView("node4", 4, "empty", address="redis://four:6379"))
    there = D._replace(address="redis://four:6379")
    step = plan(want(A, B, C, D), real(A, B, C), nodes, NOW)
    assert step == Change((A, B, C), (there,), "node4 is added as a learner")
